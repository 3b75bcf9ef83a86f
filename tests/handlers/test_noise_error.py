"""The denoiser's error is the mean squared one, over fixed steps and noise, whoever measures it and when."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor

from common.handlers import noise_error as module
from common.handlers.noise_error import NoiseError
from common.networks.nets.label_guided_synthesizer import LabelGuidedSynthesizer

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from tiny_synthesizers import Estimate, Wrapper, labels, synthesizer


class Latents:
    """Known latents and label maps; keeps which were asked for."""

    def __init__(self, number: int = 50) -> None:
        self.latent = torch.randn(number, 3, 4, 6, generator=torch.Generator().manual_seed(0))
        self.label = labels(number)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.latent)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        self.asked += indices
        return {"latent": self.latent[list(indices)], "label": self.label[list(indices)]}


def off_by(network: LabelGuidedSynthesizer, data: Latents, amount: Tensor) -> LabelGuidedSynthesizer:
    """The network with an estimate of the noise that misses the truth by ``amount`` times the first class's guide."""

    def estimate(x_t: Tensor, t: Tensor, seg: Tensor) -> Tensor:
        a = network.schedule.alpha_bar.float()[t].reshape(-1, 1, 1, 1)
        x0 = network.standardize(data.latent[data.asked[-len(x_t) :]])
        return (x_t - a.sqrt() * x0) / (1 - a).sqrt() + amount * seg[:, :1]

    network.backbone = Estimate(estimate)
    return network


def test_the_true_noise_has_no_error_and_a_known_one_its_square() -> None:
    data = Latents()
    network = synthesizer()
    amount = torch.tensor([1.0, 2.0, 0.0]).reshape(1, 3, 1, 1)
    share = network.guide(data.label)[:, 0].mean()
    assert NoiseError(off_by(network, data, amount), data, number=50).error() == pytest.approx(
        float(share) * 5 / 3, rel=1e-3
    )
    assert NoiseError(off_by(network, data, 0 * amount), data, number=50).error() < 1e-6


def test_every_measurement_uses_the_same_steps_and_noise() -> None:
    """Whatever the global generator and the mode of the network, which is as before afterwards."""
    network, data = synthesizer().train(), Latents()
    measure = NoiseError(network, data, number=40)
    first = measure.error()
    torch.manual_seed(99)
    assert measure.error() == first
    assert network.training
    assert not network.autoencoder.training
    assert NoiseError(network, data, number=40, seed=1).error() != first
    assert NoiseError(Wrapper(network), data, number=40).error() == first


def test_steps_are_spread_evenly_over_the_schedule() -> None:
    network, data = synthesizer(), Latents()
    estimate = Estimate(lambda x, t, seg: x)
    network.backbone = estimate
    NoiseError(network, data, number=20).error()
    steps = torch.cat([t for _, t, _ in estimate.calls])
    assert (steps // 5).tolist() == list(range(20))
    assert (steps % 5).unique().numel() > 2
    assert data.asked == torch.linspace(0, 49, 20).round().int().tolist()


def test_processes_together_measure_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = synthesizer(), Latents()
    expected = NoiseError(network, data, number=33).error()
    sums = []

    def keep(values: Tensor) -> Tensor:
        sums.append(values)
        return values

    monkeypatch.setattr(module, "sum_over_processes", keep)
    monkeypatch.setattr(module, "process_count", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
        NoiseError(network, data, number=33).error()
    squares, count = (sums[0] + sums[1]).tolist()
    assert squares / count == pytest.approx(expected, rel=1e-6)


def test_evaluators_get_it_as_a_metric() -> None:
    network, data = synthesizer(), Latents(5)
    evaluator = Engine(lambda engine, batch: None)
    measure = NoiseError(network, data)
    measure.attach(evaluator)
    evaluator.run([0], max_epochs=1)
    assert evaluator.state.metrics == {"noise_error": measure.error()}


def test_some_latents_are_needed() -> None:
    with pytest.raises(ValueError, match=r"number=0 of latents must be at least 1"):
        NoiseError(synthesizer(), Latents(), number=0)
