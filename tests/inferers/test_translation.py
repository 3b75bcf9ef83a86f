"""Translation by residual shifting: the network is called as often as said, and every step has its noise."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.diffusion.residual_shift import marginal, residual_shift_schedule
from common.inferers.precision import supports_bfloat16
from common.inferers.translation import ResidualShiftInferer, TranslationInferer

sys.path.insert(0, str(Path(__file__).parent))
from slice_translators import SIZE, ShiftRecording, noisy_shift, volume

SCHEDULE = residual_shift_schedule()


def perfect(source: Tensor) -> Tensor:
    """Some target that is known from the source alone."""
    return -0.8 * source.flip(2)


def knows_the_target() -> ShiftRecording:
    return ShiftRecording(lambda x_t, t, source: perfect(source))


# Sampling


@pytest.mark.parametrize("num_steps", [4, 15])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_every_slice_goes_through_the_network_once_a_step(num_steps: int, batch_size: int) -> None:
    """Batch after batch of slices, t = T, ..., 1."""
    network = noisy_shift(num_steps)
    TranslationInferer(batch_size=batch_size)(volume(7), network)
    sizes = [min(batch_size, 7 - start) for start in range(0, 7, batch_size)]
    assert network.times == [[t] * size for size in sizes for t in range(num_steps, 0, -1)]


@pytest.mark.parametrize("options", [{}, {"share_noise": False}, {"deterministic": True}, {"seed": 9}], ids=str)
def test_a_perfect_denoiser_gives_the_target_exactly(options: dict) -> None:
    """The last step has coefficients (0, 1), so noise leaves no trace."""
    sources = volume()
    result = TranslationInferer(batch_size=3, num_samples=2, **options)(sources, knows_the_target())
    assert torch.equal(result, perfect(sources).expand(-1, 2, -1, -1, -1))


def test_estimates_are_clamped_to_the_range_of_images() -> None:
    network = ShiftRecording(lambda x_t, t, source: 5 * source)
    result = TranslationInferer()(volume(), network)
    assert torch.equal(result, (5 * volume()).clamp(-1, 1))


def test_sampling_starts_at_the_source_with_the_noise_of_the_last_step() -> None:
    """Mean y_0 and standard deviation kappa sqrt(eta_T) = 1.98."""
    network = noisy_shift()
    sources = volume(800)
    TranslationInferer(batch_size=800, share_noise=False)(sources, network)
    noise = network.inputs[0] - sources[0].permute(3, 0, 1, 2)
    assert abs(noise.mean().item()) < 0.05
    assert noise.std().item() == pytest.approx(1.98, rel=0.02)


def test_every_step_has_noise_of_its_own() -> None:
    """Taken out of the x_t with the table's numbers (posterior std at t = 2, 3, 4), it is standard normal and new."""
    network = noisy_shift()
    sources = volume(800)[0].permute(3, 0, 1, 2)
    TranslationInferer(batch_size=800, share_noise=False)(volume(800), network)
    eta, x = SCHEDULE.eta.tolist(), network.inputs
    drawn = [(x[0] - sources) / 1.98]
    for x_t, following, t, std in zip(x, x[1:], (4, 3, 2), (0.97329179, 0.75968330, 0.19626833), strict=False):
        ratio = eta[t - 2] / eta[t - 1]
        drawn.append((following - ratio * x_t - (1 - ratio) * (0.1 * sources + 0.02 * x_t)) / std)
    noise = torch.stack(drawn).flatten(1)  # (4, 19200)
    torch.testing.assert_close(torch.cov(noise), torch.eye(4), atol=0.04, rtol=0)
    assert noise.mean(dim=1).abs().max() < 0.03


def test_deterministic_sampling_draws_noise_for_the_start_only() -> None:
    """Then every x_{t-1} is the posterior's mean, here computed from the table by hand."""
    network = noisy_shift()
    TranslationInferer(deterministic=True)(volume(), network)
    sources = volume()[0].permute(3, 0, 1, 2)
    eta = SCHEDULE.eta.tolist()
    for number, t in enumerate((4, 3, 2)):
        x_t = network.inputs[number]
        ratio = eta[t - 2] / eta[t - 1]
        expected = ratio * x_t + (1 - ratio) * (0.1 * sources + 0.02 * x_t)
        torch.testing.assert_close(network.inputs[number + 1], expected)


# Training


def test_training_shifts_the_residual_and_returns_the_estimate() -> None:
    """The network gets x_t of eq. 2, here written out per image, and its estimate comes back as it is."""
    generator = torch.Generator().manual_seed(0)
    source, target, noise = torch.randn(3, 8, 1, *SIZE, generator=generator)
    t = torch.tensor([1, 2, 3, 4, 4, 3, 2, 1])
    network = ShiftRecording(lambda x_t, t, source: x_t + source)
    pred = ResidualShiftInferer()(source, network, target=target, t=t, noise=noise)
    for number, time in enumerate(t.tolist()):
        eta = SCHEDULE.eta[time - 1].item()
        x_t = target[number] + eta * (source - target)[number] + 2.0 * np.sqrt(eta) * noise[number]
        torch.testing.assert_close(network.inputs[0][number], x_t)
    assert network.times == [t.tolist()]
    assert torch.equal(pred, marginal(SCHEDULE, target, source, noise, t) + source)


@pytest.mark.parametrize("amp", [True, False])
def test_mixed_precision_reaches_the_network_and_not_the_result(amp: bool) -> None:
    if amp and not supports_bfloat16("cpu"):
        pytest.skip("this CPU has no fast bf16")
    seen: list[torch.dtype] = []

    def estimate(x_t: Tensor, t: Tensor, source: Tensor) -> Tensor:
        product = x_t.flatten(2) @ source.flatten(2).transpose(1, 2)
        seen.append(product.dtype)
        return source.to(product.dtype)

    source = torch.rand(2, 1, *SIZE)
    t = torch.tensor([1, 4])
    pred = ResidualShiftInferer(amp)(
        source, ShiftRecording(estimate), target=source, t=t, noise=torch.zeros_like(source)
    )
    sampled = TranslationInferer(amp=amp)(source, ShiftRecording(estimate))
    assert set(seen) == {torch.bfloat16 if amp else torch.float32}
    assert pred.dtype == sampled.dtype == torch.float32
