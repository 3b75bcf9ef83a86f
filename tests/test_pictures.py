"""Pictures show the images where, and as, they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.cropping import center_crop, crop_at
from common.pictures import evenly_spaced, heat_colors, image_grid, radiological, save_png


def test_grid_shows_x_to_the_right() -> None:
    images = torch.zeros(3, 1, 4, 2)  # X = 4, Y = 2
    images[1, 0, 3, 0] = 1.0  # right end of the upper row
    picture = image_grid(images, columns=2, gap=1)
    assert picture.shape == (2 * 3 + 1, 2 * 5 + 1, 3)
    bright = np.argwhere(picture[..., 0] == 255)
    assert bright.tolist() == [[1, 6 + 3]]  # second tile starts in column 6


def test_grid_clips_scales_and_takes_color() -> None:
    red = torch.tensor([2.0, -1.0, 0.5]).reshape(1, 3, 1, 1)
    picture = image_grid(red, gap=0, scale=3)
    assert picture.shape == (3, 3, 3)
    assert picture[0, 0].tolist() == [255, 0, 128]
    with pytest.raises(ValueError, match="2 channels"):
        image_grid(torch.zeros(1, 2, 4, 4))


def test_slices_of_ras_volumes_are_drawn_nose_up_and_with_the_patients_left_at_the_right() -> None:
    images = torch.zeros(1, 1, 4, 3)
    images[0, 0, 0, 2] = 1.0  # left end of the patient, front
    picture = image_grid(radiological(images), gap=0)[..., 0]
    assert np.argwhere(picture == 255).tolist() == [[0, 3]]  # upper right corner


def test_heat_goes_from_black_over_red_and_yellow_to_white() -> None:
    values = torch.tensor([0.0, 1 / 6, 1 / 3, 2 / 3, 1.0, 1.5]).reshape(6, 1, 1, 1)
    expected = [[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]
    torch.testing.assert_close(heat_colors(values).flatten(1), torch.tensor(expected))


def test_heat_is_brighter_where_values_are_larger() -> None:
    brightness = heat_colors(torch.linspace(0, 1, 50).reshape(1, 1, 50, 1)).sum(1).flatten()
    assert (brightness.diff() > 0).all()


def test_png_holds_the_picture(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    save_png(picture, tmp_path / "a" / "grid.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "grid.png")), picture)


def test_evenly_spaced_indices() -> None:
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(3, 8) == [0, 1, 2]


def test_crops() -> None:
    images = torch.arange(2 * 30.0).reshape(2, 1, 5, 6)
    assert torch.equal(center_crop(images, (3, 4)), images[..., 1:4, 1:5])
    cut = crop_at(images, (2, 3), torch.tensor([[0, 3], [3, 1]]))
    assert torch.equal(cut[0], images[0, :, 0:2, 3:6])
    assert torch.equal(cut[1], images[1, :, 3:5, 1:4])
    with pytest.raises(ValueError, match="hold no"):
        center_crop(images, (6, 6))
