"""Knowledge Guidance: what text may and may not change."""

import pytest
import torch
from torch import Tensor, nn

from common.networks.blocks.bandwise_attention import split_bands
from common.networks.blocks.knowledge_guidance import KnowledgeGuidance, PlainGuidance

BOTH = pytest.mark.parametrize("cls", [KnowledgeGuidance, PlainGuidance], ids=["kg", "cross_attn"])


def guidance(cls: type[nn.Module], **arguments: bool) -> nn.Module:
    torch.manual_seed(0)
    module = cls(32, text_channels=24, **arguments)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def features() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(2, 32, 6, 8)


@BOTH
def test_guidance_starts_as_the_identity(cls: type[nn.Module]) -> None:
    x = features()
    torch.testing.assert_close(cls(32, text_channels=24)(x, torch.randn(1, 5, 24)), x, atol=0, rtol=0)


@BOTH
def test_padding_changes_nothing(cls: type[nn.Module]) -> None:
    module, x, text = guidance(cls), features(), torch.randn(1, 5, 24)
    padded = torch.cat([text, 100 * torch.randn(1, 5, 24)], dim=1)
    mask = torch.tensor([[True] * 5 + [False] * 5])
    torch.testing.assert_close(module(x, padded, mask), module(x, text), atol=1e-5, rtol=1e-5)
    assert (module(x, padded) - module(x, text)).abs().max() > 1e-2


@BOTH
def test_one_text_serves_all_images(cls: type[nn.Module]) -> None:
    module, x, text = guidance(cls), features(), torch.randn(1, 5, 24)
    mask = torch.tensor([[True, True, True, False, True]])
    one_each = module(x, text.expand(2, -1, -1), mask.expand(2, -1))
    torch.testing.assert_close(module(x, text, mask), one_each, atol=1e-6, rtol=1e-6)


@BOTH
def test_each_image_is_guided_by_its_own_text(cls: type[nn.Module]) -> None:
    module, x, texts = guidance(cls), features(), torch.randn(2, 5, 24)
    masks = torch.tensor([[True] * 5, [True, True, False, False, True]])
    together = module(x, texts, masks)
    for i in range(2):
        alone = module(x[i : i + 1], texts[i : i + 1, masks[i]])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_single_token_gives_the_low_band_one_constant_and_the_high_bands_another() -> None:
    module, x = guidance(KnowledgeGuidance, residual=False, head_norm=False), features()
    low, high = split_bands(module(x, torch.randn(1, 1, 24)))
    torch.testing.assert_close(low, low[:1, :1, :1].expand_as(low), atol=1e-5, rtol=0)
    torch.testing.assert_close(high, high[:1, :1, :1].expand_as(high), atol=1e-5, rtol=0)


@BOTH
def test_prompt_matters_after_one_step_of_training(cls: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module, x = cls(32, text_channels=24), features()
    first, second = torch.randn(2, 1, 5, 24).unbind(0)
    torch.testing.assert_close(module(x, first), module(x, second), atol=0, rtol=0)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    (module(x, first) - torch.randn_like(x)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())  # what DDP needs
    optimizer.step()
    assert (module(x, first) - module(x, second)).abs().max() > 1e-3


def test_attention_goes_to_the_text_alone() -> None:
    """Values come from the text: where they are projected to nothing, nothing is added."""
    module, x = guidance(KnowledgeGuidance), features()
    for band in (module.bands.low, module.bands.high):
        nn.init.zeros_(band.key_value.weight)
        nn.init.zeros_(band.key_value.bias)
        nn.init.zeros_(band.output.bias)
    torch.testing.assert_close(module(x, torch.randn(1, 5, 24)), x, atol=1e-6, rtol=0)
