"""Bad label maps, sets that are too small, weights that are not there: under the rules of test_bad_input."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import run

sys.path.insert(0, str(Path(__file__).parent))
from refusal import refused
from small_hearts import relabelled, write_mmwhs
from spoiling import blank, change, shifted

from bundles import Options, Trained, configs, read, tiny, tiny_evaluation, tiny_inference

PATIENT = "patient004"  # of the training section


@pytest.fixture(params=["fqcdm", "cardiac_segmentation"])
def trained(
    request: pytest.FixtureRequest, encoded_hearts: Path, training_of: Callable[[str], Path], tmp_path: Path
) -> Trained:
    """What a training has left, and a copy of the data and of the former stage's weights that may be spoiled."""
    data = shutil.copytree(encoded_hearts, tmp_path / "data")
    return Trained(request.param, data, shutil.copytree(training_of(request.param), tmp_path / "trained"))


on_fqcdm = pytest.mark.parametrize("trained", ["fqcdm"], indirect=True)
on_segmentation = pytest.mark.parametrize("trained", ["cardiac_segmentation"], indirect=True)


def label_of(data: Path) -> Path:
    return data / PATIENT / f"{PATIENT}_frame01_gt.nii.gz"


# Label maps


def stray(voxels: np.ndarray) -> None:
    voxels[10:12, 20, 2] = 137


def coarser(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(np.asarray(image.dataobj)[::2, ::2], image.affine @ np.diag([2.0, 2.0, 1.0, 1.0]))


def interpolated(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    return nibabel.Nifti1Image((voxels + np.roll(voxels, 1, 0)) / 2, image.affine)


SPOILED = [
    (relabelled(stray), ["holds label value(s)", "137 (2 voxels)", "Known are 0, 1, 2, 3"]),
    (interpolated, ["holds label value(s)", "0.5 (", "nearest neighbor"]),
    (blank, ["is empty: every voxel is background"]),
    (shifted, ["do not lie on one grid", "origins 7 mm apart"]),
    (coarser, ["do not lie on one grid", "shapes (40, 44, 5) and (20, 22, 5)"]),
]
NAMES = ["unknown value", "interpolated", "empty", "shifted", "coarser"]


@pytest.mark.parametrize(("edit", "expected"), SPOILED, ids=NAMES)
def test_one_bad_label_map_among_good_ones(trained: Trained, edit: Callable, expected: list[str]) -> None:
    change(label_of(trained.data), edit)
    refused(trained, ["train"], tiny(*trained), label_of(trained.data).name, *expected)


@pytest.mark.slow
@pytest.mark.parametrize(("edit", "expected"), SPOILED, ids=NAMES)
@pytest.mark.parametrize(
    ("trained", "config"), [("fqcdm", "train_autoencoder"), ("cardiac_segmentation", "pretrain")], indirect=["trained"]
)
def test_one_bad_label_map_in_a_stage_before(
    trained: Trained, config: str, edit: Callable, expected: list[str]
) -> None:
    change(label_of(trained.data), edit)
    refused(trained, [config], tiny(*trained, config=config), label_of(trained.data).name, *expected)


def test_a_label_map_without_image(trained: Trained) -> None:
    (trained.data / PATIENT / f"{PATIENT}_frame01.nii.gz").unlink()
    refused(trained, ["train"], tiny(*trained), PATIENT, "frame01", "image")


@on_fqcdm
@pytest.mark.parametrize(("edit", "expected"), [SPOILED[0], SPOILED[2]], ids=[NAMES[0], NAMES[2]])
def test_one_bad_label_map_among_those_to_paint(trained: Trained, edit: Callable, expected: list[str]) -> None:
    change(trained.data / "inputs" / "labels" / "heart_b.nii.gz", edit)
    refused(trained, ["inference"], tiny_inference(*trained), "heart_b.nii.gz", *expected)


@on_fqcdm
def test_a_label_map_of_which_nothing_is_large_enough_to_paint(trained: Trained) -> None:
    options = tiny_inference(*trained, min_label_pixels=10_000)
    refused(trained, ["inference"], options, "heart_a", "10000", "nothing to paint")


# MM-WHS


@pytest.mark.parametrize(("bundle", "config"), [("fqcdm", "train_autoencoder"), ("cardiac_segmentation", "train")])
def test_421_is_the_left_atrium_and_any_other_stray_value_an_error(bundle: str, config: str, tmp_path: Path) -> None:
    data = write_mmwhs(tmp_path / "data", "mr", 8)
    options = tiny(bundle, data, tmp_path, config=config, dataset="mmwhs_mr", pixel_mm=3.0, split="stratified")
    first = data / "mr_train" / "mr_train_1001_label.nii.gz"
    assert {420, 421} & set(np.unique(nibabel.load(first).get_fdata())) == {421}
    parser = read(bundle, config)
    parser.update(options)
    slices = parser.get_parsed_content("train#slices")
    atrium = parser.get_parsed_content("label_values")[420]
    assert slices.data[0]["case"] == "mr_train_1001"
    of_first = [number for number, (item, *_) in enumerate(slices.origin) if item == 0]
    assert any((slices[number]["label"] == atrium).any() for number in of_first)

    change(first, relabelled(lambda voxels: voxels.__setitem__((slice(10, 13), 20, 1), 422)))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "notes.txt").write_text("there before")
    refused(Trained(bundle, data, tmp_path), [config], options, first.name, "422 (3 voxels)", "Known are 0, 500")


# What is not there


@on_fqcdm
@pytest.mark.parametrize(
    ("names", "options", "expected"),
    [
        (
            ["train"],
            {"autoencoder_path": "nowhere/model.pt"},
            ["no trained autoencoder at nowhere", "train_autoencoder"],
        ),
        (["train", "evaluate"], {"segmenter_path": "nowhere/model.pt"}, ["no trained segmentation network at nowhere"]),
        (
            ["train", "evaluate"],
            {"perceptual": True, "perceptual_weights": "nowhere/vgg16.pth"},
            ["no weights of", "nowhere/vgg16.pth", "allow_download"],
        ),
        (
            ["train", "evaluate"],
            {"fid": True, "inception_path": "nowhere/inception.pth"},
            ["no weights of", "nowhere/inception.pth", "allow_download"],
        ),
        (["train", "evaluate"], {"load_path": "nowhere/model.pt"}, ["no weights of a label-guided synthesizer"]),
        (["train", "synthesize"], {"load_path": "nowhere/model.pt"}, ["no weights of a label-guided synthesizer"]),
    ],
    ids=["autoencoder", "segmenter", "LPIPS", "FID", "synthesizer", "synthesizer of a set"],
)
def test_weights_that_are_not_there(trained: Trained, names: list[str], options: Options, expected: list[str]) -> None:
    base = tiny_evaluation(*trained) if "evaluate" in names else tiny(*trained)
    if "synthesize" in names:
        base["synthetic_dir"] = str(trained.folder / "set")
    refused(trained, names, base | options, *expected)
    assert not (trained.folder / "output" / "evaluation").exists()


@on_fqcdm
def test_perceptual_loss_without_its_weights(trained: Trained, network: list) -> None:
    """No download without consent; ``paper_acdc.json`` asks for the loss."""
    options = tiny(*trained, config="train_autoencoder")
    expected = ["no weights of", "allow_download"]
    refused(trained, ["train_autoencoder"], options | {"perceptual_weight": 1.0}, *expected)
    refused(trained, ["train_autoencoder", "paper_acdc"], options | {"num_workers": 0}, *expected)
    assert network == []


# Schedules


@pytest.mark.slow
def test_a_schedule_that_does_not_end_in_noise_serves_reconstruction_only(encoded_hearts: Path, tmp_path: Path) -> None:
    trained = Trained("fqcdm", encoded_hearts, tmp_path)
    weak = {"beta_end": 0.02}
    run(config_file=str(configs("fqcdm") / "train.json"), **tiny(*trained) | weak)
    evaluation = tiny_evaluation(*trained) | weak
    expected = ["of the signal's variance is left", "larger betas"]
    refused(trained, ["train", "evaluate"], evaluation | {"protocols": ["S"]}, *expected)
    refused(trained, ["inference"], tiny_inference(*trained), *expected)
    run(
        config_file=[str(configs("fqcdm") / f"{name}.json") for name in ("train", "evaluate")],
        **evaluation | {"protocols": ["R"]},
    )
    assert [path.name for path in (tmp_path / "output" / "evaluation").iterdir()] == ["reconstruction"]


# Impossible settings


@on_fqcdm
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_size": [34, 32]}, ["34", "multiple"]),
        ({"autoencoder_kind": "pixels"}, ["kind='pixels' is unknown; choose one of quantized, pixel"]),
        ({"sampler": "ddmp"}, ["sampler='ddmp' is unknown; choose one of ddpm, ddim"]),
        ({"split_level": "slices"}, ["Unknown split_level 'slices'; choose one of patient, slice"]),
        ({"split": "random"}, ["Unknown split 'random'; choose one of hash, stratified"]),
    ],
    ids=str,
)
def test_impossible_settings_of_the_painter(trained: Trained, options: Options, expected: list[str]) -> None:
    refused(trained, ["train"], tiny(*trained) | options, *expected)


@on_segmentation
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_size": [40, 40]}, ["image_size=40x40 must be multiples of 16"]),
        ({"architecture": "u_net"}, ["architecture='u_net' is unknown; choose one of unet, swin_unet"]),
        ({"features": [4, 4, 4]}, ["features=[4, 4, 4] must be six"]),
        ({"pretrained_path": "nowhere/model.pt"}, ["nowhere/model.pt", "pretrain.json"]),
    ],
    ids=str,
)
def test_impossible_settings_of_the_segmenter(trained: Trained, options: Options, expected: list[str]) -> None:
    refused(trained, ["train"], tiny(*trained) | options, *expected)
