"""Solids of the head and the painter's list: gradients of length one, exact distances, layers that hide each other."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from common.data.phantoms.brain_scene import Scene
from common.data.phantoms.brain_shapes import capsule, ellipsoid, smooth_max, superellipsoid
from common.data.phantoms.brain_tissues import NAMES

Array = NDArray[np.floating]
AXES = (30.0, 40.0, 22.0)

SOLIDS: dict[str, Callable[..., Array]] = {
    "ellipsoid": lambda x, y, z: ellipsoid(x, y, z, (1, -2, 3), AXES),
    "superellipsoid": lambda x, y, z: superellipsoid(x / AXES[0], y / AXES[1], z / AXES[2], AXES, 2.4),
    "capsule": lambda x, y, z: capsule(x, y, z, (-20, 0, 5), (25, 10, -5), 9, 9),
}


def cube(half: float, step: float) -> tuple[Array, Array, Array]:
    line = np.arange(-half, half + step / 2, step)
    x, y, z = np.meshgrid(line, line, line, indexing="ij")
    return x, y, z


@pytest.mark.parametrize("name", SOLIDS)
def test_gradient_has_length_one_at_the_border(name: str) -> None:
    """Central differences; otherwise edges smear or double when they are painted."""
    x, y, z = cube(48, 3)
    assert SOLIDS[name](x, y, z)[16, 16, 16] < -4  # the middle is deep inside
    phi, h = SOLIDS[name](x, y, z), 1e-4
    shifts = [(h, 0, 0), (0, h, 0), (0, 0, h)]
    f = SOLIDS[name]
    slopes = [(f(x + a, y + b, z + c) - f(x - a, y - b, z - c)) / (2 * h) for a, b, c in shifts]
    length = np.sqrt(sum(slope**2 for slope in slopes))[np.abs(phi) < 0.25]
    assert length.size > 30
    np.testing.assert_allclose(length, 1, atol=0.03)


def test_volume_of_an_ellipsoid_and_of_a_rod() -> None:
    """Voxels inside: 4/3 pi a b c; cylinder plus sphere."""
    x, y, z = (axis + 0.37 for axis in cube(48, 1))  # no voxel on a border
    inside = (ellipsoid(x, y, z, (0, 0, 0), AXES) < 0).sum()
    assert inside == pytest.approx(4 / 3 * np.pi * np.prod(AXES), rel=0.01)
    rod = (capsule(x, y, z, (0, 0, -20), (0, 0, 20), 12, 12) < 0).sum()
    assert rod == pytest.approx(np.pi * 12**2 * 40 + 4 / 3 * np.pi * 12**3, rel=0.01)


def test_a_tapered_rod_has_its_radii_at_its_ends() -> None:
    at = [np.array([value]) for value in (0.0, 0.0, -20.0)]
    assert capsule(*at, (0, 0, -20), (0, 0, 20), 5, 9)[0] == -5
    assert capsule(at[0], at[1], -at[2], (0, 0, -20), (0, 0, 20), 5, 9)[0] == -9


def test_smooth_intersection_is_the_maximum_away_from_the_crease() -> None:
    a, b = np.array([-10.0, 5.0, 1.0]), np.array([2.0, -7.0, 1.0])
    np.testing.assert_allclose(smooth_max(a, b, 4), [2, 5, 2])  # on the crease: width / 4 above


def test_later_layers_hide_earlier_ones() -> None:
    """Two half-spaces painted over each other: labels and fractions of the pixels at and beside the edges."""
    scene = Scene((8, 1, 1), pixel_mm=1.0)
    x = np.arange(8.0)[:, None, None]
    everything = (slice(0, 8), slice(0, 1), slice(0, 1))
    scene.paint(everything, x - 5, "fat")
    scene.paint(everything, x - 2.25, "bone")
    names = [NAMES[k] for k in scene.labels().ravel()]
    assert names == ["bone"] * 3 + ["fat"] * 2 + ["air"] * 3  # a center on the border is outside
    fractions = scene.fractions()
    fat, bone = (fractions[:, 0, 0, NAMES.index(name)] for name in ("fat", "bone"))
    np.testing.assert_allclose(bone, [1, 1, 0.75, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(fat, [0, 0, 0.25, 1, 1, 0.5, 0, 0])
    np.testing.assert_allclose(fractions.sum(axis=-1), 1)
    values = {name: float(index) ** 2 for index, name in enumerate(NAMES)}
    np.testing.assert_allclose(scene.render(values), fractions @ np.array(list(values.values())), rtol=1e-6)


def test_a_shape_painted_in_a_box_stays_in_it() -> None:
    scene = Scene((4, 4, 4), pixel_mm=1.0)
    scene.paint((slice(1, 3), slice(0, 2), slice(2, 4)), np.full((2, 2, 2), -3.0), "csf")
    scene.paint((slice(0, 4), slice(0, 4), slice(0, 4)), np.full((4, 4, 4), 3.0), "fat")  # nowhere
    image = scene.render({name: float(name == "csf") for name in NAMES})
    assert image.sum() == 8
    assert image[1:3, 0:2, 2:4].all()
    assert [layer.tissue for layer in scene.layers] == ["csf"]
