"""Bad input ends a run with one message that says what, where and what to do; files that were there stay."""

import itertools
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from command_line import command_line
from refusal import refused, require_untouched, snapshot

from bundles import FACTS, Options, Trained, of_kind, tiny, tiny_evaluation, tiny_inference
from common.data.splits import split_of
from common.engines.preflight import lock_folder

on_pictures = pytest.mark.parametrize("trained", of_kind("synthesis"), indirect=True)
on_tokens = pytest.mark.parametrize("trained", ["dct_moe"], indirect=True)  # its settings are block, dropped, eta, ...


def volume(shape: tuple[int, ...], value: float = 0.0) -> Callable[[Path], None]:
    """Writes a ramp of this shape whose first voxel is ``value``."""

    def write(path: Path) -> None:
        voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        voxels.flat[0] = value
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)

    return write


def truncated_volume(path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(24, 24, 8)).astype(np.float32)  # noise does not compress
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_VOLUMES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "truncated": (truncated_volume, ["is truncated or not a NIfTI file", "Copy it again"]),
    "no gzip": (lambda path: path.write_bytes(b"text"), ["is truncated or not a NIfTI file"]),
    "empty file": (lambda path: path.write_bytes(b""), ["is empty (0 bytes)", "Copy or unpack it again"]),
    "NaN": (volume((24, 24, 3), np.nan), ["1 of 1728 values that are NaN or infinite", "Export it again"]),
    "2-D": (volume((24, 24)), ["is 2-D, shape (24, 24)", "a 3-D volume or a 4-D cine", "(x, y, 1)"]),
    "5-D": (volume((24, 24, 2, 2, 2)), ["is 5-D", "Save it with that shape"]),
}


@pytest.mark.parametrize(("case", "section"), [*((case, "training") for case in BAD_VOLUMES), ("NaN", "validation")])
def test_one_bad_volume_among_good_images(trained: Trained, tmp_path: Path, case: str, section: str) -> None:
    write, expected = BAD_VOLUMES[case]
    mixed = shutil.copytree(trained.data, tmp_path / "data")
    path = FACTS[trained.bundle].volume_of(mixed, section)
    write(path)
    refused(trained, ["train"], tiny(trained.bundle, mixed, trained.folder), str(path), *expected)


def picture(shape: tuple[int, ...]) -> Callable[[Path], None]:
    pixels = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape).astype(np.uint8)
    return lambda path: Image.fromarray(pixels).save(path)


@on_pictures
@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (picture((24, 24, 3)), ["is an RGB image, one grey channel is expected", "Convert it to grey"]),
        (picture((10, 10)), ["10 x 10 pixels, smaller than the crop 16 x 16", "smaller image size"]),
    ],
    ids=["RGB", "small"],
)
def test_one_bad_picture_among_good_ones(
    trained: Trained, tmp_path: Path, write: Callable[[Path], Any], expected: list[str]
) -> None:
    mixed = shutil.copytree(trained.data, tmp_path / "data")
    names = (f"bad_{number}.png" for number in itertools.count())
    path = mixed / next(name for name in names if split_of("image_folder", name) == "training")
    write(path)
    refused(trained, ["train"], tiny(trained.bundle, mixed, trained.folder), str(path), *expected)


def test_missing_data_folder(trained: Trained, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    expected = [f"The data folder {missing} does not exist", "Set dataset_dir to a folder that holds"]
    refused(trained, ["train"], tiny(*trained, dataset_dir=str(missing)), *expected)


def test_empty_data_folder(trained: Trained, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    expected = [f"No case in {empty}: expected", "found an empty folder"]
    refused(trained, ["train"], tiny(*trained, dataset_dir=str(empty)), *expected)


def test_unknown_dataset_name(trained: Trained) -> None:
    expected = ["Unknown dataset 'image_foldr'", "Did you mean image_folder", "acdc"]
    options = tiny(trained.bundle, trained.data, trained.folder, dataset="image_foldr")
    refused(trained, ["train"], options, *expected)


@on_pictures
def test_all_images_smaller_than_the_crop(trained: Trained) -> None:
    expected = [str(trained.data), "24 x 24 pixels, smaller than the crop 32 x 32", "allow padding with pad"]
    options = tiny(trained.bundle, trained.data, trained.folder, image_size=[32, 32])
    refused(trained, ["train"], options, *expected)


def test_non_finite_loss(trained: Trained) -> None:
    options = tiny(
        trained.bundle, trained.data, trained.folder, learning_rate=1e30, clip_norm=float("inf"), epoch_length=8
    )
    expected = ["The loss became ", " in iteration ", "Slices of that batch: ", "lower --learning_rate"]
    refused(trained, ["train"], options, *expected)


@on_tokens
@pytest.mark.parametrize("names", [["train"], ["inference"]], ids="+".join)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dropped": 16}, ["cannot drop 16 of the 4x4 coefficients", "choose `dropped` in 0..15"]),
        ({"dropped": -1}, ["cannot drop -1 of the 4x4 coefficients", "choose `dropped` in 0..15"]),
        ({"num_experts": 4, "top_k": 5}, ["top_k=5 must lie in 1..num_experts=4"]),
        ({"network_size": "XL"}, ["size 'XL' is unknown", "tiny"]),
        ({"sampler": "dmp_solver_fast"}, ["sampler 'dmp_solver_fast' is unknown", "dpm_solver_fast"]),
    ],
    ids=str,
)
def test_impossible_settings(trained: Trained, names: list[str], options: Options, expected: list[str]) -> None:
    base = (tiny if names == ["train"] else tiny_inference)(*trained)
    refused(trained, names, base | options, *expected)


OTHER_NETWORKS = {
    "dct_moe": [
        ({"block": 2}, "block: checkpoint 4, this network 2"),
        ({"dropped": 3}, "dropped: checkpoint 0, this network 3"),
        ({"image_size": [24, 16]}, "height: checkpoint 16, this network 24"),
        ({"top_k": 3}, "top_k: checkpoint 2, this network 3"),
    ],
    "dfbk": [
        ({"image_size": [48, 32]}, "image_size: checkpoint 32,48, this network 48,32"),
        ({"target": "t2w"}, "target: checkpoint t2f, this network t2w"),
        ({"pixel_mm": 4.5}, "pixel_mm: checkpoint 0.0, this network 4.5"),
        ({"kappa": 1.0}, "kappa: checkpoint 2.0, this network 1.0"),
        ({"balance": "none"}, "balance: checkpoint dfb, this network none"),
    ],
    "med_dit": [
        ({"conditioning": "global"}, "conditioning: checkpoint spatial, this network global"),
        ({"image_encoder": "none"}, "image_encoder: checkpoint small_cnn, this network none"),
        ({"depth": 2}, "depth: checkpoint 1, this network 2"),
        ({"num_train_steps": 500}, "num_train_steps: checkpoint 1000, this network 500"),
        ({"mr_lower": 1.0}, "mr_lower: checkpoint 0.5, this network 1.0"),
    ],
    "fqcdm": [
        ({"image_size": [48, 32]}, "width: checkpoint 32, this network 48"),
        ({"spade_channels": 8}, "spade_channels: checkpoint 4, this network 8"),
        ({"num_train_steps": 6}, "num_train_steps: checkpoint 5, this network 6"),
        ({"pixel_mm": 4.5}, "spacing_mm: checkpoint 0.0, this network 4.5"),
    ],
    "cardiac_segmentation": [
        ({"image_size": [48, 32]}, "image_size: checkpoint 32,32, this network 48,32"),
        ({"features": [4, 4, 4, 4, 4, 8]}, "features: checkpoint 4,4,4,4,4,4, this network 4,4,4,4,4,8"),
        ({"architecture": "swin_unet"}, "architecture: checkpoint unet, this network swin_unet"),
        ({"pixel_mm": 4.5}, "spacing_mm: checkpoint 0.0, this network 4.5"),
    ],
}
FROM_WEIGHTS = {"inference": {"fqcdm", "cardiac_segmentation"}, "evaluate": {"fqcdm"}}  # which build it as they say
OTHER_ETA = ({"eta_percentile": 80.0}, "eta: checkpoint ")  # measured on the training data
ANOTHER_NETWORK = [
    pytest.param(bundle, *change, id=f"{bundle}-{change[0]}")
    for bundle in OTHER_NETWORKS
    for change in OTHER_NETWORKS[bundle]
]
OR_ANOTHER_ETA = [*ANOTHER_NETWORK, pytest.param("dct_moe", *OTHER_ETA, id=f"dct_moe-{OTHER_ETA[0]}")]


def given_by_options(config: str, changes: list[Any]) -> list[Any]:
    """Those of bundles in which this config builds the network by its options."""
    return [change for change in changes if change.values[0] not in FROM_WEIGHTS[config]]


@pytest.mark.parametrize(("trained", "options", "expected"), OR_ANOTHER_ETA, indirect=["trained"])
def test_resuming_another_network(trained: Trained, options: Options, expected: str) -> None:
    options = tiny(*trained, resume=True, max_epochs=9) | options
    refused(trained, ["train"], options, str(trained.folder / "output" / "checkpoints"), "new `output_dir`", expected)


@pytest.mark.parametrize(
    ("trained", "options", "expected"), given_by_options("evaluate", OR_ANOTHER_ETA), indirect=["trained"]
)
def test_evaluating_another_network(trained: Trained, options: Options, expected: str) -> None:
    refused(
        trained,
        ["train", "evaluate"],
        tiny_evaluation(*trained) | options,
        str(trained.folder / "models/model.pt"),
        expected,
    )


@pytest.mark.parametrize(
    ("trained", "options", "expected"), given_by_options("inference", ANOTHER_NETWORK), indirect=["trained"]
)
def test_inference_with_another_network(trained: Trained, options: Options, expected: str) -> None:
    """Also an image size that the network was not built for."""
    weights, remedy = str(trained.folder / "models/model.pt"), "Build the network with the checkpoint's values"
    refused(trained, ["inference"], tiny_inference(*trained) | options, expected, weights, remedy)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path, former: None, "There "),
        (lambda path, former: path.write_bytes((former / "models/model.pt").read_bytes()[:5000]), "not a readable"),
        (
            lambda path, former: torch.save({"weight": torch.ones(1)}, path),
            "the checkpoint was made for another network",
        ),
        (lambda path, former: torch.save(torch.nn.Linear(1, 1), path), "not a readable checkpoint of plain tensors"),
    ],
    ids=["missing", "truncated", "another model", "pickled objects"],
)
def test_weights_that_are_none(
    trained: Trained, tmp_path: Path, write: Callable[[Path, Path], Any], expected: str
) -> None:
    path = tmp_path / "weights.pt"
    write(path, trained.folder)
    refused(trained, ["inference"], tiny_inference(*trained, load_path=str(path)), str(path), expected)


# What a process prints. Slow: each start costs seconds of imports.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"max_epoch": 3}, "error: unknown option --max_epoch: .* did you mean --max_epochs"),
        ({"train#trainr#max_epochs": 3}, "KeyError: .*trainr"),  # by MONAI, before any code of ours runs
        ({"train#trainer#max_epoch": 3}, "error: TypeError: .*'max_epoch'"),
        ({"dataset_dir": "missing"}, "error: The data folder missing does not exist"),
    ],
    ids=str,
)
def test_the_message_is_the_last_line_of_the_output(trained: Trained, more: Options, expected: str) -> None:
    before = snapshot(trained.folder)
    result = command_line(trained.bundle, ["train"], tiny(*trained, **more))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert re.match(expected, last), result.stderr
    require_untouched(before, trained.folder)


@pytest.mark.slow
def test_output_folder_in_use_by_another_run(trained: Trained) -> None:
    output = trained.folder / "output"
    lock_folder(output, "output_dir")  # this process is the other run
    before = snapshot(trained.folder)
    result = command_line(trained.bundle, ["train"], tiny(*trained))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: the folder {output} is in use by another run (process ")
    assert last.endswith("give this run a folder of its own with --output_dir.")
    require_untouched(before, trained.folder)
