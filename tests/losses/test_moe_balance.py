"""The balance loss: its value at known routings and its gradient."""

import pytest
import torch

from common.losses.moe_balance import moe_balance_loss


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 1), (4, 2), (6, 3)])
def test_loss_is_one_when_choices_and_probabilities_are_even(num_experts: int, top_k: int) -> None:
    """Token t prefers experts t, t+1, ... by a hair: probabilities even, choices cyclic."""
    probs = torch.full((num_experts, num_experts), 1.0 / num_experts)
    for token in range(num_experts):
        for j in range(top_k):
            probs[token, (token + j) % num_experts] += 1e-6
    assert moe_balance_loss([probs[None]], top_k).item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 1), (4, 2), (6, 3)])
def test_loss_is_e_over_k_when_k_experts_take_everything(num_experts: int, top_k: int) -> None:
    probs = torch.zeros(1, 10, num_experts)
    probs[..., :top_k] = 1 / top_k
    assert moe_balance_loss([probs], top_k).item() == pytest.approx(num_experts / top_k)


def test_layers_are_averaged() -> None:
    balanced, collapsed = torch.eye(4)[None], torch.tensor([1.0, 0, 0, 0]).expand(1, 4, 4)
    assert moe_balance_loss([balanced, collapsed], top_k=1).item() == pytest.approx((1 + 4) / 2)


def test_gradient_is_that_of_the_published_code() -> None:
    """There ``L = e sum_i f_i P_i`` with ``f = mean(hard - stop_gradient(P) + P)``; ours is L / k."""
    torch.manual_seed(0)
    top_k, num_experts, num_tokens = 2, 4, 24
    probs = torch.randn(2, 12, num_experts).softmax(-1).requires_grad_()
    (gradient,) = torch.autograd.grad(moe_balance_loss([probs], top_k), probs)

    chosen = probs.flatten(0, 1).argsort(dim=-1, descending=True)[:, :top_k]
    fraction = torch.bincount(chosen.flatten(), minlength=num_experts) / num_tokens  # sums to k
    importance = probs.detach().mean((0, 1))
    expected = num_experts / (top_k * num_tokens) * (fraction + importance)  # product rule, f and P both move
    torch.testing.assert_close(gradient, expected.expand_as(gradient))


def test_descending_it_spreads_the_tokens() -> None:
    torch.manual_seed(0)
    logits = (torch.randn(1, 200, 4) + torch.tensor([3.0, 0, 0, 0])).requires_grad_()
    before = moe_balance_loss([logits.softmax(-1)], 2).item()
    for _ in range(50):
        (gradient,) = torch.autograd.grad(moe_balance_loss([logits.softmax(-1)], 2), logits)
        logits = (logits - 100 * gradient).detach().requires_grad_()
    after = moe_balance_loss([logits.softmax(-1)], 2).item()
    assert before > 1.3
    assert after < 1.02


def test_network_without_mixtures_has_no_balance() -> None:
    with pytest.raises(ValueError, match="no mixture layer"):
        moe_balance_loss([], 2)
