"""What bundles that translate images read, build and write, from file to file."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import run
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from formats import write_dicom, write_metaimage, write_nifti

from bundles import FACTS, MR_TO_CT, Trained, configs, inferred, of_kind, read, tiny, tiny_inference
from common.networks.blocks.frequency_balance import FrequencyBalance, PlainBalance
from common.networks.blocks.knowledge_guidance import KnowledgeGuidance, PlainGuidance
from common.transforms.loading import LoadVolume

on_translation = pytest.mark.parametrize("trained", of_kind("translation"), indirect=True)
on_dfbk = pytest.mark.parametrize("trained", ["dfbk"], indirect=True)


# Networks


def backbone(*names: str, **settings: Any) -> nn.Module:
    """The backbone of these configs of DFBK, on the meta device."""
    parser = read("dfbk", *names)
    for key, value in settings.items():
        parser[key] = value
    with torch.device("meta"):
        return parser.get_parsed_content("network_def#backbone")


def millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


PAPERS = {"paper_brats": 259.0, "paper_isles": 180.8, "paper_synthrad": 259.0}  # with one site of guidance
SECOND_SITE = 12.1
PAPER_BASES = {"paper_brats": 188.4, "paper_isles": 126.6, "paper_synthrad": 188.4}


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("base", ["train", "inference"])
def test_paper_overlays_build_the_papers_network(paper: str, base: str) -> None:
    overlay = paper if base == "train" else f"{paper}_inference"
    assert millions(backbone(base, overlay, guidance_sites=["mid"])) == pytest.approx(PAPERS[paper], rel=0.01)
    assert millions(backbone(base, overlay)) == pytest.approx(PAPERS[paper] + SECOND_SITE, rel=0.01)


@pytest.mark.parametrize("paper", PAPERS)
def test_without_both_modules_the_papers_network_is_its_base(paper: str) -> None:
    assert millions(backbone("train", paper, "ablation_none")) == pytest.approx(PAPER_BASES[paper], rel=0.01)


ABLATIONS = {
    "ablation_none": {},
    "ablation_dfb": {FrequencyBalance: "low high"},
    "ablation_dfb_low": {FrequencyBalance: "low"},
    "ablation_dfb_high": {FrequencyBalance: "high"},
    "ablation_norm_attn": {PlainBalance: ""},
    "ablation_kg": {KnowledgeGuidance: "low high"},
    "ablation_kg_low": {KnowledgeGuidance: "low"},
    "ablation_kg_high": {KnowledgeGuidance: "high"},
    "ablation_cross_attn": {PlainGuidance: ""},
}


def test_every_row_of_the_ablation_has_an_overlay() -> None:
    assert {path.stem for path in configs("dfbk").glob("ablation_*.json")} == set(ABLATIONS)


@pytest.mark.parametrize("row", ABLATIONS)
@pytest.mark.parametrize("names", [("train",), ("train", "paper_isles"), ("inference",)], ids="+".join)
def test_a_row_of_the_ablation_has_its_modules_and_no_others(row: str, names: tuple[str, ...]) -> None:
    network = backbone(*names, row)
    found: dict[type, set[str]] = {}
    for module in network.modules():
        if isinstance(module, FrequencyBalance | PlainBalance | KnowledgeGuidance | PlainGuidance):
            bands = [
                name for name in ("low", "high") if getattr(getattr(module, "bands", None), name, None) is not None
            ]
            found.setdefault(type(module), set()).add(" ".join(bands))
    assert found == {kind: {bands} for kind, bands in ABLATIONS[row].items()}


@pytest.mark.parametrize("overlay", ["", *PAPERS])
def test_inference_builds_the_network_that_training_builds(overlay: str) -> None:
    """The same architecture, task, schedule and geometry, or weights would be refused."""
    train = read("dfbk", "train", *([overlay] if overlay else []))
    inference = read("dfbk", "inference", *([f"{overlay}_inference"] if overlay else []))
    names = ["backbone", "source", "target", "num_steps", "kappa", "min_noise", "power", "sqrt_eta_end", "pixel_mm"]
    for name in names:
        with torch.device("meta"):
            ours, theirs = (parser.get_parsed_content(f"network_def#{name}") for parser in (train, inference))
        if name == "backbone":
            ours, theirs = ours.settings(), theirs.settings()
        assert ours == theirs, name
    assert train["fit"] == inference["fit"]


# Data


def ras(path: Path) -> np.ndarray:
    image: Any = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asarray(image.dataobj, dtype=np.float64)


def white(volume: np.ndarray, inside: np.ndarray) -> float:
    return float(np.percentile(volume[inside & (volume > 0)], 99.5))


def expected_slices(scan: Path, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Slices (count, 32, 48) in [-1, 1] of source and target of a scan of 48x48x8 voxels, by the rules in words:

    the ``count`` slices around the lower median of the slice numbers of all voxels with signal in the source; from 0 to
    the 99.5th percentile, over the whole volume, of what is above 0 in that foreground; the 32 columns in the middle.
    """
    source, target = (ras(scan / f"{scan.name}-{name}.nii.gz") for name in ("t1n", "t2f"))
    inside = source > 0
    places = np.sort(np.nonzero(inside)[2])
    first = int(np.clip(places[(len(places) - 1) // 2] - count // 2, 0, 8 - count))
    result = []
    for volume in (source, target):
        scaled = 2 * np.clip(volume / white(volume, inside), 0, 1) - 1
        result.append(scaled[8:40, :, first : first + count].transpose(2, 0, 1))
    return result[0], result[1]


@on_dfbk
def test_training_sees_registered_pairs_prepared_by_the_stated_rules(trained: Trained) -> None:
    parser = read(trained.bundle, "train")
    for key, value in tiny(*trained).items():
        parser[key] = value
    slices = parser.get_parsed_content("train#dataset")
    cases = [item["case"] for item in slices.data]
    assert len(slices) == 4 * len(cases)
    for number, case in enumerate(cases):
        for index, (source, target) in enumerate(zip(*expected_slices(trained.data / case), strict=True)):
            pair = slices[4 * number + index]
            np.testing.assert_allclose(pair["source"][0], source, atol=1e-3)  # kept as float16
            np.testing.assert_allclose(pair["target"][0], target, atol=1e-3)
            assert source.max() > 0
    volumes = [[ras(trained.data / case / f"{case}-{name}.nii.gz") for name in ("t1n", "t2f")] for case in cases]
    levels = [white(target, source > 0) for source, target in volumes]
    state = torch.load(trained.folder / "models" / "model.pt", weights_only=True)
    assert state["target_level"].item() == pytest.approx(np.median(levels), rel=1e-5)


# Evaluation


@on_dfbk
def test_evaluation_scores_the_prediction_beside_its_floors(trained: Trained) -> None:
    """Those of the copied source are computed here again, from the files, with scikit-image."""
    bundle, data, folder = trained
    files = [str(configs(bundle) / name) for name in ("train.json", "evaluate.json")]
    run(config_file=files, **tiny(bundle, data, folder, num_samples=2))
    results = folder / "output" / "evaluation"
    metrics = json.loads((results / "metrics.json").read_text())
    assert {"prediction", "mean_of_samples", "source_copy", "pointwise"} <= metrics["methods"].keys()
    for score in ("psnr", "ssim"):
        assert all(
            np.isfinite(metrics["protocols"]["paper"]["scores"][score][method]["value"])
            for method in ("prediction", "source_copy", "pointwise")
        )
    with (results / "metrics_cases.csv").open() as file:
        rows = {(row["case"], row["method"]): row for row in csv.DictReader(file)}
    cases = {case for case, _ in rows}
    assert len(cases) == metrics["n"]["cases"]
    assert not cases & set(json.loads((folder / "output" / "split.json").read_text())["training"]["cases"])
    for case in cases:
        pairs = [
            ((source + 1) / 2, (target + 1) / 2) for source, target in zip(*expected_slices(data / case), strict=True)
        ]
        psnr = np.mean([peak_signal_noise_ratio(target, source, data_range=1) for source, target in pairs])
        ssim = np.mean([structural_similarity(target, source, data_range=1) for source, target in pairs])
        assert float(rows[case, "source_copy"]["paper_psnr"]) == pytest.approx(psnr, abs=0.01)
        assert float(rows[case, "source_copy"]["paper_ssim"]) == pytest.approx(ssim, abs=1e-3)
        assert float(rows[case, "pointwise"]["paper_psnr"]) > float(rows[case, "source_copy"]["paper_psnr"])


# Inference


def infer(trained: Trained, **more: Any) -> list[Path]:
    options = tiny_inference(*trained, **more)
    run(config_file=str(configs(trained.bundle) / "inference.json"), **options)
    return sorted(Path(options["output_dir"]).glob("*.nii.gz"))


@on_dfbk
def test_volumes_have_the_target_s_range_and_a_clean_background(trained: Trained) -> None:
    """From 0 to the median white of the training targets; 0 where the source has no signal."""
    infer(trained)
    level = torch.load(trained.folder / "models" / "model.pt", weights_only=True)["target_level"].item()
    for letter, file in zip("abc", inferred(trained.bundle, trained.folder / "inference"), strict=True):
        source, volume = (nibabel.load(path) for path in (trained.data / "inputs" / f"head_{letter}.nii.gz", file))
        voxels, foreground = volume.get_fdata(), source.get_fdata() > 0
        assert voxels.shape == source.shape
        assert (voxels[~foreground] == 0).all()
        assert 0 <= voxels.min() < voxels.max() <= level * (1 + 1e-6)
        record = json.loads(Path(str(file).replace(".nii.gz", ".json")).read_text())
        assert record["source"] == str(trained.data / "inputs" / f"head_{letter}.nii.gz")
        assert record["units"] == "arbitrary"
        assert (record["source_modality"], record["modality"]) == ("t1n", "t2f")


def oblique(codes: str, shape: tuple[int, ...]) -> np.ndarray:
    """Affine whose axes run nearly along ``codes``; the spacing is that of the same head, 4.5 x 4.7 x 4.4 mm in RAS."""
    axes = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(codes), shape)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = nibabel.eulerangles.euler2mat(0.1, -0.06, 0.15) @ np.diag([4.5, 4.7, 4.4]) @ np.linalg.inv(axes)
    affine[:3, 3] = (-31.7, 12.3, 55.1)
    assert "".join(nibabel.aff2axcodes(affine)) == codes
    return affine


def turned(voxels: np.ndarray, codes: str) -> np.ndarray:
    """Voxels in RAS order as a file whose axes run along ``codes`` holds them."""
    orientation = nibabel.orientations.axcodes2ornt(codes)
    order = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), orientation)
    return nibabel.orientations.apply_orientation(voxels, order)


FORMATS: dict[str, tuple[str, str, Callable[[Path, np.ndarray, np.ndarray], Path]]] = {
    "sagittal NIfTI": ("PSR", "head.nii", write_nifti),
    "coronal NIfTI": ("LIA", "head.nii.gz", write_nifti),
    "MetaImage": ("PIR", "head.mha", write_metaimage),
    "DICOM": ("LPS", "head", write_dicom),
}


@on_translation
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_head_is_translated_alike_from_every_format_and_orientation(trained: Trained, tmp_path: Path) -> None:
    """The answer lies on the file's own grid, and is the same picture."""
    voxels = np.rint(ras(trained.data / "inputs" / "head_a.nii.gz"))
    answers = []
    for number, (codes, name, write) in enumerate(FORMATS.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        turned_voxels = turned(voxels, codes)
        path = write(folder / name, turned_voxels, oblique(codes, turned_voxels.shape))
        source = LoadVolume()(path)
        np.testing.assert_array_equal(source[0], turned_voxels)
        (file,) = infer(trained, input_dir=str(folder), output_dir=str(folder / "out"))
        assert file.name == FACTS[trained.bundle].results[0].replace("_a_", "_")
        answer: Any = nibabel.load(file)
        assert answer.shape == turned_voxels.shape
        np.testing.assert_allclose(answer.affine, source.affine, atol=1e-4)
        if path.suffix in (".nii", ".gz"):
            theirs = nibabel.load(path).header
            assert (answer.header["sform_code"], answer.header["qform_code"]) == (0, 2)
            np.testing.assert_allclose(answer.header.get_zooms(), theirs.get_zooms(), rtol=1e-6)
            assert answer.header.get_xyzt_units() == theirs.get_xyzt_units()
        answers.append(ras(file))
    assert answers[0].std() > 1
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-3 * answers[0].max())


@on_dfbk
def test_several_samples_give_their_mean_and_their_standard_deviation(trained: Trained) -> None:
    """The first of three samples is the one that a run with a single noisy sample gives."""
    data = trained.data / "inputs" / "head_a.nii.gz"
    runs = {
        number: infer(
            trained,
            input_dir=str(data),
            num_samples=number,
            deterministic=False,
            output_dir=str(trained.folder / str(number)),
        )
        for number in (1, 2)
    }
    assert [path.name for path in runs[1]] == ["head_a_t2f.nii.gz"]
    assert [path.name for path in runs[2]] == ["head_a_t2f.nii.gz", "head_a_t2f_sd.nii.gz"]
    first = nibabel.load(runs[1][0]).get_fdata()
    mean, deviation = (nibabel.load(path).get_fdata() for path in runs[2])
    # of two samples a and b the deviation is |a - b| / sqrt 2 and |a - mean| is |a - b| / 2
    np.testing.assert_allclose(deviation / np.sqrt(2), np.abs(first - mean), atol=1e-3 * mean.max())
    assert deviation.max() > 0.01 * mean.max()
    assert (deviation[mean == 0] == 0).all()
    header = nibabel.load(runs[2][1]).header
    assert bytes(header["descrip"]).startswith(b"SYNTHETIC dfbk ")
    assert json.loads((trained.folder / "2" / "head_a_t2f.json").read_text())["standard_deviation"] is True


@on_dfbk
def test_a_given_mask_says_where_the_head_is(trained: Trained, tmp_path: Path) -> None:
    """Nothing outside of it, and the record names the source, not the mask."""
    path = trained.data / "inputs" / "head_a.nii.gz"
    image: Any = nibabel.load(path)
    inside = np.zeros(image.shape, np.uint8)
    inside[10:38, 10:38, 2:6] = 1
    (tmp_path / "masks").mkdir()
    nibabel.save(nibabel.Nifti1Image(inside, image.affine), tmp_path / "masks" / "head_a.nii.gz")
    (file,) = infer(trained, input_dir=str(path), mask_dir=str(tmp_path / "masks"))
    voxels = nibabel.load(file).get_fdata()
    assert (voxels[inside == 0] == 0).all()
    assert (voxels[inside == 1] > 0).mean() > 0.9
    assert json.loads(Path(str(file).replace(".nii.gz", ".json")).read_text())["source"] == str(path)


# MR to CT


def test_mr_becomes_ct_in_hounsfield_units(trained_on_ct: Trained, tmp_path: Path) -> None:
    """Training with one patient held out, SynthRAD's scores, and a volume of int16 with air outside of the body."""
    bundle, data, folder = trained_on_ct
    split = json.loads((folder / "output" / "split.json").read_text())
    assert split["validation"]["patients"] == ["1BA002"]
    assert len(split["training"]["patients"]) == 5

    files = [str(configs(bundle) / name) for name in ("train.json", "evaluate.json")]
    run(config_file=files, **tiny(*trained_on_ct) | MR_TO_CT)
    metrics = json.loads((folder / "output" / "evaluation" / "metrics.json").read_text())
    scores = metrics["protocols"]["synthrad"]["scores"]
    assert metrics["n"]["cases"] == 1
    assert 0 < scores["mae"]["resampled_target"]["value"] < scores["mae"]["source_copy"]["value"]
    assert np.isfinite(scores["ssim"]["prediction"]["value"])

    patient = data / "Task1" / "brain" / "1BA002"
    for name, place in (("mr", tmp_path / "volumes"), ("mask", tmp_path / "masks")):
        place.mkdir()
        shutil.copy(patient / f"{name}.nii.gz", place / "p1.nii.gz")
    names = {key: MR_TO_CT[key] for key in ("source", "target", "foreground", "fit")}
    (file,) = infer(trained_on_ct, input_dir=str(tmp_path / "volumes"), mask_dir=str(tmp_path / "masks"), **names)
    volume: Any = nibabel.load(file)
    source: Any = nibabel.load(patient / "mr.nii.gz")
    inside = np.asarray(nibabel.load(patient / "mask.nii.gz").dataobj) > 0
    voxels = np.asarray(volume.dataobj)
    assert file.name == "p1_ct.nii.gz"
    assert volume.get_data_dtype() == np.int16
    assert voxels.shape == source.shape
    np.testing.assert_allclose(volume.affine, source.affine, atol=1e-5)
    assert (voxels[~inside] == -1024).all()
    assert -1024 <= voxels.min() < voxels.max() <= 3000
    assert len(np.unique(voxels[inside])) > 50
    assert json.loads((folder / "inference" / "p1_ct.json").read_text())["units"] == "HU"


# Whole recipes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paper", "dataset", "pattern"),
    [
        ("paper_isles", "brain_phantom_isles", "brain-isles-*/SISS2015_Training/4/*MR_Flair*/*.nii"),
        ("paper_synthrad", "brain_phantom_synthrad", "brain-synthrad-*/Task1/brain/1BC008/mr.nii.gz"),
    ],
)
def test_paper_overlays_train_and_translate_in_their_layouts(
    paper: str, dataset: str, pattern: str, tmp_path: Path
) -> None:
    phantom = {"dataset": dataset, "phantom_cases": 12, "phantom_size": 48}
    data = tmp_path / "data"
    trained = Trained("dfbk", data, tmp_path)
    run(
        config_file=[str(configs("dfbk") / name) for name in ("train.json", f"{paper}.json")],
        **tiny(*trained) | phantom,
    )
    (volume,) = data.glob(pattern)
    run(
        config_file=[str(configs("dfbk") / name) for name in ("inference.json", f"{paper}_inference.json")],
        **tiny_inference(*trained, input_dir=str(volume)),
    )
    (file,) = (tmp_path / "inference").glob("*.nii.gz")
    assert nibabel.load(file).shape == nibabel.load(volume).shape


@on_dfbk
@pytest.mark.slow
def test_a_volume_of_full_size_comes_back_whole(trained: Trained, tmp_path: Path) -> None:
    """240x240x155 voxels, of which the tiny network sees the 32x48 in the middle of each slice with signal."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (240, 240, 155)), indexing="ij", sparse=True)
    brain = (x / 0.7) ** 2 + (y / 0.8) ** 2 + (z / 0.9) ** 2 < 1
    voxels = np.where(brain, 300 + 200 * np.cos(9 * x) * np.cos(7 * y + 3 * z), 0).astype(np.int16)
    affine = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # as BraTS has it
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "head.nii.gz")
    (file,) = infer(trained, input_dir=str(tmp_path / "head.nii.gz"), batch_size=16)
    source, answer = (nibabel.load(path) for path in (tmp_path / "head.nii.gz", file))
    result = np.asarray(answer.dataobj)
    assert result.shape == (240, 240, 155)
    np.testing.assert_array_equal(answer.affine, source.affine)
    for field in ("pixdim", "qform_code", "sform_code", "xyzt_units"):
        np.testing.assert_array_equal(answer.header[field], source.header[field])
    seen = np.zeros(brain.shape, bool)
    seen[104:136, 96:144] = True
    assert (result[~(seen & brain)] == 0).all()
    assert (result[seen & brain] > 0).mean() > 0.9


@pytest.mark.slow
def test_tokens_can_be_learned_in_place_of_a_description(brain_scans: Path, tmp_path: Path) -> None:
    trained = Trained("dfbk", brain_scans, tmp_path)
    options = tiny(*trained, text_source="learned", allow_text_table=False)
    run(config_file=str(configs("dfbk") / "train.json"), **options)
    assert "learned_tokens" in torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    infer(trained, text_source="learned")
    inferred("dfbk", tmp_path / "inference")
