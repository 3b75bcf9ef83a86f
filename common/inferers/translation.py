"""Translators on batches of slices (training, validation) and on whole volumes (inference)."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from ..diffusion.residual_shift import ResidualShiftSchedule, marginal, sample
from ..seeds import Stream, derive_seed
from ..transforms.target_intensity import with_geometry
from .diffusion import unwrap
from .precision import autocast

BACKGROUND = -1.0
FOREGROUND_LEVEL = BACKGROUND + 1e-3


class Translator(Protocol):
    """What the inferers ask of a network besides ``network(x_t, t, source)``; ``ResidualShiftTranslator`` has it."""

    schedule: ResidualShiftSchedule
    image_size: tuple[int, int]

    def check_ready(self) -> None: ...


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


class TranslationInferer(Inferer):
    """Translates slices, or volumes slice by slice, in as many network calls per slice as the schedule has steps.

    The noise is a function of ``seed``, the case, the number of the sample and, unless it is shared, the slice: results
    do not depend on the batch size, the device or the number of processes (up to rounding). Memory on the device
    does not grow with the number of slices beyond the volume itself.

    Args:
        batch_size: slices of a volume that are translated at once.
        num_samples: translations to draw of each slice.
        share_noise: use the same noise for all slices of a volume, so that neighboring slices do not flicker.
        deterministic: no noise after the start.
        min_foreground: slices of a volume of which a smaller share is brighter than background are not translated but
            filled with background.
        seed: seed of the noise.
        amp: run the network in bf16 where the device has it.
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
        if batch_size < 1 or num_samples < 1:
            raise ValueError(
                f"TranslationInferer: batch_size={batch_size} and num_samples={num_samples} must be at least 1."
            )
        self.batch_size = batch_size
        self.num_samples = num_samples
        self.share_noise = share_noise
        self.deterministic = deterministic
        self.min_foreground = min_foreground
        self.seed = seed
        self.amp = amp

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Samples as channels: (B, 1, X, Y) -> (B, num_samples, X, Y), (B, 1, X, Y, Z) -> (B, num_samples, X, Y, Z).

        Args:
            inputs: sources in [-1, 1].
            network: a translator in evaluation mode.
            args: not used.
            kwargs: ``case``: names of the volumes; ``index``: numbers of the slices of a batch of slices, which seed
                the noise unless it is shared.
        """
        translator = cast(Translator, unwrap(network))
        translator.check_ready()
        original, inputs = inputs, convert_to_tensor(inputs, track_meta=False)
        if tuple(inputs.shape[1:4]) != (1, *translator.image_size):
            raise ValueError(
                f"TranslationInferer: got sources of shape {tuple(inputs.shape)}; this network takes slices of "
                f"{translator.image_size[0]} x {translator.image_size[1]} pixels in one channel. Fit the images to it "
                "(the recipes do), or train a network for their size."
            )
        if inputs.ndim == 4:
            index = kwargs.get("index")
            numbers = range(len(inputs)) if index is None else [int(number) for number in index]
            return self._translate(inputs, network, translator, 0, numbers)
        cases = kwargs.get("case") or [""] * len(inputs)
        volumes = [
            self._volume(volume, network, translator, _case_number(name))
            for volume, name in zip(inputs, cases, strict=True)
        ]
        return with_geometry(torch.stack(volumes), original)

    def _volume(self, volume: Tensor, network: Callable[..., Any], translator: Translator, case: int) -> Tensor:
        """(1, X, Y, Z) -> (num_samples, X, Y, Z)."""
        slices = volume.permute(3, 0, 1, 2).contiguous()  # (Z, 1, X, Y)
        share = (slices > FOREGROUND_LEVEL).flatten(1).float().mean(dim=1)
        numbers = torch.nonzero(share >= self.min_foreground).flatten().tolist()
        result = slices.new_full((len(slices), self.num_samples, *slices.shape[2:]), BACKGROUND)
        for start in range(0, len(numbers), self.batch_size):
            chosen = numbers[start : start + self.batch_size]
            result[chosen] = self._translate(slices[chosen], network, translator, case, chosen)
        return result.permute(1, 2, 3, 0)

    def _translate(
        self,
        source: Tensor,
        network: Callable[..., Any],
        translator: Translator,
        case: int,
        numbers: Sequence[int],
    ) -> Tensor:
        """(B, 1, X, Y) -> (B, num_samples, X, Y)."""
        schedule = translator.schedule
        samples = []
        for number in range(self.num_samples):
            noise = self._noise(source, schedule.num_steps, case, number, numbers)  # (T, B or 1, 1, X, Y)
            with autocast(source.device, self.amp):
                samples.append(
                    sample(
                        lambda x_t, t: network(x_t, t, source),
                        source,
                        schedule,
                        noise=lambda t, noise=noise: noise[t - 1],  # type: ignore[misc]
                        deterministic=self.deterministic,
                    )
                )
        return torch.cat(samples, dim=1).float()

    def _noise(self, source: Tensor, num_steps: int, case: int, sample_number: int, numbers: Sequence[int]) -> Tensor:
        keys = [()] if self.share_noise else [(number,) for number in numbers]
        maps = [
            torch.randn(
                num_steps,
                1,
                *source.shape[1:],
                generator=torch.Generator().manual_seed(
                    derive_seed(Stream.SAMPLE, self.seed, case, sample_number, *key)
                ),
            )
            for key in keys
        ]
        return torch.cat(maps, dim=1).to(source.device)


def _case_number(name: str) -> int:
    """A number that belongs to a name, the same in every process and session; 0 for no name."""
    return int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:6], "big") if name else 0
