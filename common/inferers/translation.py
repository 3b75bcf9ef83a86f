"""Translation by residual shifting: the training step, and the translation of slices and volumes."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from monai.inferers import Inferer
from torch import Tensor

from ..diffusion.residual_shift import ResidualShiftSchedule, marginal, sample
from .diffusion import unwrap
from .precision import autocast
from .slicewise import SliceNoise, SlicewiseInferer


class Translator(Protocol):
    """What the inferers ask of a network besides ``network(x_t, t, source)``; ``ResidualShiftTranslator`` has it."""

    schedule: ResidualShiftSchedule


class ResidualShiftInferer(Inferer):
    """Training step of a translator: x_t from target, source and noise, then the network's estimate of the target.

    Called by MONAI's ``SupervisedTrainer`` as ``inferer(source, network, target=..., t=..., noise=...)``; returns the
    estimate (B, 1, X, Y) in fp32.

    Args:
        amp: run the network in bf16 where the device has it.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        target, t, noise = kwargs["target"], kwargs["t"], kwargs["noise"]
        x_t = marginal(cast(Translator, unwrap(network)).schedule, target, inputs, noise, t)
        with autocast(inputs.device, self.amp):
            return network(x_t, t, inputs).float()


class TranslationInferer(SlicewiseInferer):
    """Translates slices, or volumes slice by slice, in as many network calls per slice as the schedule has steps.

    Args:
        batch_size, num_samples, share_noise, min_foreground, seed, amp: see :class:`SlicewiseInferer`.
        deterministic: no noise after the start.
    """

    def __init__(
        self,
        batch_size: int = 16,
        num_samples: int = 1,
        share_noise: bool = True,
        deterministic: bool = False,
        min_foreground: float = 0.005,
        seed: int = 0,
        amp: bool = False,
    ) -> None:
        super().__init__(batch_size, num_samples, share_noise, min_foreground, seed, amp)
        self.deterministic = deterministic

    def translate(self, source: Tensor, network: Callable[..., Any], noises: Sequence[SliceNoise]) -> Tensor:
        """(B, 1, X, Y) -> (B, K, X, Y)."""
        schedule = cast(Translator, unwrap(network)).schedule
        samples = []
        for noise in noises:
            maps = noise(schedule.num_steps, *source.shape[1:])  # (T, B or 1, 1, X, Y)
            with autocast(source.device, self.amp):
                samples.append(
                    sample(
                        lambda x_t, t: network(x_t, t, source),
                        source,
                        schedule,
                        noise=lambda t, maps=maps: maps[t - 1],  # type: ignore[misc]
                        deterministic=self.deterministic,
                    )
                )
        return torch.cat(samples, dim=1).float()
