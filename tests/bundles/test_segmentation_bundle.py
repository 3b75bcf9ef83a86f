"""What the segmentation bundle reads, trains on and writes."""

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

from bundles import Options, Trained, complete, configs, keys, overlays, read, split_record, tiny, tiny_inference
from common.data.cases import find_cases
from common.networks.encoders.segmenters import pretrained_segmenter

NAMES = ("right ventricle", "myocardium", "left ventricle")  # values 1, 2, 3 in ACDC files


@pytest.fixture
def trained(hearts: Path, training_of: Callable[[str], Path], tmp_path: Path) -> Trained:
    """What a training on real slices has left, copied for one test."""
    folder = shutil.copytree(training_of("cardiac_segmentation"), tmp_path / "trained")
    return Trained("cardiac_segmentation", hearts, folder)


@pytest.fixture(scope="session")
def painted(encoded_hearts: Path, training_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six synthetic slices that fqcdm has painted for label maps of the training patients; not to be changed."""
    folder = tmp_path_factory.mktemp("painted")
    options = tiny("fqcdm", encoded_hearts, folder, ckpt_dir=str(training_of("fqcdm") / "models"))
    options |= {"synthetic_dir": str(folder / "set"), "num_samples": 6, "min_label_pixels": 1}
    run(config_file=[str(configs("fqcdm") / f"{name}.json") for name in ("train", "synthesize")], **options)
    return folder / "set"


def start(names: list[str], options: Options) -> None:
    run(config_file=[str(configs("cardiac_segmentation") / f"{name}.json") for name in names], **options)


def segment(trained: Trained, **more: Any) -> list[Path]:
    options = tiny_inference(*trained, **more)
    start(["inference"], options)
    return sorted(Path(options["output_dir"]).glob("*.nii.gz"))


def voxels(path: str | Path) -> np.ndarray:
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj)


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "output" / "evaluation" / "metrics.json").read_text())


# Training data


def test_training_on_real_and_synthetic_slices(trained: Trained, painted: Path, tmp_path: Path) -> None:
    """Twelve of the one, four of the other, prepared alike: real ones first."""
    options = tiny(*trained, synthetic_dir=str(painted), num_real=12, num_synthetic=4)
    parser = read("cardiac_segmentation", "train")
    parser.update(options)
    dataset = parser.get_parsed_content("train#dataset")
    assert (len(dataset), dataset.num_real, dataset.num_synthetic) == (16, 12, 4)
    sets = [dataset.__getitems__(numbers) for numbers in (range(12), range(12, 16))]
    for batch in sets:
        assert batch["image"].shape[1:] == batch["label"].shape[1:] == (1, 32, 32)
        assert 0 <= batch["image"].min() < batch["image"].max() <= 255
        assert set(batch["label"].unique().tolist()) == {0, 1, 2, 3}
    patients = {case["patient"] for case in find_cases("acdc", trained.data, "training", frames="labelled")}
    assert set(dataset.patients) <= patients
    files = [255 * voxels(path)[..., 0] for path in sorted((painted / "images").glob("*.nii.gz"))]
    for image in sets[1]["image"]:  # a painted slice as it is, not scaled once more
        assert min(np.abs(image[0].numpy() - file).max() for file in files) < 0.2  # kept as float16

    start(["train"], options | {"output_dir": str(tmp_path / "mixed"), "ckpt_dir": str(tmp_path / "weights")})
    assert (tmp_path / "weights" / "model.pt").is_file()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_synthetic": 7}, ["7", "6", "synthesize.json"]),
        ({"num_real": 1000}, ["1000", "72"]),
        ({"num_real": 0, "num_synthetic": 0}, ["no"]),
    ],
    ids=str,
)
def test_more_slices_than_there_are(trained: Trained, painted: Path, options: Options, expected: list[str]) -> None:
    refused(trained, ["train"], tiny(*trained, synthetic_dir=str(painted)) | options, *expected)


@pytest.mark.parametrize("names", [["train"], ["pretrain"]], ids="+".join)
def test_a_synthetic_set_made_from_patients_that_are_held_out_here(
    trained: Trained, painted: Path, names: list[str]
) -> None:
    """By the other rule, other patients validate: some of those whose label maps were painted."""
    sources = set(json.loads((painted / "labels.json").read_text())["source_patients"])
    cases = find_cases("acdc", trained.data, "validation", split="stratified", frames="labelled")
    shared = sorted(sources & {case["patient"] for case in cases})
    assert shared
    options = tiny(*trained, config=names[0], synthetic_dir=str(painted), split="stratified")
    refused(trained, names, options, str(painted), "not for training here", shared[0])


def test_evaluation_of_patients_whose_label_maps_were_painted(trained: Trained, painted: Path) -> None:
    sources = json.loads((painted / "labels.json").read_text())["source_patients"]
    (trained.folder / "models" / "split.json").unlink()  # else it would tell that they were trained on
    options = tiny(*trained, synthetic_dir=str(painted)) | {"section": "training"}
    refused(trained, ["train", "evaluate"], options, "not for training here", sources[0])


def test_a_network_of_synthetic_slices_only_is_pretrained_and_then_trained(
    trained: Trained, painted: Path, tmp_path: Path
) -> None:
    """The body comes from the context encoder, the head is new."""
    options = tiny(*trained, config="pretrain", synthetic_dir=str(painted), num_synthetic=6)
    start(["pretrain"], options | {"output_dir": str(tmp_path / "output"), "ckpt_dir": str(tmp_path / "body")})
    body = torch.load(tmp_path / "body" / "model.pt", weights_only=True)
    parser = read("cardiac_segmentation", "train")
    parser.update(tiny(*trained, pretrained_path=str(tmp_path / "body" / "model.pt")))
    state = parser.get_parsed_content("initialized").state_dict()
    same = [name for name in state if name in body and state[name].shape == body[name].shape]
    kernels = [name for name in same if name.endswith("conv.weight") and "final" not in name]
    assert len(kernels) > 10
    for name in kernels:
        torch.testing.assert_close(state[name], body[name], rtol=0, atol=0)


# Evaluation


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_evaluation_scores_the_volumes_that_inference_writes(trained: Trained, tmp_path: Path) -> None:
    """Dice on the grid of the files, computed here again from the files of inference alone."""
    start(["train", "evaluate"], tiny(*trained))
    metrics = metrics_of(trained.folder)
    assert (metrics["split_level"], metrics["section"]) == ("patient", "test")
    assert "leaky_split" not in metrics
    cases = find_cases("acdc", trained.data, "test", frames="labelled")
    assert metrics["n"] == {"volumes": 4, "patients": 2}
    for case in cases:
        (tmp_path / "inputs").mkdir(exist_ok=True)
        shutil.copy(case["image"], tmp_path / "inputs" / f"{case['case']}.nii.gz")
    files = segment(trained, input_dir=str(tmp_path / "inputs"))
    pairs = [(voxels(file), voxels(case["label"])) for file, case in zip(files, cases, strict=True)]
    for value, name in enumerate(NAMES, start=1):
        expected = np.mean([dice(pred == value, label == value) for pred, label in pairs])
        found = metrics["protocols"]["native_grid"]["classes"][name]["dice"]
        assert found == pytest.approx(expected, abs=1e-6), name
    with (trained.folder / "output" / "evaluation" / "metrics_cases.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == [case["case"] for case in cases]


def test_a_split_by_slice_is_never_the_default() -> None:
    for name in complete("cardiac_segmentation"):
        assert read("cardiac_segmentation", name).get("split_level", "patient") == "patient", name
    for name in overlays("cardiac_segmentation"):
        assert "split_level" not in keys("cardiac_segmentation", name), name


@pytest.mark.slow
def test_a_split_by_slice_is_tagged_wherever_it_leads_to(hearts: Path, tmp_path: Path) -> None:
    trained = Trained("cardiac_segmentation", hearts, tmp_path)
    options = tiny(*trained, split_level="slice")
    start(["train"], options)
    split = split_record(tmp_path)
    assert split["leaky_split"] is True
    assert set(split["training"]["patients"]) & set(split["validation"]["patients"])
    start(["train", "evaluate"], options)
    assert metrics_of(tmp_path)["leaky_split"] is True
    refused(trained, ["train", "evaluate"], tiny(*trained), "were trained on")


# Inference


def test_a_volume_comes_back_on_its_grid_with_what_the_network_says(trained: Trained, tmp_path: Path) -> None:
    """On an oblique grid: values of the data set in the 32 x 32 pixels in the middle, background around them."""
    image = voxels(trained.data / "inputs" / "images" / "heart_a.nii.gz")
    affine = np.eye(4)
    affine[:3, :3] = nibabel.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-2.5, 3.1, 7.0])
    affine[:3, 3] = (11.0, -7.5, 30.0)
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "p1.nii.gz")
    (file,) = segment(trained, input_dir=str(tmp_path / "p1.nii.gz"))
    answer: Any = nibabel.load(file)
    assert file.name == "p1_label.nii.gz"
    assert answer.shape == image.shape == SHAPE
    assert answer.get_data_dtype() == np.int16
    np.testing.assert_allclose(answer.affine, affine, atol=1e-5)

    low, high = np.percentile(image, [0.5, 99.5])
    scaled = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
    slices = torch.from_numpy(scaled[4:36, 6:38]).float().permute(2, 0, 1)[:, None].contiguous()
    with torch.no_grad():
        pred = pretrained_segmenter(trained.folder / "models" / "model.pt").predict(slices)
    labels = np.asarray(answer.dataobj)
    expected = np.zeros_like(labels)
    expected[4:36, 6:38] = pred[:, 0].permute(1, 2, 0).numpy()
    assert len(np.unique(expected)) > 1
    assert (labels == expected).mean() > 0.999  # grey levels rounded otherwise may tip a pixel
    assert (labels[:4] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_whole_hearts_get_their_own_values_in_every_orientation(modality: str, tmp_path: Path) -> None:
    """MM-WHS, axial slices of 3 mm pixels: the answer for a file that is turned is the same, turned."""
    data = write_mmwhs(tmp_path / "data", modality, 10)
    trained = Trained("cardiac_segmentation", data, tmp_path)
    start(["train"], tiny(*trained, dataset=f"mmwhs_{modality}", pixel_mm=3.0, split="stratified"))
    start(["train", "evaluate"], tiny(*trained, dataset=f"mmwhs_{modality}", pixel_mm=3.0, split="stratified"))
    assert len(metrics_of(tmp_path)["protocols"]["native_grid"]["classes"]) == 7

    source: Any = nibabel.load(data / f"{modality}_train" / f"{modality}_train_1002_image.nii.gz")
    axes = nibabel.io_orientation(np.eye(4))
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(source.affine), [[2, 1], [0, -1], [1, 1]])
    answers = []
    for name, image in (("plain", source), ("turned", source.as_reoriented(turn))):
        folder = tmp_path / name
        folder.mkdir()
        nibabel.save(image, folder / "heart.nii.gz")
        (file,) = segment(trained, input_dir=str(folder / "heart.nii.gz"), output_dir=str(folder / "out"))
        answer: Any = nibabel.load(file)
        assert answer.shape == image.shape
        np.testing.assert_allclose(answer.affine, image.affine, atol=1e-4)
        order = nibabel.orientations.ornt_transform(nibabel.io_orientation(answer.affine), axes)
        answers.append(np.asarray(answer.as_reoriented(order).dataobj))
    assert set(np.unique(answers[0])) <= {0, *WHOLE_HEART}
    assert len(np.unique(answers[0])) > 1
    assert (answers[0] == answers[1]).mean() > 0.999


# Resuming


def test_a_resumed_training_keeps_the_best_weights(trained: Trained) -> None:
    """No epoch to come reaches a Dice of 2; what is known to be best stays."""
    (path,) = (trained.folder / "output" / "checkpoints").glob("checkpoint_*.pt")
    state = torch.load(path, weights_only=True)
    best = state["best"]
    assert best["weights"].keys() == torch.load(trained.folder / "models" / "model.pt", weights_only=True).keys()
    best["best"] = 2.0
    torch.save(state, path)
    start(["train"], tiny(*trained, resume=True, max_epochs=2, decay_steps="$4"))
    found = torch.load(trained.folder / "models" / "model.pt", weights_only=True)
    for name, value in best["weights"].items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)
    last = torch.load(trained.folder / "output" / "checkpoints" / "checkpoint_000002.pt", weights_only=True)
    assert any(not torch.equal(last["network"][name], value) for name, value in found.items())


# Networks


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (("paper_acdc",), 31_112_260),  # the classic U-Net for four classes
        (("paper_acdc", "swin_unet", "paper_swin_unet"), None),
    ],
    ids=["unet", "swin_unet"],
)
def test_paper_overlays_build_networks_of_the_published_size(names: tuple[str, ...], count: int | None) -> None:
    """Swin-Unet has 27.17 M weights at 224 px (Cao et al.); other sides change its tables of positions only."""
    parser = read("cardiac_segmentation", "train", *names)
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == count if count else found == pytest.approx(27.17e6, rel=0.01)
