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
from monai.bundle import run
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from command_line import command_line

from bundles import BUNDLES, configs, tiny, tiny_inference
from common.data.splits import split_of
from common.engines.failure import is_deliberate, root_cause
from common.engines.preflight import lock_folder

Former = tuple[str, Path, Path]
Options = dict[str, Any]
ON_TOKENS = "dct_moe"  # the bundle whose settings are block, dropped, eta, ...


@pytest.fixture(scope="module", params=BUNDLES)
def good_run(request: pytest.FixtureRequest, picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Former:
    """(bundle, data, folder): what a good training has left in ``folder``."""
    folder = tmp_path_factory.mktemp("good")
    run(config_file=str(configs(request.param) / "train.json"), **tiny(request.param, picture_folder, folder))
    return request.param, picture_folder, folder


@pytest.fixture
def former(good_run: Former, tmp_path: Path) -> Former:
    """A copy of it for one test."""
    bundle, data, folder = good_run
    return bundle, data, shutil.copytree(folder, tmp_path / "former")


@pytest.fixture
def former_on_tokens(former: Former) -> Former:
    if former[0] != ON_TOKENS:
        pytest.skip("has other settings")
    return former


def snapshot(folder: Path) -> dict[str, bytes]:
    """Content of all files below ``folder`` but the lock; checkpoints also count where a new run moves them to."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    names = [str(path.relative_to(folder)).replace("checkpoints.previous", "checkpoints") for path in files]
    return {name: path.read_bytes() for name, path in zip(names, files, strict=True)}


def require_untouched(before: dict[str, bytes], folder: Path) -> None:
    after = snapshot(folder)
    assert before
    assert [name for name in before if after.get(name) != before[name]] == []
    assert not list(folder.rglob(".writing-*"))


def refused(former: Former, names: list[str], options: Options, *expected: str) -> None:
    """The run of these configs ends with a message that holds all of ``expected``; nothing has changed."""
    bundle, _, folder = former
    before = snapshot(folder)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(config_file=[str(configs(bundle) / f"{name}.json") for name in names], **options)
    cause = root_cause(caught.value)  # what the user sees last
    assert is_deliberate(cause), repr(cause)
    assert [part for part in expected if part not in str(cause)] == [], str(cause)
    require_untouched(before, folder)


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


def picture(shape: tuple[int, ...]) -> Callable[[Path], None]:
    pixels = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape).astype(np.uint8)
    return lambda path: Image.fromarray(pixels).save(path)


BAD_FILES: dict[str, tuple[str, Callable[[Path], Any], list[str]]] = {
    "truncated": (".nii.gz", truncated_volume, ["is truncated or not a NIfTI file", "Copy it again"]),
    "no gzip": (".nii.gz", lambda path: path.write_bytes(b"text"), ["is truncated or not a NIfTI file"]),
    "empty file": (".nii.gz", lambda path: path.write_bytes(b""), ["is empty (0 bytes)", "Copy or unpack it again"]),
    "NaN": (".nii.gz", volume((24, 24, 3), np.nan), ["1 of 1728 values that are NaN or infinite", "Export it again"]),
    "2-D": (".nii.gz", volume((24, 24)), ["is 2-D, shape (24, 24)", "a 3-D volume or a 4-D cine", "(x, y, 1)"]),
    "5-D": (".nii.gz", volume((24, 24, 2, 2, 2)), ["is 5-D", "Save it with that shape"]),
    "RGB": (".png", picture((24, 24, 3)), ["is an RGB image, one grey channel is expected", "Convert it to grey"]),
    "small": (".png", picture((10, 10)), ["10 x 10 pixels, smaller than the crop 16 x 16", "smaller image size"]),
}


@pytest.mark.parametrize(("case", "section"), [*((case, "training") for case in BAD_FILES), ("NaN", "validation")])
def test_one_bad_file_among_good_ones(former: Former, tmp_path: Path, case: str, section: str) -> None:
    bundle, data, folder = former
    suffix, write, expected = BAD_FILES[case]
    mixed = shutil.copytree(data, tmp_path / "data")
    names = (f"bad_{number}{suffix}" for number in itertools.count())
    path = mixed / next(name for name in names if split_of("image_folder", name) == section)
    write(path)
    refused(former, ["train"], tiny(bundle, mixed, folder), str(path), *expected)


def test_missing_data_folder(former: Former, tmp_path: Path) -> None:
    bundle, _, folder = former
    missing = tmp_path / "missing"
    expected = [f"The data folder {missing} does not exist", "Set dataset_dir to a folder that holds"]
    refused(former, ["train"], tiny(bundle, missing, folder), *expected)


def test_empty_data_folder(former: Former, tmp_path: Path) -> None:
    bundle, _, folder = former
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(former, ["train"], tiny(bundle, empty, folder), f"No case in {empty}: expected", "found an empty folder")


def test_unknown_dataset_name(former: Former) -> None:
    bundle, data, folder = former
    expected = ["Unknown dataset 'image_foldr'", "Did you mean image_folder?", "acdc"]
    refused(former, ["train"], tiny(bundle, data, folder, dataset="image_foldr"), *expected)


def test_all_images_smaller_than_the_crop(former: Former) -> None:
    bundle, data, folder = former
    expected = [str(data), "24 x 24 pixels, smaller than the crop 32 x 32", "allow padding with pad"]
    refused(former, ["train"], tiny(bundle, data, folder, image_size=[32, 32]), *expected)


def test_non_finite_loss(former: Former) -> None:
    bundle, data, folder = former
    options = tiny(bundle, data, folder, learning_rate=1e30, clip_norm=float("inf"), epoch_length=8)
    expected = ["The loss became nan in iteration", "picture_", "lower --learning_rate"]
    refused(former, ["train"], options, *expected)


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
def test_impossible_settings(former_on_tokens: Former, names: list[str], options: Options, expected: list[str]) -> None:
    bundle, data, folder = former_on_tokens
    base = (tiny if names == ["train"] else tiny_inference)(bundle, data, folder)
    refused(former_on_tokens, names, base | options, *expected)


OTHER_NETWORKS = [
    ({"block": 2}, ["block: checkpoint 4, this network 2"]),
    ({"dropped": 3}, ["dropped: checkpoint 0, this network 3"]),
    ({"image_size": [24, 16]}, ["height: checkpoint 16, this network 24"]),
    ({"top_k": 3}, ["top_k: checkpoint 2, this network 3"]),
]
OTHER_ETA = ({"eta_percentile": 80.0}, ["eta: checkpoint "])


@pytest.mark.parametrize(("options", "expected"), [*OTHER_NETWORKS, OTHER_ETA], ids=str)
def test_resuming_another_network(former_on_tokens: Former, options: Options, expected: list[str]) -> None:
    bundle, data, folder = former_on_tokens
    options = tiny(bundle, data, folder, resume=True, max_epochs=9) | options
    refused(former_on_tokens, ["train"], options, str(folder / "output" / "checkpoints"), "new `output_dir`", *expected)


@pytest.mark.parametrize(("options", "expected"), [*OTHER_NETWORKS, OTHER_ETA], ids=str)
def test_evaluating_another_network(former_on_tokens: Former, options: Options, expected: list[str]) -> None:
    bundle, data, folder = former_on_tokens
    options = tiny(bundle, data, folder) | options
    refused(former_on_tokens, ["train", "evaluate"], options, str(folder / "models" / "model.pt"), *expected)


@pytest.mark.parametrize(("options", "expected"), OTHER_NETWORKS, ids=str)
def test_sampling_from_another_network(former_on_tokens: Former, options: Options, expected: list[str]) -> None:
    """Also an image size that the network was not built for."""
    bundle, data, folder = former_on_tokens
    options = tiny_inference(bundle, data, folder) | options
    expected = [*expected, str(folder / "models" / "model.pt"), "Build the network with the checkpoint's values"]
    refused(former_on_tokens, ["inference"], options, *expected)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path, former: None, "There are no weights at"),
        (lambda path, former: path.write_bytes((former / "models/model.pt").read_bytes()[:5000]), "not a readable"),
        (lambda path, former: torch.save({"weight": torch.ones(1)}, path), "was not saved from"),
        (lambda path, former: torch.save(torch.nn.Linear(1, 1), path), "not a readable checkpoint of plain tensors"),
    ],
    ids=["missing", "truncated", "another model", "pickled objects"],
)
def test_weights_that_are_none(
    former: Former, tmp_path: Path, write: Callable[[Path, Path], Any], expected: str
) -> None:
    bundle, data, folder = former
    path = tmp_path / "weights.pt"
    write(path, folder)
    refused(former, ["inference"], tiny_inference(bundle, data, folder, load_path=str(path)), str(path), expected)


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
def test_the_message_is_the_last_line_of_the_output(former: Former, more: Options, expected: str) -> None:
    bundle, data, folder = former
    before = snapshot(folder)
    result = command_line(bundle, ["train"], tiny(bundle, data, folder, **more))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert re.match(expected, last), result.stderr
    require_untouched(before, folder)


@pytest.mark.slow
def test_output_folder_in_use_by_another_run(former: Former) -> None:
    bundle, data, folder = former
    lock_folder(folder / "output", "output_dir")  # this process is the other run
    before = snapshot(folder)
    result = command_line(bundle, ["train"], tiny(bundle, data, folder))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: the folder {folder / 'output'} is in use by another run (process ")
    assert last.endswith("give this run a folder of its own with --output_dir.")
    require_untouched(before, folder)
