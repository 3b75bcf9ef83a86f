"""The weight of the adversarial loss where the gradients are known."""

import pytest
import torch
from torch import Tensor

from common.losses.adaptive_weight import AdaptiveWeight


def losses(a: float, *, h: float = 2.0, image: float = 5.0) -> tuple[Tensor, Tensor, Tensor]:
    """y = W h below the image: L_rec = |image - y| has the gradient -h, L_GAN = -a y has -a h."""
    W = torch.tensor([1.0], requires_grad=True)
    y = W * h
    return (image - y).abs().mean(), (-a * y).mean(), W


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 1.9998), (0.8, 1.59984)])
def test_the_weight_has_its_hand_value(weight: float, expected: float) -> None:
    """Norms 2 and 1: 2 / (1 + 1e-4)."""
    value = AdaptiveWeight(weight=weight)(*losses(0.5))
    assert value.item() == pytest.approx(expected, rel=1e-6)
    assert value.shape == ()
    assert not value.requires_grad


def test_norms_are_those_of_all_entries() -> None:
    """Gradients (3, 4) and (0, 2): 5 / 2."""
    W = torch.tensor([[1.0], [1.0]], requires_grad=True)
    value = AdaptiveWeight(weight=1.0)((W * torch.tensor([[3.0], [4.0]])).sum(), 2 * W[1].sum(), W)
    assert value.item() == pytest.approx(5 / 2.0001, rel=1e-6)


@pytest.mark.parametrize(
    ("h", "cap", "expected"), [(2.0, 1e9, 8000.0), (0.5, 1e9, 4000.0), (2.0, 10.0, 10.0), (1e-4, 10.0, 0.8)]
)
def test_a_discriminator_without_gradient_gets_no_more_than_the_cap(h: float, cap: float, expected: float) -> None:
    """min(|g_rec| / 1e-4, 1e4) times 0.8, and the cap after it."""
    assert AdaptiveWeight(cap=cap)(*losses(0.0, h=h)).item() == pytest.approx(expected, rel=1e-5)


def test_losses_keep_their_graphs_and_weights_get_no_gradient() -> None:
    reconstruction, adversarial, W = losses(0.5)
    weight = AdaptiveWeight()(reconstruction, adversarial, W)
    assert W.grad is None
    (reconstruction + weight * adversarial).backward()
    assert W.grad is not None
    assert W.grad.item() == pytest.approx(-2 - 1.59984)


def test_a_fixed_weight_looks_at_nothing() -> None:
    value = AdaptiveWeight(mode="fixed", fixed=0.03, cap=0.01)(torch.zeros(()), torch.zeros(()), torch.zeros(1))
    assert value.item() == pytest.approx(0.03)
    assert value.shape == ()


def test_the_alarm_is_the_share_of_recent_calls_at_the_cap() -> None:
    weight = AdaptiveWeight(cap=1.0)
    assert weight.alarm == 0
    for a in (0.5, 0.5, 0.5, 5.0):  # weights 1.6 without the cap, and 0.16
        weight(*losses(a))
    assert weight.alarm == 0.75
    for _ in range(100):
        weight(*losses(5.0))
    assert weight.alarm == 0


def test_gradients_are_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    W, x = (torch.randn(8, 8, generator=generator) for _ in range(2))
    W.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ W
        value = AdaptiveWeight(weight=1.0)(y.float().abs().mean(), y.float().square().mean(), W)
    exact = AdaptiveWeight(weight=1.0)((x @ W).abs().mean(), (x @ W).square().mean(), W)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"mode": "none"}, "mode='none' must be one of adaptive, fixed"), ({"cap": -1.0}, r"cap=-1\.0 must not be neg")],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveWeight(**settings)
