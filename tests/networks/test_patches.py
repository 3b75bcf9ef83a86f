"""Patches of an image: their order, and that the embedding is a strided convolution."""

import pytest
import torch
from torch.nn import functional as F

from common.networks.blocks.patches import PatchEmbedding, patchify, token_grid, unpatchify


@pytest.mark.parametrize(("size", "patch_size"), [((28, 28), 2), ((28, 28), 7), ((4, 6), 2), ((6, 3), 3), ((5, 2), 1)])
def test_an_image_comes_back_from_its_patches_bit_for_bit(size: tuple[int, int], patch_size: int) -> None:
    z = torch.randn(3, 4, *size, generator=torch.Generator().manual_seed(0))
    patches = patchify(z, patch_size)
    grid = token_grid("test", size, patch_size)
    assert patches.shape == (3, grid[0] * grid[1], 4 * patch_size**2)
    assert torch.equal(unpatchify(patches, patch_size, grid), z)


def test_a_pixel_has_its_place_in_the_token_of_its_patch() -> None:
    """Channel 1, row 3, column 8 of 4x28x28 is (u, v) = (1, 0) in token (1, 4); features run (u, v, channel)."""
    patches = torch.zeros(1, 196, 16)
    patches[0, 1 * 14 + 4, (1 * 2 + 0) * 4 + 1] = 1
    hot = torch.zeros(1, 4, 28, 28)
    hot[0, 1, 3, 8] = 1
    assert torch.equal(unpatchify(patches, 2, (14, 14)), hot)
    assert torch.equal(patchify(hot, 2), patches)


def test_the_embedding_is_a_convolution_with_stride() -> None:
    torch.manual_seed(0)
    layer, image = PatchEmbedding(3, 2, 5), torch.randn(2, 3, 6, 4)
    kernel = layer.linear.weight.unflatten(1, (2, 2, 3)).permute(0, 3, 1, 2)  # (D, C, p, p)
    expected = F.conv2d(image, kernel, layer.linear.bias, stride=2).flatten(2).mT
    torch.testing.assert_close(layer(image), expected)


def test_the_embedding_keeps_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    layer, image = PatchEmbedding(4, 2, 8), torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = layer(image)
    assert torch.equal(tokens, layer(image))


@pytest.mark.parametrize(("size", "patch_size", "grid"), [(28, 2, (14, 14)), ([8, 12], 4, (2, 3)), (6, 6, (1, 1))])
def test_a_grid_counts_patches_along_both_axes(size: int | list[int], patch_size: int, grid: tuple[int, int]) -> None:
    assert token_grid("test", size, patch_size) == grid


@pytest.mark.parametrize(("size", "patch_size"), [((28, 27), 2), ((27, 28), 2), (1, 2), (28, 0)])
def test_a_size_that_does_not_divide_is_refused(size: int | tuple[int, int], patch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"Net: input_size=\d+x\d+ does not divide into patches of .*{patch_size}"):
        token_grid("Net", size, patch_size)
