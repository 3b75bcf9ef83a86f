"""What the contrastive pretraining of a latent embedder starts from: pairs of latents that are to be told to be one."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from ..parallel import process_count, process_rank
from .randomness import StepRandomness

Positives = Literal["augment", "posterior", "self"]


class EmbeddingPrepareBatch(PrepareBatch):
    """Latents of a batch of slices, twice, in two versions that belong together.

    Returned are the latents as input, scaled: (2B, C, h, w), first the B versions a, then in the same order the B
    versions b; and the slices' numbers (B,) as target, which the loss does not need.

    Args:
        randomness: source of the random numbers; see :class:`StepRandomness`.
        scale: factor that gives the latents about unit variance.
        positives: ``augment``: two different ones of the ``views`` (B, K, C, h, w) of a slice; ``posterior``: two
            samples of the posterior with ``mean`` and ``logvar`` (B, C, h, w); ``self``: the ``mean``, only once, hence
            an input (B, C, h, w).
    """

    def __init__(self, randomness: StepRandomness, scale: float, positives: Positives = "augment") -> None:
        if positives not in get_args(Positives):
            raise ValueError(
                f"EmbeddingPrepareBatch: positives={positives!r} is unknown; choose one of "
                f"{', '.join(get_args(Positives))}."
            )
        self.randomness, self.scale, self.positives = randomness, scale, positives

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Raises ValueError where the batch does not hold what ``positives`` is made from."""
        names = {"augment": ("views",), "posterior": ("mean", "logvar"), "self": ("mean",)}[self.positives]
        if not batchdata.keys() >= set(names):
            number = "two or more" if self.positives == "augment" else "0"
            raise ValueError(
                f"positives={self.positives!r} is made from {' and '.join(names)}, but the batch holds "
                f"{', '.join(batchdata)}: ask LatentViews for {number} views."
            )
        latents = [batchdata[name].to(device=device, non_blocking=non_blocking, **kwargs).float() for name in names]
        first, *rest = latents
        if self.positives == "augment":
            inputs = self._two_views(first)
        elif self.positives == "posterior":
            inputs = self._two_samples(first, *rest)
        else:
            inputs = first
        return self.scale * inputs, batchdata["index"].to(device=device, non_blocking=non_blocking)

    def _two_views(self, views: Tensor) -> Tensor:
        """(B, K, C, h, w) -> (2B, C, h, w); every ordered pair of different views is equally likely."""
        size, number = views.shape[:2]
        # every process draws for all of them and keeps its own rows
        draws = torch.rand(
            size * process_count(), 2, generator=self.randomness.shared(views.device), device=views.device
        )[process_rank() :: process_count()]
        first = (draws[:, 0] * number).long().clamp(max=number - 1)
        second = (first + 1 + (draws[:, 1] * (number - 1)).long().clamp(max=number - 2)) % number
        rows = torch.arange(size, device=views.device)
        return torch.cat([views[rows, first], views[rows, second]])

    def _two_samples(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """(B, C, h, w) each -> (2B, C, h, w)."""
        noise = torch.randn(
            len(mean) * process_count(),
            2,
            *mean.shape[1:],
            generator=self.randomness.shared(mean.device),
            device=mean.device,
        )[process_rank() :: process_count()]
        deviation = (0.5 * logvar).exp()
        return torch.cat([mean + deviation * noise[:, 0], mean + deviation * noise[:, 1]])
