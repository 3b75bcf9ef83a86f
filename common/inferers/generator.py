"""Translation by one pass of a generator, of slices and of volumes."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .precision import autocast
from .slicewise import SliceNoise, SlicewiseInferer


class GeneratorInferer(SlicewiseInferer):
    """Translates slices, or volumes slice by slice, with one network call per batch of slices and without any noise.

    Args:
        batch_size: slices of a volume that are translated at once.
        num_samples: 1; recipes that evaluate every kind of translator alike set it.
        min_foreground: slices of a volume of which a smaller share is brighter than background are not translated but
            filled with background.
        amp: run the network in bf16 where the device has it.
    """

    def __init__(
        self, batch_size: int = 16, num_samples: int = 1, min_foreground: float = 0.005, amp: bool = False
    ) -> None:
        super().__init__(batch_size, num_samples, min_foreground=min_foreground, amp=amp)
        if num_samples != 1:
            raise ValueError(
                f"GeneratorInferer: num_samples={num_samples}, but a generator has one answer to an image; set it to 1."
            )

    def translate(self, source: Tensor, network: Callable[..., Any], noises: Sequence[SliceNoise]) -> Tensor:
        """(B, 1, X, Y) -> (B, 1, X, Y)."""
        with autocast(source.device, self.amp):
            return network(source).float()
