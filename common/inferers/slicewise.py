"""Volume in, volume out, slice by slice: what all translators of slices have in common."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from ..seeds import Stream, derive_seed
from ..transforms.target_intensity import with_geometry
from .diffusion import unwrap

BACKGROUND = -1.0
FOREGROUND_LEVEL = BACKGROUND + 1e-3

SliceNoise = Callable[..., Tensor]
"""``noise(count, *shape)`` -> ``(count, B or 1, *shape)``: ``count`` standard normal maps for each slice of a batch."""


class SliceTranslator(Protocol):
    """What the inferers ask of every network; ``ResidualShiftTranslator`` has it."""

    image_size: tuple[int, int]

    def check_ready(self) -> None: ...


class SlicewiseInferer(Inferer, ABC):
    """Translates slices, or volumes slice by slice; a subclass says how a batch of slices is translated.

    Noise is a function of ``seed``, the case, the number of the sample and, unless it is shared, the slice: results do
    not depend on the batch size, the device or the number of processes (up to rounding). Memory on the device does not
    grow with the number of slices beyond the volume itself.

    Args:
        batch_size: slices of a volume that are translated at once.
        num_samples: translations to draw of each slice.
        share_noise: use the same noise for all slices of a volume, so that neighboring slices do not flicker.
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
        min_foreground: float = 0.005,
        seed: int = 0,
        amp: bool = False,
    ) -> None:
        if batch_size < 1 or num_samples < 1:
            raise ValueError(
                f"{type(self).__name__}: batch_size={batch_size} and num_samples={num_samples} must be at least 1."
            )
        self.batch_size = batch_size
        self.num_samples = num_samples
        self.share_noise = share_noise
        self.min_foreground = min_foreground
        self.seed = seed
        self.amp = amp

    @abstractmethod
    def translate(self, source: Tensor, network: Callable[..., Any], noises: Sequence[SliceNoise]) -> Tensor:
        """(B, 1, X, Y) -> (B, K, X, Y) float32, one translation for each of the K ``noises``."""

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
        translator = cast(SliceTranslator, unwrap(network))
        translator.check_ready()
        original, inputs = inputs, convert_to_tensor(inputs, track_meta=False)
        if tuple(inputs.shape[1:4]) != (1, *translator.image_size):
            raise ValueError(
                f"{type(self).__name__}: got sources of shape {tuple(inputs.shape)}; this network takes slices of "
                f"{translator.image_size[0]} x {translator.image_size[1]} pixels in one channel. Fit the images to it "
                "(the recipes do), or train a network for their size."
            )
        if inputs.ndim == 4:
            index = kwargs.get("index")
            numbers = range(len(inputs)) if index is None else [int(number) for number in index]
            return self.translate(inputs, network, self._noises(inputs.device, 0, numbers))
        cases = kwargs.get("case") or [""] * len(inputs)
        volumes = [self._volume(volume, network, case_number(name)) for volume, name in zip(inputs, cases, strict=True)]
        return with_geometry(torch.stack(volumes), original)

    def _volume(self, volume: Tensor, network: Callable[..., Any], case: int) -> Tensor:
        """(1, X, Y, Z) -> (num_samples, X, Y, Z)."""
        slices = volume.permute(3, 0, 1, 2).contiguous()  # (Z, 1, X, Y)
        share = (slices > FOREGROUND_LEVEL).flatten(1).float().mean(dim=1)
        numbers = torch.nonzero(share >= self.min_foreground).flatten().tolist()
        result = slices.new_full((len(slices), self.num_samples, *slices.shape[2:]), BACKGROUND)
        for start in range(0, len(numbers), self.batch_size):
            chosen = numbers[start : start + self.batch_size]
            result[chosen] = self.translate(slices[chosen], network, self._noises(volume.device, case, chosen))
        return result.permute(1, 2, 3, 0)

    def _noises(self, device: torch.device, case: int, numbers: Sequence[int]) -> list[SliceNoise]:
        """The noise of each sample of the slices ``numbers`` of a case."""

        def noise_of(sample_number: int) -> SliceNoise:
            def draw(count: int, *shape: int) -> Tensor:
                keys = [()] if self.share_noise else [(number,) for number in numbers]
                seeds = [derive_seed(Stream.SAMPLE, self.seed, case, sample_number, *key) for key in keys]
                maps = [torch.randn(count, 1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
                return torch.cat(maps, dim=1).to(device)  # (count, B or 1, *shape)

            return draw

        return [noise_of(number) for number in range(self.num_samples)]


def case_number(name: str) -> int:
    """A number that belongs to a name, the same in every process and session; 0 for no name."""
    return int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:6], "big") if name else 0
