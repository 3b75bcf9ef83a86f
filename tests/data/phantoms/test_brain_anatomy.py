"""Anatomy of the head: what lies in what, volumes, and independence of the voxel grid."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from common.data.phantoms.brain_face import GLOBE, GLOBE_MM
from common.data.phantoms.brain_fields import AnatomyFields
from common.data.phantoms.brain_image import BrainCase
from common.data.phantoms.brain_lesions import Shown
from common.data.phantoms.brain_parameters import anatomy_stream, draw_parameters
from common.data.phantoms.brain_space import Grid, Head
from common.data.phantoms.brain_tissues import NAMES

SLOW = [pytest.param(k, marks=pytest.mark.slow) for k in range(2, 8)]
GLIOMA, STROKE = Shown(glioma=True), Shown(stroke=True, chronic=True)


def brain_case(case: int, shown: Shown, size: int = 96) -> BrainCase:
    return BrainCase(0, case, Grid(size, 224.0, 32), shown)


def milliliters(case: BrainCase, *tissues: str) -> float:
    return float(case.label_of(*tissues).sum()) * case.grid.pixel_mm**2 * case.grid.slice_mm / 1000


@pytest.mark.parametrize("case", [0, 1, *SLOW])
@pytest.mark.parametrize("size", [64, 96])
def test_core_is_enclosed_by_tumor_and_tumor_by_brain_and_brain_by_head(case: int, size: int) -> None:
    """No core voxel touches anything but tumor through one of its six faces."""
    head = brain_case(case, GLIOMA, size)
    core, tumor = head.label_of("core"), head.label_of("core", "enhancing")
    assert core.sum() > 20
    assert not (binary_dilation(core) & ~tumor).any()
    assert not (head.label_of("core", "enhancing", "edema") & ~head.brain_mask()).any()
    assert not (head.brain_mask() & ~head.body_mask()).any()
    assert not (head.label_of(*NAMES[1:]) & ~head.body_mask()).any()


@pytest.mark.parametrize("case", [0, 1, *SLOW])
def test_stroke_and_old_lesions_lie_in_the_brain(case: int) -> None:
    head = brain_case(case, STROKE)
    assert not (head.label_of("stroke", "chronic") & ~head.brain_mask()).any()
    assert 5 < milliliters(head, "stroke") < 150
    assert 0.3 < milliliters(head, "chronic") < 15
    assert milliliters(head, "core", "enhancing", "edema") == 0


def test_lesions_change_nothing_outside_themselves() -> None:
    """A head with and without its glioma differs in lesion voxels only."""
    with_tumor, without = brain_case(1, GLIOMA).labels(), brain_case(1, Shown()).labels()
    lesion = np.isin(with_tumor, [NAMES.index(name) for name in ("core", "enhancing", "edema")])
    np.testing.assert_array_equal(with_tumor != without, lesion)


def test_a_tumor_grows_from_one_visit_to_the_next() -> None:
    grid = Grid(96, 224.0, 32)
    first, second = (BrainCase(0, 0, grid, GLIOMA, visit=visit) for visit in (0, 1))
    tumor = [case.label_of("core", "enhancing") for case in (first, second)]
    assert 1.1 < second.shown.growth < 1.3
    assert 1.15 * tumor[0].sum() < tumor[1].sum() < 1.5 * 1.3**3 * tumor[0].sum()
    assert (tumor[0] & ~tumor[1]).sum() < 0.02 * tumor[0].sum()
    np.testing.assert_array_equal(first.brain_mask(), second.brain_mask())


@pytest.mark.parametrize("case", [0, *SLOW[:2]])
def test_globes_lie_in_orbits(case: int) -> None:
    """Both eyes: one piece of vitreous each, within 12 mm of the center; only what fills the orbit touches it."""
    head = brain_case(case, Shown(), 128)
    globes, count = label(head.label_of("vitreous", "lens"), np.ones((3, 3, 3)))
    assert count == 2
    whole = head.head.whole
    for side in (-1, 1):
        inside = np.sqrt((whole.x - side * GLOBE[0]) ** 2 + (whole.y - GLOBE[1]) ** 2 + (whole.z - GLOBE[2]) ** 2)
        eye = globes == globes[np.unravel_index(np.argmin(inside), inside.shape)]
        assert eye.any()
        assert inside[eye].max() < GLOBE_MM
        touched = binary_dilation(eye) & (head.cranium.outline < 0)
        assert head.label_of("skin", "fat", "muscle", "csf", "white", "vitreous", "lens")[touched].all()


def test_head_is_layered_from_the_inside_out() -> None:
    """From the middle of the brain to the left: white matter or nuclei, cortex, fluid, dura, bone, soft tissue, air."""
    head = brain_case(3, Shown(), 128)
    labels = head.labels()
    order = ["cortex", "csf", "bone", "marrow", "fat", "skin", "air"]
    for z in (20, 22, 24):
        line = labels[::-1, 64, z][64:]
        last = [np.flatnonzero(line == NAMES.index(name)).max() for name in order]
        assert last == sorted(last) or last[2] > last[3]  # the outer table of bone lies over the marrow
        assert last.index(max(last)) == order.index("air")
        assert np.all(np.diff([last[0], last[1], last[2], last[4], last[5]]) > 0)


@pytest.mark.parametrize("shown", [GLIOMA, pytest.param(STROKE, marks=pytest.mark.slow)], ids=["glioma", "stroke"])
def test_the_same_head_on_coarse_and_fine_pixels(shown: Shown) -> None:
    """Pixel (3i+1, 3j+1) of 192 is pixel (i, j) of 64; only the core's border depends on the pixels, by design."""
    coarse, fine = (brain_case(2, shown, size).labels() for size in (64, 192))
    for labels in (coarse, fine):
        labels[labels == NAMES.index("core")] = NAMES.index("enhancing")
    np.testing.assert_array_equal(coarse, fine[1::3, 1::3])


@pytest.mark.slow
def test_isotropic_voxels_cover_the_same_head() -> None:
    """Tissue volumes agree within 3 % and the middle of every thick slice shows the same brain."""
    thick = BrainCase(0, 4, Grid(128, 224.0, 32), Shown())
    thin = BrainCase(0, 4, Grid(128, 224.0, 32, isotropic=True), Shown())
    assert thin.grid.shape == (128, 128, round(32 * 4.5 / 1.75))
    for tissue in ("cortex", "white", "bone", "fat"):
        assert milliliters(thin, tissue) == pytest.approx(milliliters(thick, tissue), rel=0.03), tissue


@pytest.mark.slow
def test_volumes_of_brains() -> None:
    """Means over eight heads: skull's inside about 1500 mL, grey matter above white matter, fluid in between."""
    heads = [brain_case(case, Shown()) for case in range(8)]
    voxel = heads[0].grid.pixel_mm ** 2 * heads[0].grid.slice_mm / 1000
    inner = [float((head.cranium.inner < 0).sum()) * voxel for head in heads]
    assert min(inner) > 1250
    assert max(inner) < 1850
    assert 1400 < np.mean(inner) < 1650
    assert 550 < np.mean([milliliters(head, "cortex") for head in heads]) < 780
    assert 440 < np.mean([milliliters(head, "white") for head in heads]) < 640


def test_regions_hold_all_points_that_they_were_asked_for() -> None:
    parameters, grid = draw_parameters(anatomy_stream(0, 5)), Grid(64, 224.0, 32)
    stream = anatomy_stream(0, 5)
    draw_parameters(stream)
    head = Head(parameters, AnatomyFields.draw(stream), grid)
    low, high = (10, -30, -20), (42, 5, 15)
    part = head.region(low, high)
    whole = head.whole
    wanted = np.ones(grid.shape, dtype=bool)
    for axis, a, b in zip(whole.points, low, high, strict=True):
        wanted &= (axis >= a) & (axis <= b)
    outside = wanted.copy()
    outside[part.box] = False
    assert wanted.sum() > 100
    assert not outside.any()
    assert part.x.size < 0.2 * whole.x.size
    assert head.region((500, 0, 0), (510, 1, 1)).x.size == 0


def test_patient_space_is_undone_by_shift_scale_and_rotation() -> None:
    """Without warp, voxels keep their distances up to the drawn scales: the pose is a rigid motion."""
    parameters, grid = draw_parameters(anatomy_stream(0, 1)), Grid(64, 224.0, 32)
    stream = anatomy_stream(0, 1)
    draw_parameters(stream)
    whole = Head(parameters, AnatomyFields.draw(stream), grid).whole
    found = [axis * scale for axis, scale in zip(whole.points, parameters.scale, strict=True)]
    corner, other = (20, 20, 8), (44, 40, 24)
    distance = np.sqrt(sum((axis[corner] - axis[other]) ** 2 for axis in found))
    truth = np.sqrt(sum((axis[i] - axis[j]) ** 2 for axis, i, j in zip(grid.axes, corner, other, strict=True)))
    assert distance == pytest.approx(truth, rel=0.2)
    assert distance != pytest.approx(truth, rel=1e-4)  # the warp
