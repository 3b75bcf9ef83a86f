"""Deformations: image and label by one field, amounts within what is stated, the same on any number of processes."""

import math

import pytest
import torch
from torch import Tensor

from common.transforms.deformation import Deformation

SIZE = (40, 56)
STILL = {
    "rotation_prob": 0.0,
    "shift_prob": 0.0,
    "scale_prob": 0.0,
    "elastic_prob": 0.0,
    "crop_prob": 0.0,
    "flip_prob": 0.0,
}


def only(kind: str, **settings: object) -> Deformation:
    """One kind of change, always."""
    return Deformation(**{**STILL, f"{kind}_prob": 1.0, **settings})  # type: ignore[arg-type]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(deformation: Deformation, number: int = 200, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """Where each pixel comes from, in pixels along X, Y from the center: (number, X, Y, 2)."""
    grid = deformation.grid(number, size, generator(seed)).flip(-1)
    return grid * torch.tensor(size) / 2


def still(size: tuple[int, int] = SIZE) -> Tensor:
    """Pixels from the center, (X, Y, 2)."""
    axes = [torch.arange(side) - (side - 1) / 2 for side in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def pair(number: int = 6) -> tuple[Tensor, Tensor]:
    """Images and label maps of noise."""
    return (
        torch.rand(number, 1, *SIZE, generator=generator(1)),
        torch.randint(0, 4, (number, 1, *SIZE), generator=generator(2)),
    )


def everything() -> Deformation:
    return Deformation(crop=0.875, flip_axes=(0, 1))


def test_what_never_happens_changes_nothing() -> None:
    image, label = pair()
    moved, labels = Deformation(crop=0.5, flip_axes=(0, 1), **STILL)(image, label, generator())  # type: ignore[arg-type]
    torch.testing.assert_close(moved, image, atol=1e-4, rtol=0)
    assert torch.equal(labels, label)


def test_image_and_label_come_from_the_same_places() -> None:
    """Images hold the number of their column, label maps too: the nearest pixel is the rounded place."""
    columns = (torch.arange(SIZE[1]) + 1.0).expand(8, 1, *SIZE)
    pictures = torch.cat([columns, torch.ones_like(columns)], dim=1)
    moved, label = everything()(pictures, columns, generator(3))
    image, inside = moved[:, :1], moved[:, 1:] > 1 - 1e-4  # black comes in elsewhere
    off = (image - label).abs()[inside]
    assert inside.float().mean() > 0.5
    assert off.max() < 0.51
    assert off.max() > 0.4  # they are not the same picture


def test_label_maps_keep_their_type_and_gain_no_class() -> None:
    image, label = pair()
    for kind in (torch.int64, torch.uint8, torch.float32):
        moved = everything()(image, (10 * label).to(kind), generator())[1]
        assert moved.dtype == kind
        assert set(moved.unique().tolist()) <= {0, 10, 20, 30}


def test_label_maps_alone_move_as_beside_their_images() -> None:
    image, label = pair()
    together = everything()(image, label, generator(5))[1]
    assert torch.equal(everything().labels(label, generator(5)), together)
    assert not torch.equal(together, label)


def test_rotation_is_rigid_and_uniform_up_to_its_limit() -> None:
    """Oracle: places of a turned grid keep their distance from the center; the angle is that of an axis."""
    moved = places(only("rotation", rotation=20.0), number=500)
    torch.testing.assert_close(moved.norm(dim=-1), still().norm(dim=-1).expand(500, -1, -1), atol=1e-3, rtol=0)
    step = moved[:, -1, 0] - moved[:, 0, 0]  # along X
    angle = torch.rad2deg(torch.atan2(step[:, 1], step[:, 0]))
    assert angle.abs().max() <= 20
    assert angle.std() == pytest.approx(20 / math.sqrt(3), rel=0.1)
    assert abs(float(angle.mean())) < 2


def test_shift_is_a_share_of_each_side() -> None:
    moved = places(only("shift", shift=0.1), number=500) - still()
    torch.testing.assert_close(moved, moved[:, :1, :1].expand_as(moved), atol=1e-3, rtol=0)
    shares = moved[:, 0, 0].abs() / torch.tensor(SIZE)
    assert shares.max() <= 0.1 + 1e-5
    torch.testing.assert_close(shares.mean(0), torch.tensor([0.05, 0.05]), atol=0.006, rtol=0)


def test_scaling_above_one_makes_things_larger() -> None:
    factors = still()[1:, 1:].norm(dim=-1) / places(only("scale", scale=(1.2, 1.5)))[:, 1:, 1:].norm(dim=-1)
    torch.testing.assert_close(factors, factors[:, :1, :1].expand_as(factors), atol=1e-3, rtol=0)
    assert factors.min() + 1e-4 >= 1.2
    assert factors.max() <= 1.5 + 1e-4


def test_a_crop_shows_a_part_of_the_image_and_nothing_else() -> None:
    moved = places(only("crop", crop=0.75))
    step = moved[:, 1:] - moved[:, :-1]
    torch.testing.assert_close(step[..., 0], torch.full_like(step[..., 0], 0.75), atol=1e-3, rtol=0)
    half = torch.tensor(SIZE) / 2
    assert (moved.abs() <= half).all()
    assert (moved.amax(dim=(0, 1, 2)) > half - 1).all()  # and comes near every border
    assert (moved.amin(dim=(0, 1, 2)) < 1 - half).all()


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_flips_turn_the_axes_round(axes: tuple[int, ...]) -> None:
    image, label = pair()
    moved, labels = only("flip", flip_axes=axes)(image, label, generator())
    torch.testing.assert_close(moved, image.flip([axis + 2 for axis in axes]), atol=1e-4, rtol=0)
    assert torch.equal(labels, label.flip([axis + 2 for axis in axes]))


def test_elastic_displacement_stays_within_its_pixels_at_the_control_points() -> None:
    size = (49, 73)  # control points are 24 pixels apart: 3 x 4 of them
    moved = places(only("elastic", elastic=(1.0, 3.0)), size=size, number=200) - still(size)
    at_points = moved[:, ::24, ::24]
    assert at_points.shape[1:] == (3, 4, 2)
    largest = at_points.abs().amax(dim=(1, 2, 3))
    assert largest.max() <= 3 + 1e-3
    assert largest.max() > 2.5
    assert largest.min() > 0.3
    assert at_points.mean().abs() < 0.1
    assert (moved[:, 1:] - moved[:, :-1]).abs().max() < 1  # smooth: nothing folds


def test_a_kind_happens_with_its_probability() -> None:
    moved = places(Deformation(**{**STILL, "shift_prob": 0.3}), number=800) - still()  # type: ignore[arg-type]
    share = (moved.abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean()
    assert float(share) == pytest.approx(0.3, abs=0.06)


def test_the_batches_of_two_processes_are_that_of_one() -> None:
    image, label = pair(6)
    whole = everything()(image, label, generator(7))
    for rank in range(2):
        part = everything()(image[rank::2], label[rank::2], generator(7), rank, 2)
        for ours, theirs in zip(part, whole, strict=True):
            assert torch.equal(ours, theirs[rank::2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation": -1.0}, "rotation=-1.0"),
        ({"shift": 1.0}, "shift=1.0"),
        ({"spacing": 0.0}, "spacing=0.0"),
        ({"crop": 1.2}, "crop=1.2"),
        ({"scale": (1.1, 0.9)}, "scale=.* rising"),
        ({"elastic": (3.0, 1.0)}, "elastic=.* rising"),
        ({"flip_axes": (2,)}, "flip_axes"),
        ({"shift_prob": 1.5}, "probabilities"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deformation(**settings)
