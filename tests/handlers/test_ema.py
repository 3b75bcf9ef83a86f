"""The average of the weights is what its formula says."""

import torch
from torch import nn

from common.handlers.ema import EMA


def updated(rates: list[float], every: int) -> torch.Tensor:
    """Weights 1, 2, 3, ... averaged by hand from 0 on."""
    average = torch.zeros(())
    for iteration, rate in enumerate(rates, start=1):
        if iteration % every == 0:
            average = rate**every * average + (1 - rate**every) * iteration
    return average


def run(decay: float, every: int, steps: int) -> torch.Tensor:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, decay=decay, every=every)
    for iteration in range(1, steps + 1):
        nn.init.constant_(network.weight, iteration)
        if iteration % every == 0:
            ema.update(iteration)
    return ema.model.weight.squeeze()


def test_ramp_then_constant_rate() -> None:
    rates = [min(0.8, (1 + n) / (10 + n)) for n in range(1, 101)]
    assert rates[0] < 0.8 == rates[-1]
    torch.testing.assert_close(run(0.8, 1, 100), updated(rates, 1))


def test_rare_updates_use_the_rate_to_that_power() -> None:
    rates = [min(0.9, (1 + n) / (10 + n)) for n in range(1, 201)]
    torch.testing.assert_close(run(0.9, 10, 200), updated(rates, 10))


def test_average_of_constant_weights_is_that_constant_and_buffers_follow() -> None:
    network = nn.BatchNorm1d(2)
    ema = EMA(network)
    network.running_mean.fill_(3.0)
    ema.update(1)
    assert torch.equal(ema.model.running_mean, torch.full((2,), 3.0))
    torch.testing.assert_close(ema.model.weight, network.weight)
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_wrappers_are_taken_off() -> None:
    network = nn.Linear(2, 2)
    wrapper = nn.Module()
    wrapper.module = network
    assert EMA(wrapper).state_dict().keys() == network.state_dict().keys()
