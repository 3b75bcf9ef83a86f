"""The whole-heart phantom: anatomy by the places of its labels, values of its tissues, files in the MM-WHS layout."""

import json
import math
from dataclasses import asdict
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Orientation
from numpy.typing import NDArray
from scipy import ndimage

from common.data.cases import find_cases
from common.data.phantoms.cardiac_heart import Profile, solve
from common.data.phantoms.signal import TISSUES_1T5, bssfp_on_resonance
from common.data.phantoms.whole_heart import WholeHeartCase, write_whole_heart_phantom
from common.data.phantoms.whole_heart_anatomy import Anatomy, ventricles
from common.data.phantoms.whole_heart_parameters import (
    MODALITIES,
    anatomy_stream,
    draw_whole_heart,
    draw_whole_heart_scanner,
    scanner_stream,
)
from common.data.phantoms.whole_heart_space import Frame, WholeHeartGrid
from common.data.readers.mmwhs import STRUCTURES
from common.transforms.loading import LoadVolume

GRID = WholeHeartGrid(64, 180.0, 40)
STORED = json.loads((Path(__file__).parent / "drawn_whole_heart_scalars.json").read_text())


@cache
def chest(number: int, modality: str = "ct", ideal: bool = False) -> WholeHeartCase:
    return WholeHeartCase(0, number, modality, GRID, ideal=ideal)


def center(case: WholeHeartCase, name: str) -> NDArray[np.float64]:
    """Middle of a structure in mm to the left, to the back and upwards."""
    index = np.argwhere(case.labels() == STRUCTURES[name]).mean(axis=0)
    return index * [GRID.pixel_mm, GRID.pixel_mm, GRID.slice_mm]


CASES = [(number, modality) for number in (0, 1, 2) for modality in MODALITIES]


@pytest.mark.parametrize(("number", "modality"), CASES)
def test_the_chambers_and_vessels_lie_as_in_a_chest(number: int, modality: str) -> None:
    """Heart's apex points to the left and the front, the left atrium is the hindmost chamber, and so on."""
    case = chest(number, modality)
    place = {name: center(case, name) for name in STRUCTURES}
    left, back, up = 0, 1, 2
    assert place["left ventricle"][left] > place["right ventricle"][left] + 15
    assert place["right ventricle"][back] < place["left ventricle"][back] - 5
    assert place["left atrium"][back] == max(middle[back] for middle in place.values())
    assert place["right atrium"][left] == min(middle[left] for middle in place.values())
    for vessel in ("ascending aorta", "pulmonary artery"):
        assert place[vessel][up] > max(place[name][up] for name in list(STRUCTURES)[:5]) + 10
    assert place["pulmonary artery"][left] > place["ascending aorta"][left] + 5
    assert np.abs(place["myocardium"] - place["left ventricle"]).max() < 15


@pytest.mark.parametrize(("number", "modality"), CASES)
def test_every_structure_is_one_piece_of_a_plausible_size(number: int, modality: str) -> None:
    voxel_ml = GRID.pixel_mm**2 * GRID.slice_mm / 1000
    limits = {
        "left ventricle": (60, 300), "right ventricle": (60, 350), "left atrium": (25, 180), "right atrium": (25, 180),
        "myocardium": (60, 300), "ascending aorta": (20, 90), "pulmonary artery": (10, 80),
    }  # fmt: skip
    labels = chest(number, modality).labels()
    assert set(np.unique(labels)) == {0, *STRUCTURES.values()}
    for name, (low, high) in limits.items():
        mask = labels == STRUCTURES[name]
        assert low < mask.sum() * voxel_ml < high, name
        parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.max() > 0.95 * sizes.sum(), (name, count)


@pytest.mark.parametrize("number", [0, 1])
def test_the_left_ventricle_is_enclosed_by_its_wall_the_atrium_and_the_aorta(number: int) -> None:
    """Of the voxels that touch the cavity's sides, hardly any is neither wall, valve nor a neighboring cavity."""
    labels = chest(number).labels()
    cavity = labels == STRUCTURES["left ventricle"]
    touching = labels[ndimage.binary_dilation(cavity) & ~cavity]
    share = {name: (touching == value).mean() for name, value in STRUCTURES.items()}
    assert share["myocardium"] > 0.6
    assert share["right ventricle"] + share["right atrium"] < 0.01  # the septum between them is thin at the valves
    assert share["left atrium"] > 0.02
    assert (touching == 0).mean() < 0.25  # valve rings and walls of vessels bear no label


@pytest.mark.parametrize("number", [0, 1, 2], ids=["normal", "thick wall", "infarct"])
def test_the_left_cavity_has_the_volume_of_its_closed_form(number: int) -> None:
    """``pi R0^2 L (1 - 1/3.4) mean(shape^2)``, from ``r = R0 sqrt(1 - u^2.4) shape``; rounding costs little."""
    p = draw_whole_heart(anatomy_stream(5, number, "ct"), number).ventricles
    heart = solve(p)
    step = 1.6
    x = np.arange(-50, 50, step)[:, None, None]
    z = np.arange(step / 2, p.length_mm + 3, step)[None, None, :]
    cavity, wall, _ = ventricles(heart, x, x.transpose(1, 0, 2), z)
    shape = Profile.of(p, np.linspace(-math.pi, math.pi, 720, endpoint=False)).shape
    expected = math.pi * heart.radius_mm**2 * p.length_mm * (1 - 1 / 3.4) * (shape**2).mean()
    assert (cavity < 0).sum() * step**3 == pytest.approx(expected, rel=0.03)
    assert not ((cavity < 0) & (wall >= 0)).any()


def test_the_axes_of_the_heart_are_orthonormal_and_point_as_they_should() -> None:
    frame = Frame.of(draw_whole_heart(anatomy_stream(0, 0, "ct"), 0))
    basis = np.array([frame.axis, frame.right, frame.down])
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)
    assert frame.axis[0] > 0.4
    assert frame.axis[1] < -0.4
    assert frame.axis[2] < -0.3
    assert frame.right[0] < -0.5
    assert frame.down[2] < -0.7
    np.testing.assert_allclose(frame.coordinates(*np.array(frame.place(3.0, -5.0, 7.0))), (5.0, 7.0, 3.0), atol=1e-12)


def test_fine_and_coarse_grids_show_the_same_anatomy() -> None:
    """Pixel (3i+1, 3j+1) and slice 3k+1 of a grid three times as fine have the label of (i, j, k), exactly."""
    coarse = WholeHeartCase(3, 1, "mr", WholeHeartGrid(32, 180.0, 8)).labels()
    fine = WholeHeartCase(3, 1, "mr", WholeHeartGrid(96, 180.0, 24)).labels()
    np.testing.assert_array_equal(fine[1::3, 1::3, 1::3], coarse)


def interior(case: WholeHeartCase, name: str) -> NDArray[np.bool_]:
    return ndimage.binary_erosion(case.labels() == STRUCTURES[name], np.ones((3, 3, 3)), iterations=1)


def test_pure_voxels_of_ct_hold_the_hounsfield_units_of_their_tissue() -> None:
    case = chest(1, "ct", ideal=True)
    image, added = case.image(), 320 * case.scanner.enhancement
    expected = {
        "left atrium": 45 + added, "ascending aorta": 45 + added, "pulmonary artery": 45 + 0.82 * added,
        "right atrium": 45 + case.scanner.right_side * added, "myocardium": 115,
    }  # fmt: skip
    for name, value in expected.items():
        values = image[interior(case, name)]
        assert (values == round(value)).mean() > 0.9, name
    assert image.min() == -1000
    assert -850 in image  # lung
    assert image.max() <= max(420, round(45 + added))


def test_pure_voxels_of_mr_have_the_ratios_of_the_signal_equation() -> None:
    case = chest(1, "mr", ideal=True)
    image = case.image()
    blood = round(case.scanner.gain)
    for name in ("left atrium", "right atrium", "ascending aorta", "pulmonary artery"):
        assert np.median(image[interior(case, name)]) == blood
    ratio = bssfp_on_resonance(TISSUES_1T5["myocardium"]) / bssfp_on_resonance(TISSUES_1T5["blood"])
    assert np.median(image[interior(case, "myocardium")]) == round(ratio * case.scanner.gain)


def test_the_noise_of_ct_has_the_drawn_deviation_and_no_bias() -> None:
    noisy, plain = chest(1), chest(1, "ct", ideal=True)
    where = interior(plain, "myocardium") & (plain.image() == 115)
    values = noisy.image()[where].astype(float)
    assert len(values) > 300
    assert values.mean() == pytest.approx(115, abs=4 * noisy.scanner.noise_hu / math.sqrt(len(values) / 4))
    assert values.std() == pytest.approx(noisy.scanner.noise_hu, rel=0.1)


@pytest.mark.parametrize("modality", MODALITIES)
def test_air_blood_and_muscle_can_be_told_apart(modality: str) -> None:
    """What a radiologist sees first: bright blood, darker muscle, black lung; and bright bone in CT only."""
    case = chest(1, modality)
    image, labels = case.image().astype(float), case.labels()
    blood, muscle = np.median(image[labels == 500]), np.median(image[labels == 205])
    lung = np.percentile(image, 10)
    assert blood - muscle > 3 * image[interior(case, "myocardium")].std()
    assert (muscle - lung) / (blood - lung) > 0.1


def test_the_files_are_those_of_mmwhs_and_read_as_such(tmp_path: Path) -> None:
    options = {"cases": 2, "size": 48, "slices": 12, "seed": 3}
    found = find_cases("whole_heart_phantom_mr", tmp_path, **options)
    assert [case["case"] for case in found] == ["mr_train_1001", "mr_train_1002"]
    for case in found:
        image, label = nib.load(case["image"]), nib.load(case["label"])
        assert image.get_data_dtype() == label.get_data_dtype() == np.int16
        assert image.shape == label.shape == (48, 48, 12)
        np.testing.assert_allclose(image.header.get_zooms(), (180 / 48, 180 / 48, 12))
        np.testing.assert_array_equal(image.affine, label.affine)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(image.affine @ [23.5, 23.5, 5.5, 1], [0, 0, 0, 1], atol=1e-9)
    turned = Orientation(axcodes="RAS", labels=None)(LoadVolume()(found[0]["label"]))[0].numpy()
    assert np.argwhere(turned == 550)[:, 0].mean() > np.argwhere(turned == 500)[:, 0].mean()  # right is to the right
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert find_cases("whole_heart_phantom_mr", tmp_path, **options) == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == written


def test_a_case_is_the_same_in_every_set(tmp_path: Path) -> None:
    """Case 1 of 2, of 5 (written by several processes) and alone."""
    hashes = []
    for cases in (2, 5):
        folder = write_whole_heart_phantom(tmp_path, modality="ct", cases=cases, size=32, slices=8)
        hashes.append(json.loads((folder / "manifest.json").read_text())["cases"][1]["hashes"])
    assert hashes[0] == hashes[1]
    image = np.asarray(nib.load(folder / "ct_train" / "ct_train_1002_image.nii.gz").dataobj)
    np.testing.assert_array_equal(image, WholeHeartCase(0, 1, "ct", WholeHeartGrid(32, 180.0, 8)).image())


def test_ct_and_mr_show_different_people() -> None:
    ct, mr = (draw_whole_heart(anatomy_stream(0, 0, modality), 0) for modality in MODALITIES)
    assert ct.ventricles.height_cm != mr.ventricles.height_cm


@pytest.mark.parametrize(("number", "modality"), [(k, modality) for modality in MODALITIES for k in (0, 1, 2)])
def test_drawn_scalars_never_change(number: int, modality: str) -> None:
    """All 17 digits, as stored: old cases must stay as they are when the generator grows."""
    stored = STORED[modality][number]
    assert (
        json.loads(json.dumps(asdict(draw_whole_heart(anatomy_stream(0, number, modality), number))))
        == (stored["parameters"])
    )
    assert asdict(draw_whole_heart_scanner(scanner_stream(0, number, modality))) == stored["scanner"]


def test_the_ventricles_fill_the_stack_whatever_their_size() -> None:
    """Front, floor and sides of the heart stay inside the default field of view for a dozen people."""
    for number in range(12):
        anatomy = Anatomy.of(draw_whole_heart(anatomy_stream(1, number, "mr"), number))
        low, high = (np.array(corner) + anatomy.origin for corner in (anatomy.low, anatomy.high))
        assert (low > (-90, -90, -78)).all(), number
        assert (high < (90, 90, 72)).all(), number


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "us"}, "modality='us'; choose one of ct, mr"),
        ({"cases": 0}, "cases=0 must lie in 1..999"),
        ({"size": 16}, "size=16 px cannot show a heart"),
        ({"slices": 4}, "slices=4 must lie in 8..160"),
        ({"fov_mm": 400}, "fov_mm=400 must lie in 150..260"),
    ],
)
def test_impossible_phantoms_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_whole_heart_phantom(tmp_path, **{"modality": "ct", **arguments})
    assert not list(tmp_path.iterdir())
