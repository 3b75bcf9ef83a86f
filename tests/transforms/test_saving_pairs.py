"""Generated images and their label maps are pairs of files on one grid that say where they come from."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common import __version__
from common.transforms.loading import LoadVolume
from common.transforms.saving_pairs import SaveLabelledd, SavePaintedd

PROVENANCE = {"bundle": "fqcdm", "seed": 3, "mode": "S"}
VALUES = {0: 0, 500: 1, 420: 2, 421: 2}
AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 8, 3], [0, 0, 0, 1]])


def sample(**facts: Any) -> dict[str, Any]:
    label = torch.tensor([[[0.0, 1, 2], [2, 1, 0]]])
    return {
        "pred": torch.linspace(0, 1, 6).reshape(1, 2, 3),
        "label": MetaTensor(label, affine=torch.from_numpy(AFFINE)),
        "case": "sample_000012",
        **facts,
    }


def described(path: Path) -> str:
    return bytes(nibabel.load(path).header["descrip"]).rstrip(b"\0").decode()


def test_a_sample_is_a_pair_of_one_slice_with_the_values_of_the_data_set(tmp_path: Path) -> None:
    """Of two values for one class the first is written; 420 and 421 mean the same."""
    item = sample(
        index=torch.tensor(12), source_patient="p1", source_slice=torch.tensor(4), deformed=torch.tensor(True)
    )
    SaveLabelledd("pred", tmp_path, PROVENANCE, VALUES)(item)
    image, label = (nibabel.load(tmp_path / part / "sample_000012.nii.gz") for part in ("images", "labels"))
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0], item["pred"][0].numpy())
    np.testing.assert_array_equal(np.asarray(label.dataobj)[..., 0], [[0, 500, 420], [420, 500, 0]])
    assert image.get_data_dtype() == np.float32
    assert label.get_data_dtype() == np.int16
    for one in (image, label):
        np.testing.assert_allclose(one.affine, AFFINE)
        assert one.shape == (2, 3, 1)
    for part in ("images", "labels"):
        assert described(tmp_path / part / "sample_000012.nii.gz").startswith("SYNTHETIC fqcdm")
    assert json.loads((tmp_path / "images" / "sample_000012.json").read_text()) == {
        **{"synthetic": True, **PROVENANCE, "version": __version__, "units": "arbitrary", "case": "sample_000012"},
        **{"index": 12, "source_patient": "p1", "source_slice": 4, "deformed": True},
    }


def test_small_labels_take_one_byte(tmp_path: Path) -> None:
    SaveLabelledd("pred", tmp_path, PROVENANCE, {0: 0, 1: 1, 2: 2})(sample())
    assert nibabel.load(tmp_path / "labels" / "sample_000012.nii.gz").get_data_dtype() == np.uint8


def test_a_window_in_hounsfield_units_gives_whole_ones(tmp_path: Path) -> None:
    SaveLabelledd("pred", tmp_path, PROVENANCE, VALUES, window=(-150, 650))(sample())
    image = nibabel.load(tmp_path / "images" / "sample_000012.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(image.dataobj).ravel(), [-150, 10, 170, 330, 490, 650])
    assert json.loads((tmp_path / "images" / "sample_000012.json").read_text())["units"] == "HU"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"label": torch.full((1, 2, 3), 3.0)},
            r"sample_000012: the label map holds \[3.0\], not the class indices 0 to 2",
        ),
        ({"label": torch.full((1, 2, 3), 0.5)}, r"holds \[0.5\]"),
        ({"pred": torch.full((1, 2, 3), torch.nan)}, "sample_000012: 6 of 6 predicted values are NaN"),
        ({"case": "../x"}, r"case '\.\./x' is no file name"),
    ],
    ids=str,
)
def test_what_is_no_pair_is_named_and_leaves_no_file(tmp_path: Path, facts: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        SaveLabelledd("pred", tmp_path / "set", PROVENANCE, VALUES)(sample(**facts))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("saver", [SaveLabelledd, SavePaintedd])
def test_windows_and_provenance_are_checked_before_anything_is_generated(tmp_path: Path, saver: Any) -> None:
    values = [VALUES] if saver is SaveLabelledd else []
    with pytest.raises(ValueError, match=r"window=\(1, 1\) must be two rising levels"):
        saver("pred", tmp_path, PROVENANCE, *values, window=(1, 1))
    with pytest.raises(ValueError, match="provenance lacks seed"):
        saver("pred", tmp_path, {"bundle": "fqcdm"}, *values)


def label_file(path: Path) -> tuple[MetaTensor, np.ndarray]:
    """A label map whose qform and sform differ, with a header full of the patient; and its voxels."""
    voxels = np.random.default_rng(0).choice([0, 205, 850], (5, 4, 3)).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, AFFINE)
    image.set_qform(np.diag([2.0, 2, 2, 1]), code=1)
    image.set_sform(AFFINE, code=4)
    image.header["descrip"] = b"Jane Doe"
    nibabel.save(image, path)
    return LoadVolume()(path), voxels


def painted(path: Path) -> tuple[MetaTensor, np.ndarray]:
    volume, voxels = label_file(path)
    levels = torch.rand(volume.shape, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    return MetaTensor(levels, meta=volume.meta), voxels


def test_a_painted_volume_lies_on_its_label_map(tmp_path: Path) -> None:
    volume, voxels = painted(tmp_path / "source.nii.gz")
    SavePaintedd("pred", tmp_path / "out", PROVENANCE)({"pred": volume, "case": "p1"})
    image, label = (nibabel.load(tmp_path / "out" / f"p1_{part}.nii.gz") for part in ("image", "label"))
    source = nibabel.load(tmp_path / "source.nii.gz")
    np.testing.assert_array_equal(np.asarray(label.dataobj), voxels)
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume[0].clamp(0, 1).numpy())
    for one in (image, label):
        np.testing.assert_allclose(one.affine, source.affine)
        assert (one.header["qform_code"], one.header["sform_code"]) == (1, 4)
        assert b"Jane" not in one.header.binaryblock
    assert image.get_data_dtype() == np.float32
    assert json.loads((tmp_path / "out" / "p1_image.json").read_text()) == {
        **{"synthetic": True, **PROVENANCE, "version": __version__, "units": "arbitrary", "case": "p1"},
        "source": str(tmp_path / "source.nii.gz"),
    }


def test_a_painted_ct_is_in_whole_hounsfield_units(tmp_path: Path) -> None:
    volume, _ = painted(tmp_path / "source.nii.gz")
    SavePaintedd("pred", tmp_path, PROVENANCE, window=(-150, 650))({"pred": volume, "case": "p1"})
    image = nibabel.load(tmp_path / "p1_image.nii.gz")
    assert image.get_data_dtype() == np.int16
    expected = np.rint(volume[0].clamp(0, 1).double().numpy() * 800 - 150)
    assert np.abs(np.asarray(image.dataobj) - expected).max() <= 1  # float32 may round a half the other way
    assert json.loads((tmp_path / "p1_image.json").read_text())["units"] == "HU"


def test_a_volume_on_another_grid_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    volume, _ = painted(tmp_path / "source.nii.gz")
    item = {"pred": volume[..., :2], "case": "p1"}
    with pytest.raises(ValueError, match=r"source\.nii\.gz has shape \(5, 4, 3\).*Undo the spatial transforms"):
        SavePaintedd("pred", tmp_path / "out", PROVENANCE)(item)
    assert not (tmp_path / "out").exists()
