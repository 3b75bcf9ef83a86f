"""Bad input of a translator, under the rules of test_bad_input: pairs that are none, texts of other tasks."""

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

sys.path.insert(0, str(Path(__file__).parent))
from refusal import refused
from spoiling import blank, change, like_ct, shifted

from bundles import FACTS, MR_TO_CT, Options, Trained, configs, tiny, tiny_inference
from common.data.text_embeddings import CachedText, CacheHeader, table_tokens, write_text_cache


@pytest.fixture
def trained(brain_scans: Path, training_of: Callable[[str], Path], tmp_path: Path) -> Trained:
    """What a training of DFBK has left."""
    return Trained("dfbk", brain_scans, shutil.copytree(training_of("dfbk"), tmp_path / "trained"))


@pytest.fixture
def data(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the data that may be spoiled."""
    return shutil.copytree(trained.data, tmp_path / "data")


def coarser(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(image.dataobj[::2, ::2], image.affine @ np.diag([2.0, 2.0, 1.0, 1.0]))


def turned(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The same place in space, but another orientation of the file."""
    return image.as_reoriented(nibabel.io_orientation(np.diag([-1.0, 1.0, 1.0, 1.0])))


def standardized(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    return nibabel.Nifti1Image((voxels - voxels[voxels > 0].mean()) / voxels.std(), image.affine)


def cine(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(np.stack([image.dataobj] * 3, axis=-1), image.affine)


GRID = ["do not lie on one grid", "Register them if needed and resample one onto the other"]
SPOILED = [
    ("t2f", shifted, [*GRID, "-t1n.nii.gz (source)", "-t2f.nii.gz (target)", "origins 7 mm apart"]),
    ("t2f", coarser, [*GRID, "shapes (48, 48, 8) and (24, 24, 8)", "spacing 4.667"]),
    ("t1n", turned, [*GRID, "orientation"]),
    ("t1n", blank, ["-t1n.nii.gz is all zero, it has no foreground. Remove the case or export it again"]),
    ("t2f", blank, ["-t2f.nii.gz is constant (0 everywhere), so it has no contrast to scale"]),
    ("t1n", like_ct, ["-t1n.nii.gz is not skull-stripped MR", "looks like CT in Hounsfield units"]),
    ("t2f", like_ct, ["-t2f.nii.gz (target) looks like CT in Hounsfield units", "the modality of 'target' is 't2f'"]),
    ("t2f", standardized, ["-t2f.nii.gz holds ", "negative values", "Give the image as the scanner wrote it"]),
    ("t1n", cine, ["-t1n.nii.gz has 3 channels; a foreground is found in one"]),
]


@pytest.mark.parametrize(("modality", "edit", "expected"), SPOILED, ids=lambda value: getattr(value, "__name__", None))
def test_one_bad_pair_among_good_ones(
    trained: Trained, data: Path, modality: str, edit: Callable, expected: list[str]
) -> None:
    path = FACTS["dfbk"].volume_of(data, "training")
    path = path.with_name(path.name.replace("t2f", modality))
    change(path, edit)
    refused(trained, ["train"], tiny("dfbk", data, trained.folder), path.name.rsplit("-", 1)[0], *expected)


@pytest.mark.parametrize(("modality", "edit"), [("t2f", shifted), ("t1n", blank)])
def test_one_bad_pair_in_an_evaluation(trained: Trained, data: Path, modality: str, edit: Callable) -> None:
    path = FACTS["dfbk"].volume_of(data, "test")
    path = path.with_name(path.name.replace("t2f", modality))
    change(path, edit)
    expected = next(parts for name, other, parts in SPOILED if (name, other) == (modality, edit))
    refused(trained, ["train", "evaluate"], tiny("dfbk", data, trained.folder), str(path), *expected)


@pytest.mark.parametrize("edit", [blank, like_ct, standardized, cine], ids=lambda edit: edit.__name__)
def test_one_bad_volume_among_those_to_translate(trained: Trained, data: Path, edit: Callable) -> None:
    path = data / "inputs" / "head_a.nii.gz"
    change(path, edit)
    wanted = "t2f" if edit is like_ct else None  # the mask of a source to train with is made by another rule
    expected = next(parts for name, other, parts in SPOILED if other is edit and wanted in (None, name))
    text = expected[0].replace("-t1n.nii.gz", "head_a.nii.gz").replace("-t2f.nii.gz", "head_a.nii.gz")
    refused(trained, ["inference"], tiny_inference("dfbk", data, trained.folder), text.replace("(target)", "(image)"))


def test_missing_modality(trained: Trained, data: Path) -> None:
    path = FACTS["dfbk"].volume_of(data, "training")
    path.unlink()
    expected = [
        f"1 of 5 cases have no t2f ({path.parent.name})",
        "Add the files",
        f"{path.parent.name} has seg, t1c, t1n",
    ]
    refused(trained, ["train"], tiny("dfbk", data, trained.folder), *expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target": "flair"}, ["brats has no image called 'flair'", "t1n, t1c, t2w, t2f"]),
        ({"source": "t1"}, ["brats has no image called 't1'. Did you mean t1n?"]),
        ({"target": "t1n", "guidance": "none"}, ["source and target are both 't1n'; name two modalities"]),
        ({"held_out": ["BraTS-GLI-00099"]}, ["held_out names BraTS-GLI-00099, which are not among the patients"]),
    ],
    ids=str,
)
def test_impossible_task(trained: Trained, options: Options, expected: list[str]) -> None:
    refused(trained, ["train"], tiny(*trained) | options, *expected)


def test_patients_of_the_training_are_not_evaluated(trained: Trained) -> None:
    """Neither by asking for their section, nor by another rule who trains."""
    seen = json.loads((trained.folder / "output" / "split.json").read_text())["training"]["patients"]
    for options in ({"section": "training"}, {"held_out": [seen[0]]}):
        expected = ["to be evaluated were trained on", seen[0], str(trained.folder / "output" / "split.json")]
        refused(trained, ["train", "evaluate"], tiny(*trained) | options, *expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"held_out": ["BraTS-GLI-00003"]}, "held_out: [] then, ['BraTS-GLI-00003'] now"),
        ({"slices_per_case": 3}, "slices_per_case: 4 then, 3 now"),
        ({"foreground": "auto"}, "foreground: positive then, auto now"),
    ],
    ids=str,
)
def test_resuming_on_other_data(trained: Trained, options: Options, expected: str) -> None:
    options = tiny(*trained, resume=True, max_epochs=9) | options
    refused(trained, ["train"], options, str(trained.folder / "output" / "checkpoints"), expected, "new `output_dir`")


def text_cache(path: Path, prompt: str, provenance: Any = "biomedclip") -> Path:
    entry = CachedText(table_tokens("any", 5), torch.arange(5), prompt)
    write_text_cache(path, {"glioma_t1_flair": entry}, CacheHeader("model", "0", "0", "0", provenance))
    return path


def test_descriptions_that_are_not_those_of_the_task(trained: Trained, tmp_path: Path) -> None:
    """No cache, that of a prompt since edited, that of the text-free table, no prompt at all."""
    command = "python scripts/make_text_embeddings.py"
    options = tiny(*trained, text_source="biomedclip")
    missing = trained.folder / "models" / "text" / "embeddings.pt"
    refused(trained, ["train"], options, f"no text embeddings at {missing}", command)
    for prompt, provenance, expected in (
        ("an older text", "biomedclip", "is not the one that"),
        ("any text", "table", "holds tokens of provenance 'table', not 'biomedclip'"),
    ):
        cache = text_cache(tmp_path / "cache.pt", prompt, provenance)
        refused(trained, ["train"], options | {"text_cache": str(cache)}, str(cache), expected, command)
    cache.write_bytes(b"no cache")
    refused(trained, ["train"], options | {"text_cache": str(cache)}, f"{cache} is not a whole file of text embeddings")
    cache = text_cache(tmp_path / "cache.pt", "any text")
    options |= {"text_cache": str(cache), "target": "t1c"}
    refused(trained, ["train"], options, "has no prompt for task 'glioma_t1_t1c'", command)


def test_the_text_free_table_is_refused_for_real_data(trained: Trained) -> None:
    options = tiny(*trained, allow_text_table=False)
    refused(trained, ["train"], options, "the text-free table was asked for, but 'brats' is not an embedded phantom")


def test_resuming_with_another_description(trained: Trained, tmp_path: Path) -> None:
    """The prompt in the bundle, through a cache, in place of the table of the training."""
    prompt = json.loads((configs("dfbk") / "prompts.json").read_text())["glioma_t1_flair"]
    cache = text_cache(tmp_path / "cache.pt", prompt)
    options = tiny(*trained, resume=True, max_epochs=9, text_source="biomedclip", text_cache=str(cache))
    expected = "provenance of the description: checkpoint 'table', this network 'biomedclip'"
    refused(trained, ["train"], options, expected, "new `output_dir`")


@pytest.mark.parametrize("names", [["train"], ["inference"]], ids="+".join)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"window_size": 7}, ["Swin layer at size 16x24 is impossible with window_size=7; allowed are"]),
        ({"channel_mult": [1, 1, 2], "attention_resolutions": [16], "window_size": 6}, ["size 16x24 is impossible"]),
        ({"attention_resolutions": [12]}, ["attention_resolutions has 12, but the levels' shorter sides are 32, 16"]),
        ({"image_size": [33, 48]}, ["33x48 does not halve"]),
        ({"channels": 40}, ["channels=40 do not divide into 32 groups"]),
        ({"swin_channels": 40}, ["do not divide"]),
        ({"balance": "haar"}, ["balance='haar' is unknown; choose one of dfb, norm_attn, none"]),
        ({"kappa": -1.0}, ["kappa > 0"]),
        ({"num_diffusion_steps": 1}, ["num_steps >= 2"]),
        ({"foreground": "skull"}, ["rule='skull' is unknown. Known are auto, positive, head"]),
        ({"fit": "stretch"}, ["rule='stretch' is unknown. Known are crop, resize"]),
    ],
    ids=str,
)
def test_impossible_settings(trained: Trained, names: list[str], options: Options, expected: list[str]) -> None:
    base = (tiny if names == ["train"] else tiny_inference)(*trained)
    refused(trained, names, base | options, *expected)


def test_a_mask_for_every_volume(trained: Trained, data: Path) -> None:
    masks = data / "some_masks"
    masks.mkdir()
    shutil.copy(data / "inputs" / "head_a.nii.gz", masks)
    options = tiny_inference("dfbk", data, trained.folder, mask_dir=str(masks))
    refused(trained, ["inference"], options, f"{masks} has no mask for head_b, head_c (2 of 3 volumes)")


# MR and CT


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("ct", "mr", ["ct.nii.gz (target) does not look like CT in Hounsfield units: it has no air"]),
        ("mr", "ct", ["mr.nii.gz (source) looks like CT in Hounsfield units", "the modality of 'source' is 'mr'"]),
    ],
)
def test_mr_and_ct_mixed_up(trained_on_ct: Trained, name: str, other: str, expected: list[str]) -> None:
    patient = trained_on_ct.data / "Task1" / "brain" / "1BB005"
    shutil.copy(patient / f"{other}.nii.gz", patient / f"{name}.nii.gz")
    refused(trained_on_ct, ["train"], tiny(*trained_on_ct) | MR_TO_CT, "1BB005", *expected)


def test_a_volume_that_is_thinner_than_the_window_of_the_score(trained_on_ct: Trained) -> None:
    """3-D SSIM, of the SynthRAD protocol, looks at 7 slices; a thinner volume is named, and no score is written."""
    patient = trained_on_ct.data / "Task1" / "brain" / "1BA002"
    for name in ("mr", "ct", "mask"):
        change(patient / f"{name}.nii.gz", lambda image: image.slicer[:, :, :5])
    options = tiny(*trained_on_ct) | MR_TO_CT
    refused(trained_on_ct, ["train", "evaluate"], options, "1BA002: ", "window")
    assert not (trained_on_ct.folder / "output" / "evaluation").exists()
