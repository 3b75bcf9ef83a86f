"""Batches in which source and target do not belong together."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from ..parallel import process_count, process_rank
from .randomness import StepRandomness


class Pairs(Protocol):
    """Indexed pairs of images; ``SliceDataset`` is one."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Mapping[str, Tensor]: ...


class UnpairedPrepareBatch(PrepareBatch):
    """Sources as they come, each with the target of a slice that is drawn from the whole data set.

    A batch holds ``source`` (B, 1, X, Y); returned are it and as many targets. Every process draws for all of them and
    keeps its own.

    Args:
        dataset: where the targets come from, under the key ``target``.
        randomness: source of the random numbers; see :class:`StepRandomness`.
    """

    def __init__(self, dataset: Pairs, randomness: StepRandomness) -> None:
        self.dataset = dataset
        self.randomness = randomness

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        source = batchdata["source"]
        count, rank = process_count(), process_rank()
        generator = self.randomness.shared("cpu")
        drawn = torch.randint(len(self.dataset), (len(source) * count,), generator=generator)[rank::count]
        target = self.dataset.__getitems__(drawn.tolist())["target"]
        source, target = (
            image.to(device=device, non_blocking=non_blocking, **kwargs).float() for image in (source, target)
        )
        return source, target
