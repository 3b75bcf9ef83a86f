"""Swin-Unet: as many weights as published, tokens in their places, windows that fit."""

from typing import Any

import pytest
import torch
from torch import nn

from common.networks.nets.swin_transformer_unet import PatchExpand, SwinTransformerUNet


def small(**changes: object) -> SwinTransformerUNet:
    settings: dict = {
        "in_channels": 1,
        "out_channels": 3,
        "image_size": (32, 64),
        "embed_dim": 8,
        "depths": (2, 2, 1, 2),
        "num_heads": (1, 2, 2, 4),
        "window_size": 3,
        "drop_path": 0.3,
    }
    return SwinTransformerUNet(**{**settings, **changes})


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def published_count(in_channels: int, out_channels: int) -> int:
    """By hand, from the description: embedding, stages, merging, expansion, skips, norms, head."""

    def block(width: int, heads: int) -> int:
        return 12 * width**2 + 13 * width + (2 * 7 - 1) ** 2 * heads

    widths, heads = (96, 192, 384, 768), (3, 6, 12, 24)
    embedding = 16 * in_channels * 96 + 96 + 2 * 96
    encoder = sum(2 * block(*stage) for stage in zip(widths, heads, strict=True))
    merging = sum(4 * width * 2 * width + 2 * 4 * width for width in widths[:-1])
    expanding = sum(2 * width * 4 * width + 2 * width for width in widths[:-1])
    skips = sum(2 * width * width + width for width in widths[:-1])
    decoder = sum(2 * block(*stage) for stage in list(zip(widths, heads, strict=True))[:-1])
    end = 2 * 768 + 2 * 96 + 96 * 16 * 96 + 2 * 96 + 96 * out_channels
    return embedding + encoder + merging + expanding + skips + decoder + end


@pytest.mark.parametrize(("channels", "classes", "number"), [(3, 4, 27_168_420), (1, 4, 27_165_348)])
def test_it_has_the_published_number_of_weights(channels: int, classes: int, number: int) -> None:
    with torch.device("meta"):
        network = SwinTransformerUNet(in_channels=channels, out_channels=classes, image_size=(224, 224))
    assert count(network) == published_count(channels, classes) == number


def test_expansion_puts_what_a_token_becomes_in_its_own_square() -> None:
    layer = PatchExpand(2, 3, 2)
    layer.norm = nn.Identity()  # type: ignore[assignment]
    x = torch.randn(1, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    result, flat = layer(x), layer.expand(x)
    assert result.shape == (1, 8, 10, 3)
    for i in range(2):
        for j in range(2):
            first = 3 * (2 * i + j)
            assert torch.equal(result[:, i::2, j::2], flat[..., first : first + 3])


def test_output_has_a_channel_per_class_on_the_grid_of_an_oblong_image() -> None:
    assert small()(torch.rand(2, 1, 32, 64)).shape == (2, 3, 32, 64)


def test_every_weight_takes_part() -> None:
    network = small(drop_path=0.0)
    network(torch.rand(2, 1, 32, 64)).square().mean().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_an_image_is_answered_alike_in_any_batch() -> None:
    network = small().eval()
    images = torch.rand(3, 1, 32, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-5, rtol=1e-4)


def test_stochastic_depth_grows_linearly_and_the_decoder_mirrors_it() -> None:
    network = small()

    def rates(stages: Any) -> list[list[float]]:
        return [[getattr(block.drop_path, "drop_prob", 0.0) for block in stage.blocks] for stage in stages]

    encoder = rates(network.encoder)
    assert [rate for stage in encoder for rate in stage] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    assert rates(network.decoder) == encoder[-2::-1]


def test_windows_shrink_to_the_grid_so_that_scores_belong_to_displacements() -> None:
    """MONAI takes the first rows of the table of a larger window, where neighbors in Y become neighbors in X."""
    network = small(window_size=7)  # grids 8 x 16, 4 x 8, 2 x 4, 1 x 2
    stages: Any = network.encoder
    for stage, sides in zip(stages, [(7, 7), (4, 7), (2, 4), (1, 2)], strict=True):
        attention = stage.blocks[0].attn
        assert tuple(attention.window_size) == sides
        numbers = attention.relative_position_index
        displacements: dict[tuple[int, int], set[int]] = {}
        for first in range(len(numbers)):
            for second in range(len(numbers)):
                (a, b), (c, d) = divmod(first, sides[1]), divmod(second, sides[1])
                displacements.setdefault((a - c, b - d), set()).add(int(numbers[first, second]))
        assert all(len(entries) == 1 for entries in displacements.values())
        assert len(set.union(*displacements.values())) == len(displacements)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (48, 64)}, "multiples of 32"),
        ({"image_size": (0, 64)}, "multiples of 32"),
        ({"num_heads": (1, 2, 3, 4)}, "must divide the widths"),
        ({"num_heads": (1, 2)}, "one number a stage"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**change)
