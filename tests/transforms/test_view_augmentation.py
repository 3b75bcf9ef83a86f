"""Views of a slice: poses by geometry, fields and levels within what is stated, background untouched."""

import math

import pytest
import torch
from torch import Tensor

from common.transforms.view_augmentation import MAX_SHIFT, augment_view, change_pose, smooth_field


def blob(size: tuple[int, int], center: tuple[float, float], width: float = 3.0) -> Tensor:
    """(1, 1, X, Y) Gaussian; centers of pixels are whole numbers."""
    x, y = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in size), indexing="ij")
    return torch.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * width**2))[None, None]


def center_of_mass(image: Tensor) -> Tensor:
    """(2,) along X and Y, in pixels from the middle of the image."""
    sums = [image[0, 0].sum(1), image[0, 0].sum(0)]
    return torch.stack([(one * (torch.arange(len(one)) - (len(one) - 1) / 2)).sum() / one.sum() for one in sums])


def pose(image: Tensor, rotation: float = 0.0, scaling: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    return change_pose(image, torch.tensor([rotation]), torch.tensor([scaling]), torch.tensor([shift]))


def test_no_change_of_pose_changes_nothing() -> None:
    image = torch.rand(1, 1, 12, 17, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pose(image), image, atol=1e-5, rtol=0)


def test_a_shift_by_whole_pixels_moves_them() -> None:
    image = torch.rand(1, 1, 10, 16, generator=torch.Generator().manual_seed(0))
    moved = pose(image, shift=(3 / 10, -2 / 16))
    torch.testing.assert_close(moved[..., 3:, :-2], image[..., :-3, 2:], atol=1e-5, rtol=0)
    assert moved[..., :3, :].abs().max() < 1e-5
    assert moved[..., -2:].abs().max() < 1e-5


def test_a_quarter_turn_goes_from_x_to_y() -> None:
    image = torch.rand(1, 1, 11, 11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pose(image, math.pi / 2), image.rot90(1, (2, 3)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(48, 48), (40, 64)], ids=["square", "oblong"])
def test_rotation_and_scaling_act_on_places_in_pixels_then_the_shift(size: tuple[int, int]) -> None:
    """Oracle: center + s R (place - center) + shift, in an image that is not square as well."""
    middle = torch.tensor([(side - 1) / 2 for side in size])
    place = torch.tensor([4.0, -3.0])
    image = blob(size, tuple((middle + place).tolist()), width=2.5)
    angle, scaling, shift = 0.3, 1.2, torch.tensor([2.0, 3.0])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    view = pose(image, angle, scaling, tuple((shift / torch.tensor(size)).tolist()))
    torch.testing.assert_close(center_of_mass(view), scaling * (turn @ place) + shift, atol=0.02, rtol=0)
    torch.testing.assert_close(view.sum(), scaling**2 * image.sum(), rtol=0.01, atol=0)  # area


def test_every_image_of_a_batch_has_its_own_pose() -> None:
    image = blob((32, 32), (15.5, 15.5)).expand(2, -1, -1, -1)
    views = change_pose(image, torch.zeros(2), torch.ones(2), torch.tensor([[0.1, 0.0], [0.0, -0.1]]))
    centers = torch.stack([center_of_mass(view[None]) for view in views])
    torch.testing.assert_close(centers, torch.tensor([[3.2, 0.0], [0.0, -3.2]]), atol=0.01, rtol=0)


def test_a_field_is_its_cosines_and_reaches_its_strength() -> None:
    weights = torch.zeros(2, 3, 3)
    weights[:, 0, 0] = 9.0  # brightness as a whole: of no effect
    weights[0, 1, 0] = -0.5
    weights[1, 1, 2] = 2.0
    field = smooth_field(weights, (40, 60), torch.tensor([0.15, 0.1]))
    x, y = ((torch.arange(side) + 0.5) / side for side in (40, 60))
    ramp = -torch.cos(math.pi * x)[:, None].expand(-1, 60)
    wave = torch.cos(math.pi * x)[:, None] * torch.cos(2 * math.pi * y)
    torch.testing.assert_close(field[0, 0], 1 + 0.15 * ramp / ramp.max(), atol=1e-5, rtol=0)
    torch.testing.assert_close(field[1, 0], 1 + 0.1 * wave / wave.abs().max(), atol=1e-5, rtol=0)


def test_a_field_without_waves_is_1() -> None:
    assert (smooth_field(torch.zeros(1, 3, 3), (8, 8), torch.tensor([0.15])) == 1).all()


def views_of(brightness: Tensor, number: int = 200, seed: int = 0) -> Tensor:
    """(number, 1, X, Y) views of one image, in brightness."""
    images = (2 * brightness - 1).expand(number, -1, -1, -1)
    return (augment_view(images, torch.Generator().manual_seed(seed)) + 1) / 2


def test_places_move_by_the_stated_amounts() -> None:
    """In the middle only the shift moves (2 of 112 pixels); 24 pixels away, 5 degrees and 4 % add up to 2.1 and 1."""
    size = (112, 112)
    middle = torch.stack([center_of_mass(view[None] ** 4) for view in views_of(blob(size, (55.5, 55.5), 4))])
    assert 0.8 * 2 < middle.abs().max() < 2 + 0.3
    assert middle.mean(0).abs().max() < 0.25
    away = torch.stack([center_of_mass(view[None] ** 4) for view in views_of(blob(size, (79.5, 55.5), 4))])
    moved = away - torch.tensor([24.0, 0.0])
    assert 2 + 0.2 < moved[:, 0].abs().max() < 2 + 1 + 0.3
    assert 2 + 0.8 < moved[:, 1].abs().max() < 2 + 2.1 + 0.3


def test_shifts_scale_with_the_image() -> None:
    middle = torch.stack([center_of_mass(view[None] ** 4) for view in views_of(blob((56, 56), (27.5, 27.5), 3))])
    assert 0.7 < middle.abs().max() < 56 * MAX_SHIFT + 0.3


def test_levels_change_by_gamma_field_and_noise_within_their_bounds() -> None:
    """An even image of brightness 0.5: the mean of a view tells gamma, its rows the field, its pixels the noise."""
    views = views_of(torch.full((1, 1, 64, 64), 0.5))[:, 0, 8:-8, 8:-8]  # off the borders that come in
    gammas = views.mean(dim=(1, 2)).log() / math.log(0.5)
    assert 0.7 - 0.23 < gammas.min() < 0.8
    assert 1.4 < gammas.max() < 1.5 + 0.23  # a field of 15 % is 0.23 in gamma
    noise = (views[:, 1:] - views[:, :-1]).std(dim=(1, 2)) / math.sqrt(2)
    assert noise.min() < 0.005
    assert 0.045 < noise.max() < 0.053
    quiet = views[noise < 0.01] / 0.5 ** gammas[noise < 0.01].reshape(-1, 1, 1)
    spread = quiet.amax(dim=(1, 2)) - quiet.amin(dim=(1, 2))
    assert 0.1 < spread.max() < 2 * 0.15 / 0.85 + 0.1


def test_background_stays_black_and_nothing_leaves_the_range() -> None:
    image = blob((64, 64), (31.5, 31.5), 4)
    image = torch.where(image > 0.01, 0.2 + 0.8 * image, torch.zeros(()))
    views = 2 * views_of(image, 50) - 1
    assert views.shape == (50, 1, 64, 64)
    assert (views[:, :, :8] == -1).all()
    assert (views[..., -8:] == -1).all()
    assert views.min() == -1
    assert 0.5 < views.max() <= 1
    assert len({float(view.sum()) for view in views}) == 50


def test_views_are_a_function_of_the_generator() -> None:
    image = blob((32, 32), (15.5, 15.5))
    assert torch.equal(views_of(image, 3, seed=4), views_of(image, 3, seed=4))
    assert not torch.equal(views_of(image, 3, seed=4), views_of(image, 3, seed=5))
