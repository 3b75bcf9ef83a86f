"""The weighted noise loss at predictions whose error is known."""

import pytest
import torch
from torch import Tensor

from common.diffusion.continuous import VPSchedule, gaussian_noise_prediction, marginal
from common.frequency.statistics import CoefficientStatistics, frequency_weights
from common.losses.moe_balance import moe_balance_loss
from common.losses.noise_prediction import NoisePredictionLoss

SCHEDULE = VPSchedule(snr_scale=4.0)


@pytest.fixture(scope="module")
def statistics() -> CoefficientStatistics:
    generator = torch.Generator().manual_seed(0)
    images = (60 * torch.rand(30, 1, 1, generator=generator) + 120 * torch.rand(30, 16, 16, generator=generator)).clamp(
        0, 255
    )
    return CoefficientStatistics.from_images([images], block=2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def target(noise: Tensor, t: float | Tensor = 0.5) -> dict[str, Tensor]:
    return {"noise": noise, "t": torch.as_tensor(t).expand(len(noise))}


def test_predicting_nothing_costs_the_variance_of_the_noise() -> None:
    noise = normal(8, 50, 16)
    loss = NoisePredictionLoss()({"noise": torch.zeros_like(noise)}, target(noise))
    assert loss.item() == pytest.approx(noise.square().mean().item())


@pytest.mark.parametrize("weight", ["entropy_linear", "entropy_exp"])
def test_each_coefficient_counts_with_its_weight_in_all_four_blocks(
    weight: str, statistics: CoefficientStatistics
) -> None:
    weights = frequency_weights(statistics, weight, 0.7)  # type: ignore[arg-type]
    loss = NoisePredictionLoss(weight, statistics=statistics, temperature=0.7)  # type: ignore[arg-type]
    for feature in range(16):
        noise = torch.zeros(2, 3, 16)
        noise[..., feature] = 1.0
        value = loss({"noise": torch.zeros_like(noise)}, target(noise)).item()
        assert value == pytest.approx(weights[feature % 4].item() / 16)
    ones = torch.ones(2, 3, 16)
    assert loss({"noise": 0 * ones}, target(ones)).item() == pytest.approx(1.0)  # mean weight


def test_exact_prediction_for_gaussian_data_costs_the_posterior_variance() -> None:
    """White data of standard deviation s: ``E_t[alpha**2 s**2 / (alpha**2 s**2 + sigma**2)]``; nothing does better."""
    s, t = 0.4, (torch.arange(2000) + 0.5) / 2000
    x0, noise = s * normal(2000, 8, 16), normal(2000, 8, 16, seed=1)
    x_t = marginal(SCHEDULE, x0, noise, t)
    prediction = gaussian_noise_prediction(SCHEDULE, x_t, t, torch.tensor(0.0), torch.tensor(s))
    loss = NoisePredictionLoss()({"noise": prediction}, target(noise, t)).item()
    signal = (SCHEDULE.alpha(t) * s) ** 2
    assert loss == pytest.approx((signal / (signal + SCHEDULE.sigma(t) ** 2)).mean().item(), rel=0.01)
    worse = NoisePredictionLoss()({"noise": 1.1 * prediction}, target(noise, t)).item()
    assert worse > loss


def test_unit_variance_weight_makes_the_exact_gaussian_prediction_cost_one(statistics: CoefficientStatistics) -> None:
    """Of independent Gaussian coefficients a residual network, which outputs 0 here, has a target of variance 1."""
    mean = (statistics.mean / statistics.eta).repeat(4)
    std = (statistics.std / statistics.eta).repeat(4)
    t = torch.linspace(0.02, 0.4, 500)  # alpha**2 s**2 / V stays above the floor
    x0, noise = mean + std * normal(500, 32, 16), normal(500, 32, 16, seed=1)
    prediction = gaussian_noise_prediction(SCHEDULE, marginal(SCHEDULE, x0, noise, t), t, mean, std)
    loss = NoisePredictionLoss("unit_variance", statistics=statistics, schedule=SCHEDULE)
    assert loss({"noise": prediction}, target(noise, t)).item() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("t", [1e-4, 0.2, 0.5, 1.0])
def test_unit_variance_weight_is_its_formula_bounded_by_the_floor(t: float, statistics: CoefficientStatistics) -> None:
    loss = NoisePredictionLoss("unit_variance", statistics=statistics, schedule=SCHEDULE, floor=0.05)
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(time).item(), SCHEDULE.sigma(time).item()
    for k, std in enumerate((statistics.std / statistics.eta).tolist()):
        noise = torch.zeros(1, 1, 16)
        noise[..., k] = 4.0  # mean square over 16 features: 1
        weight = 1 / max(0.05, (alpha * std) ** 2 / ((alpha * std) ** 2 + sigma**2))
        assert loss({"noise": torch.zeros_like(noise)}, target(noise, t)).item() == pytest.approx(weight, rel=1e-4)


def test_balance_is_added_with_its_coefficient() -> None:
    noise, router = normal(2, 3, 16), [normal(2, 4, 4).softmax(-1), normal(2, 4, 4, seed=1).softmax(-1)]
    loss = NoisePredictionLoss(balance_coefficient=0.1, top_k=2)
    alone, terms = loss({"noise": 0 * noise}, target(noise)), loss.terms({"noise": 0 * noise}, target(noise))
    both = loss({"noise": 0 * noise, "router": router}, target(noise))
    assert (both - alone).item() == pytest.approx(0.1 * moe_balance_loss(router, 2).item(), rel=1e-4)
    assert terms["balance"].item() == 0
    assert loss({"noise": 0 * noise, "router": []}, target(noise)).item() == alone.item()


def test_loss_of_a_bfloat16_prediction_is_computed_in_float32() -> None:
    noise = normal(4, 64, 16)
    loss = NoisePredictionLoss()({"noise": torch.zeros_like(noise).bfloat16()}, target(noise))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(noise.square().mean().item(), rel=1e-6)


def test_loss_follows_its_inputs_to_their_device(statistics: CoefficientStatistics) -> None:
    loss = NoisePredictionLoss("unit_variance", statistics=statistics, schedule=SCHEDULE)
    noise, t = torch.zeros(2, 3, 16, device="meta"), torch.zeros(2, device="meta")
    assert loss({"noise": noise}, {"noise": noise, "t": t}).device.type == "meta"


def test_missing_information_is_asked_for(statistics: CoefficientStatistics) -> None:
    with pytest.raises(ValueError, match="weight='entropy_linear' needs the `statistics`"):
        NoisePredictionLoss("entropy_linear")
    with pytest.raises(ValueError, match="weight='unit_variance' needs the `schedule`"):
        NoisePredictionLoss("unit_variance", statistics=statistics)
    with pytest.raises(ValueError, match="weight='snr' is unknown; choose one of none, entropy_linear"):
        NoisePredictionLoss("snr")  # type: ignore[arg-type]


def test_shapes_that_would_broadcast_are_refused(statistics: CoefficientStatistics) -> None:
    with pytest.raises(ValueError, match=r"prediction \(2, 3, 1\) and target \(2, 3, 16\) differ"):
        NoisePredictionLoss()({"noise": torch.zeros(2, 3, 1)}, target(torch.zeros(2, 3, 16)))
    loss = NoisePredictionLoss("entropy_linear", statistics=statistics)
    with pytest.raises(ValueError, match="18 features per token are not whole blocks of the statistics' 4"):
        loss({"noise": torch.zeros(2, 3, 18)}, target(torch.zeros(2, 3, 18)))
