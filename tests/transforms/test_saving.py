"""Generated images are ordinary NIfTI files that say where they come from."""

import json
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor

from common import __version__
from common.transforms.saving import SaveSyntheticd, save_nifti


def test_voxels_affine_and_provenance_survive(tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 8, 3], [0, 0, 0, 1]])
    item = {
        "image": MetaTensor(torch.zeros(1, 4, 6), affine=torch.from_numpy(affine)),
        "pred": torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(0)),
        "index": torch.tensor(12),
    }
    SaveSyntheticd("pred", tmp_path, {"bundle": "dct_moe", "seed": 3, "weights": "model.pt"})(item)
    image = nibabel.load(tmp_path / "sample_000012.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0], item["pred"][0].numpy())
    np.testing.assert_allclose(image.affine, affine)
    assert image.header["qform_code"] == image.header["sform_code"] == 1
    assert image.header.get_xyzt_units() == ("mm", "sec")
    description = bytes(image.header["descrip"]).rstrip(b"\0").decode()
    assert description == f"SYNTHETIC bundle=dct_moe version={__version__} seed=3 index=12"
    record = json.loads((tmp_path / "sample_000012.json").read_text())
    assert record == {
        "synthetic": True,
        "bundle": "dct_moe",
        "seed": 3,
        "weights": "model.pt",
        "version": __version__,
        "index": 12,
    }


def test_long_descriptions_are_cut(tmp_path: Path) -> None:
    save_nifti(tmp_path / "x.nii.gz", np.zeros((2, 2, 1), np.float32), np.eye(4), "é" + "x" * 200)
    description = bytes(nibabel.load(tmp_path / "x.nii.gz").header["descrip"]).rstrip(b"\0")
    assert description == b"?" + b"x" * 78
