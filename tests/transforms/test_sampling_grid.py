"""Grids put every pixel where the map says; poses are tested with ``change_pose``, which is made of them."""

import torch

from common.transforms.sampling_grid import sample, sampling_grid


def scan(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_the_identity_leaves_images_as_they_are() -> None:
    image = scan(2, 3, 5, 8)
    grid = sampling_grid(torch.eye(2, 3).expand(2, 2, 3), (5, 8))
    torch.testing.assert_close(sample(image, grid), image, atol=1e-5, rtol=0)
    assert torch.equal(sample(image, grid, nearest=True), image)


def test_the_first_row_of_the_map_is_axis_x() -> None:
    image = scan(1, 1, 5, 8)
    flipped_x = sampling_grid(torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), (5, 8))
    torch.testing.assert_close(sample(image, flipped_x), image.flip(2), atol=1e-5, rtol=0)


def test_types_stay_and_zero_comes_in_from_outside() -> None:
    label = torch.full((1, 1, 4, 4), 3, dtype=torch.int64)
    moved = sampling_grid(torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]), (4, 4))  # by half of the side along x
    result = sample(label, moved, nearest=True)
    assert result.dtype == torch.int64
    assert result[0, 0, :, 0].tolist() == [3, 3, 0, 0]
