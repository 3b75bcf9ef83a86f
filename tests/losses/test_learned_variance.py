"""The loss of noise and variance at predictions whose cost is known."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from common.diffusion.gaussian import clean_estimate, learned_log_variance, linear_schedule, marginal, posterior
from common.losses.learned_variance import LearnedVarianceLoss

SCHEDULE = linear_schedule()
LOSS = LearnedVarianceLoss(SCHEDULE)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def example(*t: int) -> dict[str, Tensor]:
    times = torch.tensor(t)
    x0, noise = normal(0, len(t), 4, 3, 2), normal(1, len(t), 4, 3, 2)
    return {"noise": noise, "x0": x0, "x_t": marginal(SCHEDULE, x0, noise, times), "t": times}


def prediction(noise: Tensor, v: float | Tensor) -> Tensor:
    return torch.cat([noise, torch.as_tensor(v).expand_as(noise)], dim=1)


def test_noise_term_is_the_mean_squared_error_of_the_first_half_of_the_channels() -> None:
    target = example(10, 500)
    pred = prediction(target["noise"].clone(), 0.3)
    pred[0, 1, 2, 0] += 4.0
    assert LOSS.terms(pred, target)["noise"].item() == pytest.approx(16 / target["noise"].numel(), rel=1e-5)


@pytest.mark.parametrize("t", [0, 1, 20, 500, 999])
def test_right_noise_and_smallest_variance_cost_nothing(t: int) -> None:
    target = example(t, t)
    terms = LOSS.terms(prediction(target["noise"], -1.0), target)
    assert terms["noise"].item() == 0
    assert terms["bound"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("t", [0, 1, 20, 500, 999])
@pytest.mark.parametrize("v", [-0.5, 1.0])
def test_bound_of_a_wrong_variance_is_its_closed_form_in_bits(t: int, v: float) -> None:
    """With equal means ``(log r - 1 + 1 / r) / (2 ln 2)``, r = ``(beta / bt)^((v + 1) / 2)`` the ratio of variances."""
    target = example(t, t)
    variance = SCHEDULE.posterior_variance[max(t, 1)].item()
    ratio = (SCHEDULE.beta[t].item() / variance) ** ((v + 1) / 2)
    expected = 0.5 * (math.log(ratio) - 1 + 1 / ratio) / math.log(2)
    bound = LOSS.terms(prediction(target["noise"], v), target)["bound"].item()
    assert bound == pytest.approx(expected, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("t", [0, 1, 20, 500, 999])
def test_bound_is_the_divergence_of_the_two_steps(t: int) -> None:
    """Against torch.distributions, in float64, for wrong noise and wrong variance."""
    target, pred = example(t, t), normal(2, 2, 8, 3, 2)
    exact = {name: value.double() if value.is_floating_point() else value for name, value in target.items()}
    estimate, v = pred.double().chunk(2, dim=1)
    mean, log_variance = posterior(SCHEDULE, exact["x0"], exact["x_t"], exact["t"])
    guess = clean_estimate(SCHEDULE, exact["x_t"], estimate, exact["t"])
    learned_mean, _ = posterior(SCHEDULE, guess, exact["x_t"], exact["t"])
    learned = Normal(learned_mean, (0.5 * learned_log_variance(SCHEDULE, v, exact["t"])).exp())
    nats = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), learned).mean().item()
    assert LOSS.terms(pred, target)["bound"].item() == pytest.approx(nats / math.log(2), rel=1e-3)


def test_each_sample_has_its_own_time() -> None:
    both, pred = example(3, 700), normal(2, 2, 8, 3, 2)
    alone = [LOSS(pred[k : k + 1], {name: value[k : k + 1] for name, value in both.items()}).item() for k in (0, 1)]
    assert LOSS(pred, both).item() == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_loss_is_the_sum_of_its_terms() -> None:
    target, pred = example(3, 700), normal(2, 2, 8, 3, 2)
    terms = LOSS.terms(pred, target)
    assert LOSS(pred, target).item() == pytest.approx(terms["noise"].item() + terms["bound"].item())
    assert min(terms["noise"].item(), terms["bound"].item()) > 0.01


def test_bound_teaches_the_variance_only_and_the_error_the_noise_only() -> None:
    target = example(0, 3, 700)
    for term, taught, untouched in (("bound", slice(4, 8), slice(0, 4)), ("noise", slice(0, 4), slice(4, 8))):
        pred = normal(2, 3, 8, 3, 2).requires_grad_()
        LOSS.terms(pred, target)[term].backward()
        assert pred.grad is not None
        assert (pred.grad[:, taught] != 0).all()
        assert (pred.grad[:, untouched] == 0).all()


def test_best_variance_for_a_network_without_any_skill_is_larger_than_the_posterior() -> None:
    """Predicted noise 0 leaves an error in the mean, which a larger variance pays for."""
    target = example(500, 500)
    v = torch.full_like(target["noise"], -1.0).requires_grad_()
    LOSS.terms(torch.cat([torch.zeros_like(v), v], dim=1), target)["bound"].backward()
    assert v.grad is not None
    assert v.grad.mean() < 0


def test_without_learned_variance_only_the_noise_counts() -> None:
    target = example(3, 700)
    loss = LearnedVarianceLoss(SCHEDULE, learn_sigma=False)
    terms = loss.terms(target["noise"] + 0.5, target)
    assert terms["noise"].item() == pytest.approx(0.25, rel=1e-5)
    assert terms["bound"].item() == 0
    assert loss(target["noise"] + 0.5, target).item() == pytest.approx(0.25, rel=1e-5)


def test_loss_of_half_precision_predictions_is_computed_in_float32() -> None:
    target, pred = example(3, 700), normal(2, 2, 8, 3, 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = LOSS(pred, target)
    assert value.dtype == torch.float32
    assert value.item() == LOSS(pred.float(), target).item()


def test_loss_stays_on_the_device_of_its_inputs() -> None:
    target = {name: value.to("meta") for name, value in example(3, 700).items()}
    assert LOSS(torch.zeros(2, 8, 3, 2, device="meta"), target).is_meta


@pytest.mark.parametrize(("learn_sigma", "channels"), [(True, 4), (False, 8)])
def test_network_of_other_output_channels_is_refused(learn_sigma: bool, channels: int) -> None:
    expected = rf"\(2, {12 - channels}, 3, 2\).*learn_sigma={learn_sigma}; fit the network's out_channels"
    with pytest.raises(ValueError, match=rf"prediction \(2, {channels}, 3, 2\), expected {expected}"):
        LearnedVarianceLoss(SCHEDULE, learn_sigma)(torch.zeros(2, channels, 3, 2), example(1, 2))
