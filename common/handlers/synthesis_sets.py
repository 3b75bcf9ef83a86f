"""The sets of images that a generator is judged by."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..seeds import Stream, derive_seed

_BATCH = 64


@dataclass(frozen=True)
class SynthesisSets:
    """Generated images and the real ones that they are compared with, all on the CPU and in [0, 1].

    Attributes:
        samples: generated, (N, 1, X, Y), in the order of their numbers.
        partners: the real image that stood beside each sample in the evaluation; with labels, the one whose label map
            it was painted for; (N, 1, X, Y), the same one more than once if the section is small.
        labels: the label maps, class indices (N, 1, X, Y); None: the generator knows no labels.
        training: reference slices, (M, 1, X, Y).
        device: where networks look at the images.
    """

    samples: Tensor
    partners: Tensor
    labels: Tensor | None
    training: Tensor
    device: torch.device

    @cached_property
    def distinct(self) -> Tensor:
        """Positions of the first sample of each distinct partner, rising."""
        _, inverse = self.partners.unique(dim=0, return_inverse=True)
        order = torch.arange(len(inverse))
        return torch.full((int(inverse.max()) + 1,), len(inverse)).scatter_reduce(0, inverse, order, "amin").sort()[0]

    @cached_property
    def real(self) -> Tensor:
        """Held-out real images, each once."""
        return self.partners[self.distinct]

    @cached_property
    def training_part(self) -> Tensor:
        """As many training slices as there are samples, drawn at random: the floor that only sampling makes."""
        generator = torch.Generator().manual_seed(derive_seed(Stream.SCORE, 0, len(self.samples)))
        return self.training[torch.randperm(len(self.training), generator=generator)[: len(self.samples)]]

    @property
    def groups(self) -> dict[str, Tensor]:
        """By the name that they have in ``metrics.json``."""
        return {"samples": self.samples, "held_out": self.real, "training_part": self.training_part}

    def apply(self, function: Callable[..., Tensor], *images: Tensor) -> Tensor:
        """``function`` of batches (B, 1, X, Y) on the device; the results, one row per image, on the CPU."""
        batches: Iterator[Sequence[Tensor]] = zip(*(part.split(_BATCH) for part in images), strict=True)
        return torch.cat([function(*(part.to(self.device) for part in batch)).cpu() for batch in batches])
