"""The written cardiac phantom: files, metadata, independence of the set, splits and planted copies."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.phantoms import writer
from common.data.phantoms.cardiac import FOV_MM, NUM_FRAMES, CardiacCase, write_cardiac_phantom
from common.data.phantoms.writer import array_hash
from common.data.splits import split_of

STORED = json.loads((Path(__file__).parent / "drawn_scalars.json").read_text())


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cardiac_phantom(tmp_path_factory.mktemp("phantoms"), cases=5, size=64)


def info(patient: Path) -> dict[str, str]:
    return dict(line.split(": ") for line in (patient / "Info.cfg").read_text().splitlines())


def test_layout_is_that_of_acdc(phantom: Path) -> None:
    """Info.cfg names frames that exist; the two labelled frames and the cine are there, nothing else."""
    assert phantom.name == "cardiac-acdc-r1-s0-n5-p64"
    groups = []
    for number in range(1, 6):
        patient = phantom / f"patient{number:03d}"
        fields = info(patient)
        assert list(fields) == ["ED", "ES", "Group", "Height", "NbFrame", "Weight"]
        frames = [int(fields["ED"]), int(fields["ES"])]
        assert frames[0] == 1 < frames[1] <= int(fields["NbFrame"]) == NUM_FRAMES
        suffixes = ["_4d", *(f"_frame{k:02d}{end}" for k in frames for end in ("", "_gt"))]
        expected = {"Info.cfg", *(f"{patient.name}{suffix}.nii.gz" for suffix in suffixes)}
        assert {path.name for path in patient.iterdir()} == expected
        groups.append(fields["Group"])
    assert groups == ["NOR", "DCM", "HCM", "MINF", "RV"]


def test_file_metadata(phantom: Path) -> None:
    """Shape, spacing, affine, type, units, codes and time step of image, label and cine."""
    entry = manifest(phantom)["cases"][1]
    p = entry["parameters"]
    affine = np.diag([-160 / 64, -160 / 64, p["slice_mm"], 1.0])
    for name in entry["files"][1:]:
        image = nib.load(phantom / name)
        header = image.header
        cine = name.endswith("_4d.nii.gz")
        assert image.ndim == (4 if cine else 3)
        assert image.shape[:2] == (64, 64)
        np.testing.assert_allclose(image.affine, affine)
        np.testing.assert_allclose(image.get_qform(), affine, atol=1e-5)
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        assert header.get_xyzt_units() == ("mm", "sec")
        assert header["descrip"].item().decode() == "synthetic phantom r1"
        assert header.get_data_dtype() == (np.uint8 if name.endswith("_gt.nii.gz") else np.int16)
        assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
        if cine:
            assert image.shape[3] == NUM_FRAMES
            assert header.get_zooms()[3] == pytest.approx(p["rr_ms"] / 1000 / NUM_FRAMES, rel=1e-6)


def test_labelled_frames_are_frames_of_the_cine_voxel_for_voxel(phantom: Path) -> None:
    for patient in sorted(phantom.glob("patient*")):
        cine = np.asarray(nib.load(patient / f"{patient.name}_4d.nii.gz").dataobj)
        for key in ("ED", "ES"):
            frame = int(info(patient)[key])
            image = nib.load(patient / f"{patient.name}_frame{frame:02d}.nii.gz")
            np.testing.assert_array_equal(np.asarray(image.dataobj), cine[..., frame - 1])
            labels = nib.load(patient / f"{patient.name}_frame{frame:02d}_gt.nii.gz")
            assert labels.shape == image.shape
            assert np.unique(np.asarray(labels.dataobj)).tolist() == [0, 1, 2, 3]


def test_right_ventricle_lies_left_in_the_picture_and_chest_wall_beside_it(phantom: Path) -> None:
    """Axis 0 runs from left to right: centroid of label 1 before that of label 3; fat at the left edge, lung above."""
    for patient in sorted(phantom.glob("patient*")):
        image = np.asarray(nib.load(patient / f"{patient.name}_frame01.nii.gz").dataobj).astype(float)
        labels = np.asarray(nib.load(patient / f"{patient.name}_frame01_gt.nii.gz").dataobj)
        assert np.argwhere(labels == 1)[:, 0].mean() < np.argwhere(labels == 3)[:, 0].mean() - 8
        blood = np.median(image[labels == 3])
        above = image[24:40, 1:6]  # lung over the heart
        assert np.median(above) < 0.15 * blood
        assert np.percentile(image[:16], 99) > 0.6 * blood


def test_cine_moves_the_heart_and_not_the_chest_wall(phantom: Path) -> None:
    cine = np.asarray(nib.load(phantom / "patient001" / "patient001_4d.nii.gz").dataobj).astype(float)
    labels = np.asarray(nib.load(phantom / "patient001" / "patient001_frame01_gt.nii.gz").dataobj)
    middle = cine.shape[2] // 3
    change = cine[:, :, middle].std(axis=-1) / cine.max()
    heart = labels[:, :, middle] > 0
    assert change[heart].mean() > 4 * np.median(change[~heart])


def test_label_areas_of_the_first_case_never_change() -> None:
    labels = CardiacCase(0, 0).labels(0)
    areas = [int((labels == k).sum()) for k in (1, 2, 3)]
    assert areas == pytest.approx(STORED["cardiac_label_voxels_case_0"], rel=1e-4)


def test_manifest_tells_the_drawn_scalars_and_the_hashes_of_the_arrays(phantom: Path) -> None:
    content = manifest(phantom)
    assert content["synthetic"] is True
    assert content["options"]["cases"] == 5
    entry = content["cases"][0]
    assert entry["parameters"]["lv_ef"] == CardiacCase(0, 0).parameters.lv_ef  # all digits
    for suffix, value in entry["hashes"].items():
        image = nib.load(phantom / "patient001" / f"patient001_{suffix}.nii.gz")
        assert array_hash(np.asarray(image.dataobj), image.affine) == value
    every = [value for entry in content["cases"] for value in entry["hashes"].values()]
    assert len(set(every)) == len(every)  # no two patients share an array


def test_a_case_is_the_same_in_any_set(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 3 of 4, case 3 of 5, case 3 alone; with and without cine; in one process or in a pool of three."""
    monkeypatch.setattr(writer, "available_cpus", lambda: 3)
    pooled = write_cardiac_phantom(tmp_path, cases=12, size=64, cine=False)
    alone = CardiacCase(0, 3, 64)
    affine = np.diag([-2.5, -2.5, alone.parameters.slice_mm, 1.0])
    hashes = {
        f"frame{k + 1:02d}": array_hash(np.ascontiguousarray(alone.images([k])[0].transpose(1, 2, 0)), affine)
        for k in (alone.es_frame, 0)
    }
    first, second = (manifest(folder)["cases"][3] for folder in (phantom, pooled))
    assert first["parameters"] == second["parameters"]
    for suffix, value in hashes.items():
        assert first["hashes"][suffix] == value
        assert second["hashes"][suffix] == value
    assert not any("_4d" in name for name in second["files"])


def test_other_seed_gives_other_hearts() -> None:
    assert CardiacCase(1, 0).parameters.lv_edv_ml != CardiacCase(0, 0).parameters.lv_edv_ml


def test_default_split_has_patients_in_every_part() -> None:
    """40 hearts: 30 training, 3 validation, 7 test."""
    parts = [split_of("cardiac_phantom", f"patient{k:03d}") for k in range(1, 41)]
    assert [parts.count(part) for part in ("training", "validation", "test")] == [30, 3, 7]


def test_splitting_by_slice_would_leak_patients() -> None:
    """Control: the hash of the patient keeps parts disjoint, the same hash of patient and slice does not."""
    slices = [(f"patient{k:03d}", z) for k in range(1, 41) for z in range(10)]
    by_patient, by_slice = ({"training": set(), "test": set(), "validation": set()} for _ in range(2))
    for patient, z in slices:
        by_patient[split_of("cardiac", patient)].add(patient)
        by_slice[split_of("cardiac", f"{patient}/{z}")].add(patient)
    assert not by_patient["training"] & by_patient["test"]
    assert by_slice["training"] & by_slice["test"]


def test_duplicates_are_training_hearts_with_new_noise_in_the_test_part(tmp_path: Path) -> None:
    """Positive control of a memorization report: same anatomy and scanner, only the noise differs."""
    folder = write_cardiac_phantom(tmp_path, cases=3, size=64, cine=False, duplicates=1)
    assert folder.name.startswith("cardiac-acdc-r1-s0-n3-p64-")
    cases = manifest(folder)["cases"]
    copy = cases[3]
    original = next(entry for entry in cases[:3] if entry["case"] == copy["case"])
    assert split_of("cardiac_phantom", original["patient"]) == "training"
    assert split_of("cardiac_phantom", copy["patient"]) == "test"
    assert copy["parameters"] == original["parameters"]
    images = [np.asarray(nib.load(folder / e["files"][1]).dataobj).astype(float) for e in (original, copy)]
    assert copy["hashes"]["frame01_gt"] == original["hashes"]["frame01_gt"]
    sigma = original["scanner"]["gain"] / original["scanner"]["snr"]
    bright = np.minimum(*images) > 5 * sigma
    assert (images[0] - images[1])[bright].std() == pytest.approx(np.sqrt(2) * sigma, rel=0.05)


def test_existing_phantom_is_read_again_and_not_rewritten(phantom: Path) -> None:
    stamp = (phantom / "manifest.json").stat().st_mtime_ns
    assert write_cardiac_phantom(phantom.parent, cases=5, size=64) == phantom
    assert (phantom / "manifest.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("size", "fov_mm"), [*FOV_MM.items(), (80, 160.0)])
def test_default_field_of_view(size: int, fov_mm: float, tmp_path: Path) -> None:
    """Listed sizes have the stated field of view; between them it is interpolated."""
    folder = write_cardiac_phantom(tmp_path, cases=1, size=size, cine=False)
    zooms = nib.load(folder / "patient001" / "patient001_frame01.nii.gz").header.get_zooms()
    assert zooms[0] * size == pytest.approx(fov_mm, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 16}, "size=16"),
        ({"cases": 0}, "cases=0"),
        ({"fov_mm": 80}, "fov_mm=80"),
        ({"fov_mm": 500}, "fov_mm=500"),
        ({"cases": 2, "duplicates": 9}, "duplicates=9"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_cardiac_phantom(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
