"""Window attention against explicit loops over windows and pixels."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from common.networks.blocks.swin import SwinBlock, SwinLayer, WindowAttention, fits_windows, from_windows, to_windows


def scattered(module: nn.Module) -> nn.Module:
    """Parameters far from their start, so that nothing is accidentally zero or one."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def without_norms(block: SwinBlock) -> SwinBlock:
    """Group norms see the whole image; without them a pixel's influence is that of the windows."""
    block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    return block


def attended_rectangle(layer: WindowAttention, pixels: Tensor, window: tuple[int, int]) -> Tensor:
    """Attention among the pixels ``(h, w, C)`` of one rectangle, pair by pair."""
    h, w, channels = pixels.shape
    tokens = pixels.reshape(-1, channels)
    q, k, v = (tokens @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, dim=-1)
    places = [(row, column) for row in range(h) for column in range(w)]
    numbers = [
        [(a[0] - b[0] + window[0] - 1) * (2 * window[1] - 1) + a[1] - b[1] + window[1] - 1 for b in places]
        for a in places
    ]
    heads = []
    for head in range(channels // layer.head_channels):
        of_head = slice(head * layer.head_channels, (head + 1) * layer.head_channels)
        scores = q[:, of_head] @ k[:, of_head].T / math.sqrt(layer.head_channels)
        scores = scores + layer.position_scores[head][torch.tensor(numbers)]
        heads.append(scores.softmax(-1) @ v[:, of_head])
    return (torch.cat(heads, -1) @ layer.proj.weight.T + layer.proj.bias).reshape(h, w, channels)


def cuts(size: int, window: int, shift: int) -> list[slice]:
    """Windows of an axis whose grid starts at ``shift`` instead of 0, the first and the last cut by the border."""
    edges = sorted({0, *range(shift, size, window), size})
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def test_windows_are_tiles_in_reading_order_and_fit_back() -> None:
    x = torch.randn(2, 6, 8, 3)
    windows = to_windows(x, (3, 4))  # 2 x 2 windows per image
    torch.testing.assert_close(windows[0], x[0, :3, :4].reshape(12, 3), atol=0, rtol=0)
    torch.testing.assert_close(windows[1], x[0, :3, 4:].reshape(12, 3), atol=0, rtol=0)
    torch.testing.assert_close(windows[6], x[1, 3:, :4].reshape(12, 3), atol=0, rtol=0)
    torch.testing.assert_close(from_windows(windows, (3, 4), (6, 8)), x, atol=0, rtol=0)


def test_windows_that_do_not_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="12x16 does not divide into windows of 8x8"):
        to_windows(torch.zeros(1, 12, 16, 3), (8, 8))


@pytest.mark.parametrize("shift", [(0, 0), (2, 1), (2, 0)], ids=["plain", "shifted", "rows_only"])
def test_block_attends_in_the_rectangles_of_a_shifted_grid(shift: tuple[int, int]) -> None:
    size, window = (8, 12), (4, 3)
    block = scattered(SwinBlock(32, size=size, window=window, shift=shift, head_channels=16))
    without_norms(block)
    nn.init.zeros_(block.mlp[2].weight)
    nn.init.zeros_(block.mlp[2].bias)
    x = torch.randn(2, *size, 32)
    expected = x.clone()
    for image in range(2):
        for rows in cuts(size[0], window[0], shift[0]):
            for columns in cuts(size[1], window[1], shift[1]):
                rectangle = x[image, rows, columns]
                expected[image, rows, columns] += attended_rectangle(block.attention, rectangle, window)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("shift", "reach"), [((0, 0), 8), ((4, 4), 4)], ids=["plain", "shifted"])
def test_corner_pixel_reaches_its_window_only(shift: tuple[int, int], reach: int) -> None:
    block = without_norms(scattered(SwinBlock(32, size=(16, 16), window=(8, 8), shift=shift, head_channels=32)))
    x = torch.randn(1, 16, 16, 32)
    changed = x.clone()
    changed[0, 0, 0] += 1
    differs = (block(changed) != block(x)).any(-1)[0]
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:reach, :reach] = True
    assert torch.equal(differs, expected)


def test_two_blocks_reach_one_and_a_half_windows() -> None:
    layer = SwinLayer(32, size=(16, 16), window=8, swin_channels=32).double()
    for block in layer.blocks:
        without_norms(block)
    x = torch.randn(1, 32, 16, 16, dtype=torch.float64)
    changed = x.clone()
    changed[0, :, 0, 0] += 1
    differs = (layer(changed) != layer(x)).any(1)[0]
    assert differs[:12, :12].all()
    assert not differs[12:].any()
    assert not differs[:, 12:].any()


@pytest.mark.parametrize("size", [6, 8])
def test_window_shrinks_to_a_small_level_and_is_not_shifted(size: int) -> None:
    layer = SwinLayer(64, size=(size, size), window=8, swin_channels=32)
    assert [block.shift for block in layer.blocks] == [(0, 0), (0, 0)]
    assert [block.mask for block in layer.blocks] == [None, None]
    assert layer.blocks[0].attention.position_scores.shape == (1, (2 * size - 1) ** 2)
    assert layer(torch.randn(2, 64, size, size)).shape == (2, 64, size, size)


def test_axes_of_a_rectangle_are_treated_one_by_one() -> None:
    layer = SwinLayer(32, size=(6, 16), window=8, swin_channels=32)
    assert layer.blocks[1].window == (6, 8)
    assert layer.blocks[1].shift == (0, 4)
    assert layer(torch.randn(1, 32, 6, 16)).shape == (1, 32, 6, 16)


def test_everything_passes_through_the_inner_width() -> None:
    layer = SwinLayer(64, size=(4, 4), window=4, swin_channels=32)
    nn.init.zeros_(layer.embed.weight)
    a, b = layer(torch.randn(1, 64, 4, 4)), layer(torch.randn(1, 64, 4, 4))
    torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_residual_layer_starts_as_the_identity() -> None:
    layer, x = SwinLayer(64, size=(4, 4), window=4, swin_channels=32, residual=True), torch.randn(2, 64, 4, 4)
    torch.testing.assert_close(layer(x), x, atol=0, rtol=0)


def test_masks_and_indices_are_no_part_of_a_checkpoint() -> None:
    names = set(SwinLayer(32, size=(16, 16), window=8, swin_channels=32).state_dict())
    assert not {name for name in names if "mask" in name or "pair_index" in name}


@pytest.mark.parametrize(("size", "fits"), [(1, True), (6, True), (8, True), (24, True), (9, False), (12, False)])
def test_level_fits_if_it_is_one_window_or_many_whole_ones(size: int, fits: bool) -> None:
    assert fits_windows(size, 8) == fits


def test_level_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size 24x12 cannot be cut into windows of 8; allowed are sides up to 8 and"):
        SwinLayer(32, size=(24, 12), window=8, swin_channels=32)


def test_width_that_does_not_divide_into_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="channels=96 do not divide into heads of head_channels=64"):
        SwinLayer(32, size=(8, 8), window=8, swin_channels=96, head_channels=64)
