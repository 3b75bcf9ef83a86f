"""Laws of the ventricles' geometry, measured on the label voxels."""

import numpy as np
import pytest
from scipy import ndimage

from common.data.phantoms.cardiac import CardiacCase
from common.data.phantoms.cardiac_heart import OUTSIDE, Planes, Profile, radii, relative_depth
from common.data.phantoms.cardiac_parameters import GROUPS, anatomy_stream, draw_parameters

RV, MYOCARDIUM, LV = 1, 2, 3
ONE_OF_EACH = [0, 1, 2, 3, 4]
ALL = [pytest.param(case, marks=pytest.mark.slow) if case > 9 else case for case in range(40)]


def volume_ml(case: CardiacCase, labels: np.ndarray, label: int) -> float:
    pixel = case.centers[1] - case.centers[0]
    return float((labels == label).sum() * pixel**2 * case.parameters.slice_mm / 1000)


def thickness(case: CardiacCase, labels: np.ndarray, sectors: int = 24) -> np.ndarray:
    """Wall thickness (slices, sectors) in mm from the areas of cavity and cavity + muscle in each sector."""
    pixel = case.centers[1] - case.centers[0]
    rows = []
    for z, plane in zip(case.heart.slices_mm, labels, strict=True):
        if (plane == LV).sum() * pixel**2 < 150:
            continue
        center_x, center_y = case.heart.center(np.asarray(z))
        i, j = np.nonzero(plane >= MYOCARDIUM)
        theta = np.arctan2(case.centers[j] - center_y, case.centers[i] - center_x)
        sector = np.floor((theta + np.pi) / (2 * np.pi) * sectors).astype(int) % sectors
        whole = np.bincount(sector, minlength=sectors) * pixel**2
        cavity = np.bincount(sector[plane[i, j] == LV], minlength=sectors) * pixel**2
        rows.append(np.sqrt(whole * sectors / np.pi) - np.sqrt(cavity * sectors / np.pi))
    return np.array(rows)


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize(("size", "points"), [(64, 2.0), (96, 1.0)])
def test_volumes_and_ejection_fractions_of_the_labels_are_those_drawn(case: int, size: int, points: float) -> None:
    heart = CardiacCase(0, case, size)
    p = heart.parameters
    ed, es = heart.labels(0), heart.labels(heart.es_frame)
    lv_ed, lv_es, rv_ed, rv_es = (volume_ml(heart, labels, k) for k in (LV, RV) for labels in (ed, es))
    assert 100 * (1 - lv_es / lv_ed) == pytest.approx(100 * p.lv_ef, abs=points)
    assert 100 * (1 - rv_es / rv_ed) == pytest.approx(100 * p.rv_ef, abs=2.0)
    assert lv_ed == pytest.approx(p.lv_edv_ml, rel=0.02)
    assert rv_ed == pytest.approx(p.rv_edv_ml, rel=0.02)
    assert volume_ml(heart, es, MYOCARDIUM) == pytest.approx(volume_ml(heart, ed, MYOCARDIUM), rel=0.12)


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_muscle_is_incompressible_in_every_direction(case: int) -> None:
    """Area of the wall in a sector times the ventricle's length is constant over the cycle."""
    heart = CardiacCase(0, case).heart
    p = heart.parameters
    theta, u = np.linspace(-3, 3, 31), np.linspace(0.02, 0.98, 17)[:, None]
    content = []
    for s in (0.0, 0.4, 1.0):
        endo, epi = radii(heart, Profile.of(p, theta), u, s)
        assert (epi > endo).all()
        content.append((epi**2 - endo**2) * (p.length_mm - p.descent_mm * s))
    np.testing.assert_allclose(content[1], content[0], rtol=1e-9)
    np.testing.assert_allclose(content[2], content[0], rtol=1e-9)


@pytest.mark.parametrize("case", [*range(5), *(pytest.param(k, marks=pytest.mark.slow) for k in range(5, 40))])
def test_each_group_obeys_its_rules_on_the_labels(case: int) -> None:
    heart = CardiacCase(0, case, 192, 160.0)
    p = heart.parameters
    ed, es = heart.labels(0), heart.labels(heart.es_frame)
    ef = 1 - volume_ml(heart, es, LV) / volume_ml(heart, ed, LV)
    lv_index, rv_index = (volume_ml(heart, ed, k) / p.bsa_m2 for k in (LV, RV))
    wall = thickness(heart, ed)
    if p.group == "NOR":
        assert ef > 0.50
        assert lv_index < 80
        assert wall.max() < 12
    elif p.group == "DCM":
        assert lv_index > 100
        assert ef < 0.40
    elif p.group == "HCM":
        assert wall.max() > 15
        assert ef > 0.55
    elif p.group == "MINF":
        assert ef < 0.40
        thickening = (thickness(heart, es)[:-1].mean(axis=0), wall.mean(axis=0))
        direction = (np.arange(24) + 0.5) / 24 * 2 * np.pi - np.pi
        away = np.abs(np.angle(np.exp(1j * (direction - p.infarct_direction))))
        change = thickening[0] - thickening[1]
        assert change[away < 0.4 * p.infarct_half_width].mean() < change[away > np.pi - 0.6].mean() / 3
    else:
        rv_ef = 1 - volume_ml(heart, es, RV) / volume_ml(heart, ed, RV)
        assert rv_index > 110 or rv_ef < 0.40


def test_groups_follow_each_other() -> None:
    names = [draw_parameters(anatomy_stream(0, case), case).group for case in range(7)]
    assert names == [*(group.name for group in GROUPS), "NOR", "DCM"]


@pytest.mark.parametrize("case", ALL)
def test_topology_of_the_labels(case: int) -> None:
    """Muscle and cavity form one piece without holes per slice, the cavity inside; no label touches the edge."""
    heart = CardiacCase(0, case)
    for frame in (0, heart.es_frame):
        labels = heart.labels(frame)
        assert not labels[:, [0, -1]].any()
        assert not labels[:, :, [0, -1]].any()
        for plane in labels:
            left = plane >= MYOCARDIUM
            assert ndimage.label(left, np.ones((3, 3)))[1] <= 1
            assert (ndimage.binary_fill_holes(left) == left).all()
            around = ndimage.binary_dilation(plane == LV, np.ones((3, 3)))
            assert (plane[around] >= MYOCARDIUM).all()  # the wall closes the cavity everywhere


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_epicardium_encloses_endocardium_and_planes_end_at_base_and_apex(case: int) -> None:
    heart = CardiacCase(0, case)
    planes = Planes(heart.heart, heart.centers, heart.centers, heart.heart.slices_mm)
    for s in (0.0, 0.5, 1.0):
        endo, epi = planes.walls(s)
        assert (epi[endo < 0] < 0).all()
        u = relative_depth(heart.parameters, heart.heart.slices_mm, s)
        np.testing.assert_array_equal((endo < OUTSIDE).any(axis=(1, 2)), (u >= 0) & (u < 1))
    first, last = relative_depth(heart.parameters, heart.heart.slices_mm, 0.0)[[0, -1]]
    assert first < 0
    assert last >= 1


def test_contours_move_smoothly_over_the_cycle() -> None:
    """Volume falls to end-systole and rises after it, as the contraction does."""
    heart = CardiacCase(0, 0)
    planes = Planes(heart.heart, heart.centers, heart.centers, heart.heart.slices_mm)
    inner = slice(4, -2)  # slices that never leave the ventricle
    areas = np.array([(planes.labels(float(s))[inner] == LV).sum() for s in heart.contraction])
    order = np.argsort(heart.contraction)
    assert (np.diff(areas[order]) <= 0).all()


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_labels_do_not_depend_on_the_pixel_grid(case: int) -> None:
    """Pixel (3i + 1, 3j + 1) of 192 has exactly the label of pixel (i, j) of 64."""
    coarse, fine = CardiacCase(0, case, 64, 160.0), CardiacCase(0, case, 192, 160.0)
    for frame in (0, coarse.es_frame):
        np.testing.assert_array_equal(fine.labels(frame)[:, 1::3, 1::3], coarse.labels(frame))
