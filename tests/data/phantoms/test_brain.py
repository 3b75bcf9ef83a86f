"""The written brain phantom: files in three layouts, metadata, world coordinates, splits and planted copies."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from common.data.phantoms import writer
from common.data.phantoms.brain import write_brain_phantom
from common.data.phantoms.brain_image import BrainCase
from common.data.phantoms.brain_layouts import LAYOUTS
from common.data.phantoms.brain_lesions import Shown
from common.data.phantoms.brain_space import Grid
from common.data.phantoms.brain_tissues import NAMES
from common.data.phantoms.writer import array_hash
from common.data.splits import SECTIONS, split_of

PIXEL = 224 / 64


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def brats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brain_phantom(tmp_path_factory.mktemp("phantoms"), cases=2, size=64)


@pytest.fixture(scope="module")
def isles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brain_phantom(tmp_path_factory.mktemp("phantoms"), cases=2, size=64, layout="isles", ideal=True)


@pytest.fixture(scope="module")
def synthrad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brain_phantom(tmp_path_factory.mktemp("phantoms"), cases=3, size=64, layout="synthrad")


def test_layout_is_that_of_brats(brats: Path) -> None:
    """The first of every eight patients comes a second time."""
    assert brats.name == "brain-brats-r1-s0-n2-p64"
    scans = ["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00001-000"]
    assert sorted(path.name for path in brats.iterdir() if path.is_dir()) == scans
    for scan in scans:
        expected = {f"{scan}-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "seg")}
        assert {path.name for path in (brats / scan).iterdir()} == expected
        seg = voxels(brats / scan / f"{scan}-seg.nii.gz")
        assert np.unique(seg).tolist() == [0, 1, 2, 3]


def test_skull_is_stripped_to_exact_zero(brats: Path, isles: Path) -> None:
    """The same voxels in all contrasts, and lesions only among them."""
    for index, home in enumerate((brats / "BraTS-GLI-00001-000", isles / "SISS2015_Training" / "2")):
        images = [path for path in sorted(home.rglob("*.nii*")) if "seg" not in path.name and ".OT." not in path.name]
        assert len(images) == 4
        case = BrainCase(0, 1, Grid(64, 224.0, 32), Shown())
        mask = case.brain_mask()[::-1, ::-1]
        for path in images:
            image = voxels(path)
            assert not image[~mask].any()
            if index == 0:  # noise leaves no zero inside
                assert (image[mask] > 0).mean() > 0.995


def test_layout_is_that_of_isles(isles: Path) -> None:
    """Every file has its own number and its folder the file's name; the mask is the acute stroke only."""
    numbers = set()
    for patient in ("1", "2"):
        home = isles / "SISS2015_Training" / patient
        found = sorted(home.rglob("*.nii"))
        assert [path.parent.name for path in found] == [path.stem for path in found]
        stems, ids = zip(*(path.stem.rsplit(".", 1) for path in found), strict=True)
        modalities = [f"VSD.Brain.XX.O.MR_{name}" for name in ("DWI", "Flair", "T1", "T2")]
        assert sorted(stems) == sorted([*modalities, "VSD.Brain.XX.XX.OT"])
        numbers |= set(ids)
        mask = voxels(next(home.glob("*.OT.*/*.nii")))
        assert np.unique(mask).tolist() == [0, 1]
        case = BrainCase(0, int(patient) - 1, Grid(64, 224.0, 32), Shown(stroke=True, chronic=True))
        np.testing.assert_array_equal(mask[::-1, ::-1], case.label_of("stroke"))
        assert case.label_of("chronic").any()
    assert len(numbers) == 10


def test_layout_is_that_of_synthrad(synthrad: Path) -> None:
    """Three centers, ids that are not consecutive, grids that differ, an overview folder that readers must skip."""
    home = synthrad / "Task1" / "brain"
    assert sorted(path.name for path in home.iterdir()) == ["1BA002", "1BB005", "1BC008", "overview"]
    assert not list((home / "overview").iterdir())
    shapes = set()
    for name in ("1BA002", "1BB005", "1BC008"):
        mr, ct, mask = (nib.load(home / name / f"{part}.nii.gz") for part in ("mr", "ct", "mask"))
        assert mr.shape == ct.shape == mask.shape
        np.testing.assert_array_equal(mr.affine, ct.affine)
        np.testing.assert_array_equal(mr.affine, mask.affine)
        shapes.add(mr.shape)
        inside = np.asarray(mask.dataobj) > 0
        hu = np.asarray(ct.dataobj)
        assert np.median(hu[~inside]) == pytest.approx(-1000, abs=2)
        assert 20 < np.median(hu[inside]) < 60
        assert hu.max() > 1000
        assert (hu[~inside] > -600).sum() > 20  # the head rest
    assert len(shapes) > 1


def test_centers_differ_in_contrast(synthrad: Path) -> None:
    """Fat stands out more at B (short TR), blood at C (contrast agent)."""
    case = BrainCase(0, 0, Grid(64, 224.0, 32), Shown())
    entries = manifest(synthrad)["cases"]
    assert [entry["patient"][:3] for entry in entries] == ["1BA", "1BB", "1BC"]
    assert [entry["lesions"] for entry in entries] == [[], [], []]
    assert [LAYOUTS["synthrad"].lesions(k).glioma for k in range(9)] == [False] * 3 + [True] * 3 + [False] * 3
    plain, agent = case.signals("t1n"), case.signals("t1c")
    assert agent["blood"] / agent["white"] > 1.5 * plain["blood"] / plain["white"]


def test_file_metadata(brats: Path, isles: Path, synthrad: Path) -> None:
    """Spacing, affine, type, units and codes; files run from right to left and from front to back."""
    for folder in (brats, isles, synthrad):
        for entry in manifest(folder)["cases"]:
            for name in entry["files"]:
                image = nib.load(folder / name)
                header = image.header
                assert aff2axcodes(image.affine) == ("L", "P", "S")
                np.testing.assert_allclose(np.abs(image.affine[:3, :3]), np.diag([PIXEL, PIXEL, 4.5]))
                np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-4)
                assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
                assert header.get_xyzt_units() == ("mm", "sec")
                assert header["descrip"].item().decode() == "synthetic phantom r1"
                label = any(part in name for part in ("-seg", ".OT.", "mask"))
                assert header.get_data_dtype() == (np.uint8 if label else np.int16)
                assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
                if folder != synthrad:
                    assert image.shape == (64, 64, 32)
                    np.testing.assert_allclose(image.affine[:3, 3], [0, 63 * PIXEL, 0])


def test_nose_points_to_the_front_and_world_coordinates_agree_between_layouts(brats: Path, synthrad: Path) -> None:
    """In RAS the nose is the foremost point, at the midline below the brain; both layouts agree on the brain."""
    mask = nib.as_closest_canonical(nib.load(synthrad / "Task1" / "brain" / "1BA002" / "ct.nii.gz"))
    head = np.asarray(mask.dataobj) > -300
    rows = np.flatnonzero(head.any(axis=(0, 2)))
    tip = np.argwhere(head[:, rows[-1]]) @ np.diag([PIXEL, 4.5]) + mask.affine[[0, 2], 3]
    brain = nib.as_closest_canonical(nib.load(brats / "BraTS-GLI-00000-000" / "BraTS-GLI-00000-000-t1n.nii.gz"))
    points = np.argwhere(np.asarray(brain.dataobj) > 0) * np.abs(np.diag(brain.affine)[:3]) + brain.affine[:3, 3]
    center = points.mean(axis=0)
    assert abs(tip[:, 0].mean() - center[0]) < 15
    assert tip[:, 1].mean() < center[2] - 25
    foremost = rows[-1] * PIXEL + mask.affine[1, 3]
    assert foremost > points[:, 1].max() + 5
    # Every brain voxel of one layout is soft tissue, not air or bone, of the other's CT at the same world point.
    index = np.rint((points - mask.affine[:3, 3]) / [PIXEL, PIXEL, 4.5]).astype(int)
    inside = ((index >= 0) & (index < mask.shape)).all(axis=1)
    hu = np.asarray(mask.dataobj)[tuple(index[inside].T)]
    assert inside.mean() > 0.99
    assert np.mean(np.abs(hu - 30) < 60) > 0.9


def test_manifest_tells_the_drawn_scalars_and_the_hashes_of_the_arrays(brats: Path) -> None:
    content = manifest(brats)
    assert content["synthetic"] is True
    assert content["options"]["cases"] == 2
    first = content["cases"][0]
    assert first["parameters"]["atrophy"] == BrainCase(0, 0, Grid(64, 224.0, 32), Shown()).parameters.atrophy
    for entry in content["cases"]:
        for name, value in entry["hashes"].items():
            image = nib.load(brats / name)
            assert array_hash(np.asarray(image.dataobj), image.affine) == value
    every = [value for entry in content["cases"] for value in entry["hashes"].values()]
    assert len(set(every)) == len(every)  # no two scans share an array


@pytest.mark.slow
def test_a_case_is_the_same_in_any_set(brats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 1 of 2 in this process, case 1 of 8 in a pool of three, and case 1 alone."""
    monkeypatch.setattr(writer, "available_cpus", lambda: 3)
    pooled = manifest(write_brain_phantom(tmp_path, cases=12, size=64))["cases"]
    single = manifest(brats)["cases"]
    for name in ("BraTS-GLI-00000", "BraTS-GLI-00001"):
        mine, other = ([e["hashes"] for e in entries if e["patient"] == name] for entries in (single, pooled))
        assert mine == other
    alone = BrainCase(0, 1, Grid(64, 224.0, 32), Shown(glioma=True))
    image = (alone.magnetic_resonance("t2f") * alone.brain_mask())[::-1, ::-1]
    np.testing.assert_array_equal(image, voxels(brats / "BraTS-GLI-00001-000" / "BraTS-GLI-00001-000-t2f.nii.gz"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_default_split_has_patients_in_every_part(layout: str) -> None:
    parts = [split_of("brain_phantom", LAYOUTS[layout].patient(number)) for number in range(48)]
    assert all(parts.count(part) >= 3 for part in SECTIONS)
    assert len({LAYOUTS[layout].patient(number) for number in range(500)}) == 500


def test_splitting_by_scan_would_leak_patients() -> None:
    """Control: of the patients with two scans, the hash of patient and scan puts some on both sides."""
    scans = [(LAYOUTS["brats"].patient(8 * k), visit) for k in range(30) for visit in (0, 1)]
    by_scan: dict[str, set[str]] = {part: set() for part in SECTIONS}
    for patient, visit in scans:
        by_scan[split_of("brain", f"{patient}-{visit:03d}")].add(patient)
    assert by_scan["training"] & by_scan["test"]


def test_second_visit_is_the_same_head_under_another_scanner(brats: Path) -> None:
    first, second = (brats / f"BraTS-GLI-00000-00{visit}" for visit in (0, 1))
    images = [voxels(home / f"{home.name}-t1n.nii.gz") for home in (first, second)]
    np.testing.assert_array_equal(images[0] > 0, images[1] > 0)
    entries = [entry for entry in manifest(brats)["cases"] if entry["patient"] == "BraTS-GLI-00000"]
    assert entries[0]["parameters"] == entries[1]["parameters"]
    assert entries[0]["scanner"]["contrasts"] != entries[1]["scanner"]["contrasts"]
    assert entries[1]["growth"] > 1.1
    tumors = [np.isin(voxels(home / f"{home.name}-seg.nii.gz"), (1, 3)).sum() for home in (first, second)]
    assert tumors[1] > 1.1 * tumors[0]


def test_duplicates_are_training_heads_with_new_noise_in_the_test_part(tmp_path: Path) -> None:
    """Positive control of a memorization report: same anatomy, center and scanner, only the noise differs."""
    folder = write_brain_phantom(tmp_path, cases=4, size=48, layout="synthrad", duplicates=1)
    entries = manifest(folder)["cases"]
    copy = entries[-1]
    original = next(entry for entry in entries[:-1] if entry["case"] == copy["case"])
    assert split_of("brain_phantom", original["patient"]) == "training"
    assert split_of("brain_phantom", copy["patient"]) == "test"
    assert copy["patient"][:3] == original["patient"][:3]
    assert copy["parameters"] == original["parameters"]
    assert copy["scanner"] == original["scanner"]
    cts, masks = (
        [voxels(folder / "Task1" / "brain" / e["patient"] / f"{part}.nii.gz") for e in (original, copy)]
        for part in ("ct", "mask")
    )
    np.testing.assert_array_equal(*masks)
    body = (masks[0] > 0) & (cts[0] > -500)  # the air in the mask's margin is quieter
    difference = (cts[0].astype(float) - cts[1])[body]
    assert difference.std() == pytest.approx(np.sqrt(2) * original["scanner"]["ct_noise_hu"], rel=0.05)


def test_tissue_maps_sum_to_one_and_mix_to_the_image(tmp_path: Path) -> None:
    folder = write_brain_phantom(tmp_path, cases=1, size=48, layout="isles", ideal=True, maps=True)
    entry = manifest(folder)["cases"][0]
    assert entry["tissues"] == list(NAMES)
    image = nib.load(folder / "maps" / "training_1-000.nii.gz")
    fractions = np.asarray(image.dataobj)
    assert fractions.shape == (48, 48, 32, len(NAMES))
    np.testing.assert_allclose(fractions.sum(axis=-1), 1, atol=3e-3)
    case = BrainCase(0, 0, Grid(48, 224.0, 32), Shown(stroke=True, chronic=True), ideal=True)
    values = case.signals("t2w")
    mixed = (
        fractions @ np.array([values[name] for name in NAMES]) * case.scanner.contrasts["t2w"].gain / values["white"]
    )
    written = voxels(next(folder.rglob("*MR_T2*.nii")))
    brain = written > 0
    np.testing.assert_allclose(written[brain], mixed[brain], rtol=3e-3, atol=1)


@pytest.mark.parametrize(("options", "depth"), [({"slices": 10}, 10), ({"isotropic": True}, 31)])
def test_other_grids(options: dict[str, Any], depth: int, tmp_path: Path) -> None:
    folder = write_brain_phantom(tmp_path, cases=1, size=48, **options)
    assert folder.name.startswith("brain-brats-r1-s0-n1-p48-")
    image = nib.load(folder / "BraTS-GLI-00000-000" / "BraTS-GLI-00000-000-t1n.nii.gz")
    assert image.shape == (48, 48, depth)
    assert image.header.get_zooms()[2] == pytest.approx(224 / 48 if "isotropic" in options else 4.5, rel=1e-6)


def test_existing_phantom_is_read_again_and_not_rewritten(brats: Path) -> None:
    stamp = (brats / "manifest.json").stat().st_mtime_ns
    assert write_brain_phantom(brats.parent, cases=2, size=64) == brats
    assert (brats / "manifest.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "adni"}, "layout='adni' is unknown; choose one of brats, isles, synthrad"),
        ({"size": 16}, "size=16"),
        ({"slices": 2}, "slices=2"),
        ({"slices": 80}, "slices=80"),
        ({"cases": 0}, "cases=0"),
        ({"fov_mm": 120}, "fov_mm=120"),
        ({"fov_mm": 400}, "fov_mm=400"),
        ({"cases": 2, "duplicates": 9}, "duplicates=9"),
        ({"cases": 2, "duplicates": -1}, "duplicates=-1"),
        ({"seed": -1, "cases": 1}, "seed=-1"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_brain_phantom(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
