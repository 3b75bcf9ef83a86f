"""Generated images are ordinary NIfTI files that say where they come from."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common import __version__
from common.transforms.loading import LoadVolume
from common.transforms.saving import SaveSyntheticd, SaveTranslatedd, SaveTranslation
from common.transforms.synthetic_files import save_nifti


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


PROVENANCE = {"bundle": "dfbk", "seed": 3, "weights": "model.pt"}
SFORM = np.array([[0.1, -1.25, 0.3, 12.5], [1.1, 0.0, 0.0, -7.0], [0.0, 0.2, 8.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
QFORM = np.diag([2.0, 2.0, 2.5, 1.0])


def translation(path: str = "nowhere", *shape: int) -> MetaTensor:
    values = torch.rand((1, *(shape or (5, 4, 3))), generator=torch.Generator().manual_seed(0)) * 3000 - 1000
    return MetaTensor(values, affine=torch.from_numpy(SFORM), meta={"filename_or_obj": path})


def source_file(path: Path, kind: type = nibabel.Nifti1Image, codes: tuple[int, int] = (1, 4)) -> nibabel.Nifti1Image:
    """A file with different qform and sform, odd codes and units, and a header full of the patient."""
    image = kind(np.zeros((5, 4, 3), np.int16), SFORM)
    image.set_qform(QFORM, code=codes[0])
    image.set_sform(SFORM, code=codes[1])
    image.header.set_xyzt_units("meter", "msec")
    image.header["descrip"], image.header["cal_max"], image.header["intent_name"] = b"Jane Doe", 90, b"T1 of Jane"
    nibabel.save(image, path)
    return nibabel.load(path)


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        (nibabel.Nifti1Image, (1, 4)),
        (nibabel.Nifti1Image, (3, 0)),
        (nibabel.Nifti1Image, (0, 0)),
        (nibabel.Nifti2Image, (2, 1)),
    ],
    ids=["both forms", "qform only", "neither", "NIfTI-2"],
)
def test_a_translation_has_the_geometry_of_its_source_and_nothing_else_of_it(
    tmp_path: Path, kind: type, codes: tuple[int, int]
) -> None:
    source = source_file(tmp_path / "source.nii.gz", kind, codes)
    volume = translation(str(tmp_path / "source.nii.gz"))
    volume.affine = LoadVolume()(tmp_path / "source.nii.gz").affine
    image = nibabel.load(SaveTranslation(tmp_path, PROVENANCE, "t2")(volume, "case1"))
    np.testing.assert_allclose(image.affine, source.affine, rtol=1e-6, atol=1e-6)
    for form in ("qform", "sform"):
        assert image.header[f"{form}_code"] == source.header[f"{form}_code"]
        places = [getattr(one, f"get_{form}")() for one in (image, source)]
        np.testing.assert_allclose(*places, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms(), source.header.get_zooms(), rtol=1e-6)
    assert image.header.get_xyzt_units() == ("meter", "msec")
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume[0].numpy())
    assert image.get_data_dtype() == np.float32
    assert b"Jane" not in image.header.binaryblock
    assert image.header["cal_max"] == 0


def test_a_translation_of_another_format_gets_the_affine_in_both_forms(tmp_path: Path) -> None:
    image = nibabel.load(SaveTranslation(tmp_path, PROVENANCE, "t2")(translation(str(tmp_path)), "case1"))
    np.testing.assert_allclose(image.affine, SFORM, atol=1e-6)
    assert image.header["qform_code"] == image.header["sform_code"] == 1


def test_ct_is_whole_hounsfield_units_rounded_and_within_int16(tmp_path: Path) -> None:
    volume = translation()
    volume[0, 0, 0, :3] = torch.tensor([-1000.6, 1e6, -1e6])
    image = nibabel.load(SaveTranslation(tmp_path, PROVENANCE, "ct")(volume, "case1"))
    assert image.get_data_dtype() == np.int16
    stored = np.asarray(image.dataobj)
    np.testing.assert_array_equal(stored[0, 0], [-1001, 32767, -32768])
    assert np.abs(stored[1:] - volume[0, 1:].numpy()).max() <= 0.5


def test_header_and_record_tell_where_a_translation_comes_from(tmp_path: Path) -> None:
    for modality, units in (("ct", "HU"), ("flair", "arbitrary")):
        SaveTranslation(tmp_path, PROVENANCE, modality)(translation("p1/mr.mha"), "case1")
        header = nibabel.load(tmp_path / f"case1_{modality}.nii.gz").header
        description = bytes(header["descrip"]).rstrip(b"\0").decode()
        assert description == f"SYNTHETIC dfbk {__version__} seed=3 not for diagnosis"
        assert json.loads((tmp_path / f"case1_{modality}.json").read_text()) == {
            "synthetic": True,
            **PROVENANCE,
            "version": __version__,
            "case": "case1",
            "modality": modality,
            "source": "p1/mr.mha",
            "units": units,
            "standard_deviation": False,
        }


def test_a_long_bundle_name_never_cuts_the_warning(tmp_path: Path) -> None:
    provenance = {"bundle": "b" * 100, "seed": 2**63}
    path = SaveTranslation(tmp_path, provenance, "t2")(translation(), "case1")
    description = bytes(nibabel.load(path).header["descrip"]).rstrip(b"\0").decode()
    assert len(description) == 79
    assert description.startswith("SYNTHETIC bbb")
    assert description.endswith(f"seed={2**63} not for diagnosis")


def test_the_standard_deviation_is_a_second_file(tmp_path: Path) -> None:
    deviation = MetaTensor(translation().as_tensor() / 100)
    item = {"pred": translation(), "pred_sd": deviation, "case": "case1"}
    save = SaveTranslatedd(["pred", "pred_sd"], tmp_path, PROVENANCE, "ct")
    save(item)
    image = nibabel.load(tmp_path / "case1_ct_sd.nii.gz")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj), deviation[0].numpy().clip(min=0))
    np.testing.assert_allclose(image.affine, SFORM, atol=1e-6)
    assert json.loads((tmp_path / "case1_ct.json").read_text())["standard_deviation"] is True
    save({"pred": translation(), "case": "case2"})
    assert not (tmp_path / "case2_ct_sd.nii.gz").exists()
    assert json.loads((tmp_path / "case2_ct.json").read_text())["standard_deviation"] is False


def test_what_cannot_be_saved_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    source_file(tmp_path / "source.nii.gz")
    output, broken = tmp_path / "output", translation()
    broken[0, 1, 2, 0] = torch.nan
    save = SaveTranslation(output, PROVENANCE, "t2")
    with pytest.raises(ValueError, match="case1: 1 of 60 predicted values are NaN"):
        save(broken, "case1")
    with pytest.raises(ValueError, match="case1: 1 of 60 predicted values are NaN"):
        save(translation(), "case1", broken)
    with pytest.raises(ValueError, match=r"source\.nii\.gz has shape \(5, 4, 3\).*Undo the spatial transforms"):
        save(translation(str(tmp_path / "source.nii.gz"), 5, 4, 2), "case1")
    with pytest.raises(ValueError, match=r"case '\.\./case1' is no file name"):
        save(translation(), "../case1")
    assert not output.exists()
    with pytest.raises(ValueError, match="provenance lacks seed"):
        SaveTranslation(output, {"bundle": "dfbk"}, "t2")
    with pytest.raises(ValueError, match="not \\('a', 'b', 'c'\\)"):
        SaveTranslatedd(["a", "b", "c"], output, PROVENANCE, "t2")
