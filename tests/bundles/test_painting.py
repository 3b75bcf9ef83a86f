"""What the bundle that paints slices for label maps reads and writes, and how its two protocols stay apart."""

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

sys.path.insert(0, str(Path(__file__).parent))
from refusal import refused
from small_hearts import SHAPE, WHOLE_HEART, write_mmwhs

from bundles import (
    DENOISER,
    PROTOCOLS,
    Options,
    Trained,
    complete,
    configs,
    keys,
    overlays,
    read,
    split_record,
    stage_weights,
    tiny,
    tiny_evaluation,
    tiny_inference,
)
from common.networks.encoders.latent_spaces import latent_space

SYNTHETIC: Options = {"num_samples": 4, "min_label_pixels": 1}


@pytest.fixture
def trained(encoded_hearts: Path, training_of: Callable[[str], Path], tmp_path: Path) -> Trained:
    """What a training has left, copied for one test."""
    return Trained("fqcdm", encoded_hearts, shutil.copytree(training_of("fqcdm"), tmp_path / "trained"))


@pytest.fixture
def segmenter(training_of: Callable[[str], Path]) -> Path:
    """Weights of a segmentation network for the same hearts."""
    return training_of("cardiac_segmentation") / "models" / "model.pt"


def start(names: list[str], options: Options) -> None:
    run(config_file=[str(configs("fqcdm") / f"{name}.json") for name in names], **options)


def paint(trained: Trained, **more: Any) -> list[Path]:
    options = tiny_inference(*trained, **more)
    start(["inference"], options)
    return sorted(Path(options["output_dir"]).glob("*_image.nii.gz"))


def synthesize(trained: Trained, folder: Path, **more: Any) -> Path:
    """A synthetic set in ``folder``."""
    start(["train", "synthesize"], tiny(*trained) | SYNTHETIC | {"synthetic_dir": str(folder)} | more)
    return folder


def scores_of(folder: Path, protocol: str) -> dict[str, Any]:
    return json.loads((folder / "output" / "evaluation" / protocol / "metrics.json").read_text())


def voxels(path: Path) -> np.ndarray:
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj)


# Evaluation


def test_every_result_says_its_protocol_and_the_limit_of_r_is_the_autoencoder(
    trained: Trained, segmenter: Path
) -> None:
    """PSNR of R at t0 = 0 is computed here again, with the autoencoder of stage 1."""
    options = tiny_evaluation(*trained, segmenter_path=str(segmenter))
    start(["train", "evaluate"], options)
    for protocol, mode, t0 in (("reconstruction", "R", [0, 2]), ("synthesis", "S", 5)):
        metrics = scores_of(trained.folder, protocol)
        assert (metrics["mode"], metrics["t0"]) == (mode, t0)
        assert metrics["schedule"] == "linear 0.001 to 0.95, T=5"
        assert metrics["split_level"] == "patient"
        assert "leaky_split" not in metrics
        assert "leaky_split" not in split_record(trained.folder)
    synthesis = scores_of(trained.folder, "synthesis")["scores"]
    assert {"frechet_distance", "frechet_distance_encoder", "label_dice", "label_dice_myocardium"} <= synthesis.keys()
    assert {"samples", "held_out"} <= synthesis["label_dice"].keys()
    assert "psnr" not in synthesis

    parser = read("fqcdm", "train", "evaluate")
    parser.update(options)
    slices = parser.get_parsed_content("reconstruction#dataset")
    images = slices.__getitems__(range(6))["image"] / 255
    pred = latent_space("quantized", options["autoencoder_path"]).reconstruct(images)
    errors = (pred - images).double().square().flatten(1).mean(1)
    psnr = scores_of(trained.folder, "reconstruction")["scores"]["psnr"]
    assert psnr["t0=0"]["value"] == pytest.approx(float((-10 * errors.log10()).mean()), abs=1e-4)
    assert psnr["t0=2"]["value"] != psnr["t0=0"]["value"]
    with (trained.folder / "output" / "evaluation" / "reconstruction" / "metrics_cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["index"]), int(row["t0"])) for row in rows] == [(i, t0) for i in range(6) for t0 in (0, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["vqvae", None])
def test_an_autoencoder_alone_is_scored_by_protocol_r(
    encoded_hearts: Path, overlay: str | None, tmp_path: Path
) -> None:
    names = ["train_autoencoder", *([overlay] if overlay else [])]
    options = tiny("fqcdm", encoded_hearts, tmp_path, config="train_autoencoder")
    start(names, options)
    start([*names, "evaluate_autoencoder"], options | {"num_val_slices": 6})
    metrics = scores_of(tmp_path, "reconstruction")
    assert metrics["method"] == (overlay or "fqb_dbd")
    assert (metrics["mode"], metrics["t0"], metrics["schedule"], metrics["split_level"]) == (
        "R",
        [0],
        "none",
        "patient",
    )


@pytest.mark.slow
def test_diffusion_on_pixels_needs_no_autoencoder(hearts: Path, segmenter: Path, tmp_path: Path) -> None:
    """Training, both protocols and inference; at t0 = 0 the pixels come back as they are."""
    trained = Trained("fqcdm", hearts, tmp_path)
    pixels = tiny(*trained, autoencoder_path="$None")
    start(["train", "ddpm"], pixels)
    start(["train", "ddpm", "evaluate"], pixels | PROTOCOLS | {"segmenter_path": str(segmenter)})
    exact = scores_of(tmp_path, "reconstruction")["scores"]
    assert exact["l1"]["t0=0"]["value"] < 1e-6
    assert exact["l1"]["t0=2"]["value"] > 1e-3
    assert len(paint(trained)) == 3


# A split by slice


def test_a_split_by_slice_is_never_the_default() -> None:
    for name in complete("fqcdm"):
        assert read("fqcdm", name).get("split_level", "patient") == "patient", name
    for name in overlays("fqcdm"):
        assert "split_level" not in keys("fqcdm", name), name


@pytest.mark.slow
def test_a_split_by_slice_is_tagged_wherever_it_leads_to(encoded_hearts: Path, tmp_path: Path) -> None:
    trained = Trained("fqcdm", encoded_hearts, tmp_path)
    leaky = {"split_level": "slice"}
    start(["train"], tiny(*trained, **leaky))
    split = split_record(tmp_path)
    assert split["leaky_split"] is True
    assert set(split["training"]["patients"]) & set(split["validation"]["patients"])
    start(["train", "evaluate"], tiny_evaluation(*trained, **leaky))
    for protocol in ("reconstruction", "synthesis"):
        assert scores_of(tmp_path, protocol)["leaky_split"] is True
    refused(trained, ["train", "evaluate"], tiny_evaluation(*trained), "were trained on")


# Inference


def oblique(codes: str) -> np.ndarray:
    """Affine whose axes run nearly along ``codes``; pixels of 3.0 x 3.2 x 8 mm in RAS."""
    axes = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(codes), SHAPE)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = nibabel.eulerangles.euler2mat(0.1, -0.06, 0.15) @ np.diag([3.0, 3.2, 8.0]) @ np.linalg.inv(axes)
    affine[:3, 3] = (-31.7, 12.3, 55.1)
    return affine


def turned(volume: np.ndarray, codes: str) -> np.ndarray:
    """Voxels in RAS order as a file whose axes run along ``codes`` holds them."""
    order = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    return nibabel.orientations.apply_orientation(volume, order)


def test_an_image_lies_on_the_grid_of_its_label_map_with_provenance(trained: Trained, tmp_path: Path) -> None:
    """On an oblique grid of odd size; slices without labels stay black, the copy of the label map is exact."""
    labels = voxels(trained.data / "inputs" / "labels" / "heart_a.nii.gz")[1:, :, :]
    affine = oblique("LPS")
    (tmp_path / "maps").mkdir()
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "maps" / "p1.nii.gz")
    (file,) = paint(trained, input_dir=str(tmp_path / "maps"), seed=3)
    image, copy = nibabel.load(file), nibabel.load(file.with_name("p1_label.nii.gz"))
    assert file.name == "p1_image.nii.gz"
    assert labels.shape == (39, 44, 5)
    for volume in (image, copy):
        assert volume.shape == labels.shape
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
        assert bytes(volume.header["descrip"]).startswith(b"SYNTHETIC fqcdm ")
    np.testing.assert_array_equal(np.asarray(copy.dataobj), labels)
    pixels = image.get_fdata()
    assert 0 <= pixels.min() < pixels.max() <= 1
    assert (labels[..., -1] == 0).all()
    assert (pixels[..., -1] == 0).all()
    assert pixels[..., :-1].std(axis=(0, 1)).min() > 0
    record = json.loads(file.with_name("p1_image.json").read_text())
    assert record["synthetic"] is True
    assert (record["mode"], record["seed"], record["case"]) == ("S", 3, "p1")
    assert record["source"] == str(tmp_path / "maps" / "p1.nii.gz")
    assert record["weights"] == str(trained.folder / "models" / "model.pt")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_image_and_another_one_another(trained: Trained) -> None:
    images = []
    for number, seed in enumerate((5, 5, 6)):
        source = str(trained.data / "inputs" / "labels" / "heart_a.nii.gz")
        (file,) = paint(trained, input_dir=source, seed=seed, output_dir=str(trained.folder / str(number)))
        images.append(voxels(file))
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_whole_hearts_are_painted_alike_for_every_orientation_of_the_label_file(
    modality: str, encoded_hearts: Path, tmp_path: Path
) -> None:
    """The paper's overlays in the layout of MM-WHS, then one label map in two files; CT is in Hounsfield units."""
    data = write_mmwhs(tmp_path / "data", modality, 10)
    trained = Trained("fqcdm", data, tmp_path)
    options = tiny(*trained, pixel_mm=3.0, autoencoder_path=str(stage_weights("train_autoencoder", encoded_hearts)))
    del options["dataset"]
    start(["train", "paper_acdc", f"paper_mmwhs_{modality}"], options | {"num_workers": 0})
    split = split_record(tmp_path)
    assert split["dataset"] == f"mmwhs_{modality}"
    assert (len(split["training"]["cases"]), len(split["validation"]["cases"])) == (7, 2)

    labels = voxels(data / f"{modality}_train" / f"{modality}_train_1002_label.nii.gz")
    assert set(np.unique(labels)) == {0, *WHOLE_HEART}
    answers = []
    for codes in ("RAS", "PSL"):
        folder = tmp_path / codes
        folder.mkdir()
        nibabel.save(nibabel.Nifti1Image(turned(labels, codes), oblique(codes)), folder / "heart.nii.gz")
        (file,) = paint(trained, input_dir=str(folder / "heart.nii.gz"), output_dir=str(folder / "out"))
        image: Any = nibabel.load(file)
        assert image.shape == turned(labels, codes).shape
        np.testing.assert_allclose(image.affine, oblique(codes), atol=1e-4)
        assert image.get_data_dtype() == (np.int16 if modality == "ct" else np.float32)
        answers.append(np.asarray(nibabel.as_closest_canonical(image).dataobj, dtype=float))
    low, high = (-150, 650) if modality == "ct" else (0, 1)
    assert low <= answers[0].min() < answers[0].max() <= high
    assert (answers[0][..., -1] == low).all()  # no labels there
    np.testing.assert_allclose(answers[1], answers[0], atol=1 if modality == "ct" else 1e-4)
    record = json.loads((tmp_path / "RAS" / "out" / "heart_image.json").read_text())
    assert record["units"] == ("HU" if modality == "ct" else "arbitrary")


# Synthetic sets


def test_a_set_is_extended_by_more_samples_of_the_same_settings_only(trained: Trained, tmp_path: Path) -> None:
    """Pairs with the values of the data set and the patient whose label map was painted, all from the training."""
    folder = synthesize(trained, tmp_path / "set")
    names = [f"sample_{number:06d}.nii.gz" for number in range(6)]
    for part in ("images", "labels"):
        assert sorted(path.name for path in (folder / part).glob("*.nii.gz")) == names[:4]
    info = json.loads((folder / "labels.json").read_text())
    assert info["values"] == {"0": "background", "1": "right ventricle", "2": "myocardium", "3": "left ventricle"}
    patients = set(split_record(trained.folder)["training"]["patients"])
    assert set(info["source_patients"]) <= patients
    for name in names[:4]:
        image, labels = voxels(folder / "images" / name), voxels(folder / "labels" / name)
        assert image.shape == labels.shape == (32, 32, 1)
        assert 0 <= image.min() < image.max() <= 1
        assert set(np.unique(labels)) <= {0, 1, 2, 3}
        assert labels.any()
        record = json.loads((folder / "images" / name.replace(".nii.gz", ".json")).read_text())
        assert record["source_patient"] in patients
        assert record["mode"] == "S"

    first = {name: voxels(folder / "images" / name) for name in names[:4]}
    synthesize(trained, folder, first_sample=4, num_samples=2)
    assert sorted(path.name for path in (folder / "images").glob("*.nii.gz")) == names
    for name, image in first.items():
        np.testing.assert_array_equal(voxels(folder / "images" / name), image)
    with (folder / "metadata.csv").open() as file:
        assert [row["file"] for row in csv.DictReader(file)] == names
    other = tiny(*trained) | SYNTHETIC | {"synthetic_dir": str(folder), "guidance": 2.0}
    refused(trained, ["train", "synthesize"], other, "guidance 1.0, here 2.0", str(folder))
    assert sorted(path.name for path in (folder / "images").glob("*.nii.gz")) == names


@pytest.mark.slow
def test_a_larger_set_begins_with_the_smaller_one(trained: Trained, tmp_path: Path) -> None:
    """Also where maps are used again, deformed: there are fewer maps than samples."""
    number = 76
    small = synthesize(trained, tmp_path / "small", val_batch_size=32, num_samples=number - 1)
    large = synthesize(trained, tmp_path / "large", val_batch_size=38, num_samples=number)
    deformed = 0
    for file in sorted((small / "images").glob("*.nii.gz")):
        for part in ("images", "labels"):
            np.testing.assert_allclose(voxels(small / part / file.name), voxels(large / part / file.name), atol=1e-4)
        record = json.loads(Path(str(file).replace(".nii.gz", ".json")).read_text())
        deformed += record["deformed"]
    assert deformed == number - 1 - 72  # of 9 patients, 2 frames and 4 slices with labels


# Joint training


@pytest.mark.slow
@pytest.mark.parametrize("detach", [True, False])
def test_the_single_loss_leaves_weights_that_all_other_configs_take(
    detach: bool, encoded_hearts: Path, tmp_path: Path
) -> None:
    """``train_joint.json``, then both protocols and inference, without any other autoencoder."""
    trained = Trained("fqcdm", encoded_hearts, tmp_path)
    options = tiny(*trained, config="train_autoencoder")
    start(["train_autoencoder", "train_joint"], options | DENOISER | {"joint_detach": detach})
    start(["train", "evaluate"], tiny_evaluation(*trained, encoder_path="$None"))
    assert scores_of(tmp_path, "synthesis")["schedule"] == "linear 0.001 to 0.95, T=5"
    assert len(paint(trained)) == 3
    theirs = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    ours = torch.load(stage_weights("train_autoencoder", encoded_hearts), weights_only=True)
    assert any(name.endswith("codebook") for name in theirs)
    assert not any(
        torch.equal(theirs[name], ours["quantizer.codebook"]) for name in theirs if name.endswith("codebook")
    )


# Configs

FOLDERS = {"_desc_", "bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "cache_dir"}
RUN_ONLY = {
    "batch_size",
    "max_epochs",
    "learning_rate",
    "val_interval",
    "val_batch_size",
    "initialize",
    "run",
    "imports",
}
OPTIMIZED = {"warmup_steps", "decay_steps", "final_lr_factor", "clip_norm", "network", "eval_network", "method"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("fqcdm", "train"), ("fqcdm", "train_autoencoder")),
        (("fqcdm", "train", "paper_acdc"), ("fqcdm", "train_autoencoder", "paper_acdc")),
        (("fqcdm", "train"), ("cardiac_segmentation", "train")),
        (("fqcdm", "train"), ("cardiac_segmentation", "pretrain")),
        (("fqcdm", "train"), ("fqcdm", "train_autoencoder", "train_joint")),
        (("cardiac_segmentation", "train"), ("cardiac_segmentation", "pretrain")),
    ],
    ids=lambda names: "+".join(names),
)
def test_stages_prepare_the_same_patients_in_the_same_way(theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
    """Data, split, preparation and shared settings, or images and weights of one stage would not fit the next."""
    first, second = (read(*names).get() for names in (theirs, ours))
    for key in ("preprocessing", "slices"):
        assert first["train"][key] == second["train"][key]
    assert first["validate"]["preprocessing"] == second["validate"]["preprocessing"]
    assert first["validate"]["dataset"]["data"] == second["validate"]["dataset"]["data"]
    shared = first.keys() & second.keys() - FOLDERS - RUN_ONLY - OPTIMIZED
    plain = {key for key in shared if not isinstance(first[key], dict) or key in ("label_values", "label_names")}
    assert {"dataset", "split", "split_level", "image_size", "pixel_mm", "label_values", "axcodes"} <= plain
    own = {"weight_decay", "ema_decay", "betas", *(["crop_about"] if theirs[0] != ours[0] else [])}
    kept = plain - own
    assert {key: second[key] for key in kept} == {key: first[key] for key in kept}


def test_every_stage_of_the_chains_has_files_and_options_that_exist() -> None:
    plan = json.loads((configs("fqcdm") / "stages.json").read_text(encoding="utf-8"))
    assert all(set(chain) <= set(plan["stages"]) for chain in plan["chains"].values())
    for name, stage in plan["stages"].items():
        content: dict[str, Any] = {}
        for file in stage["config"]:
            content |= json.loads((configs("fqcdm") / file).read_text(encoding="utf-8"))
        assert stage.get("options", {}).keys() <= content.keys(), name
