"""The factor that gives latents unit variance, measured on the training images and stored with the autoencoder."""

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from ..parallel import process_rank
from ..pictures import evenly_spaced
from .ema import EMA

_BATCH = 32


class ScalableAutoencoder(Protocol):
    """What :class:`LatentScale` needs of an autoencoder; ``ScratchAutoencoder`` has it."""

    def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]: ...

    def set_scale(self, std: float) -> None: ...


class PairedSlices(Protocol):
    """Slices of source and target in [-1, 1], as ``SliceDataset`` hands them out."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]: ...


class LatentScale:
    """Weights of a trained autoencoder with the scale of its latents: 1 / standard deviation of the target's means.

    The deviation is over all elements of the latents of ``number`` slices, spread evenly over the training slices.

    Args:
        ema: average of the autoencoder's weights.
        slices: training slices.
        key: which images: those that diffusion will generate.
        number: how many slices.
    """

    def __init__(self, ema: EMA, slices: PairedSlices, key: str = "target", number: int = 512) -> None:
        self.ema, self.slices, self.key, self.number = ema, slices, key, number

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of the average; on rank 0, which writes them, with the scale they give now."""
        if process_rank() == 0:
            cast(ScalableAutoencoder, self.ema.model).set_scale(self.deviation())
        return self.ema.state_dict()

    @torch.no_grad()
    def deviation(self) -> float:
        """Standard deviation of the latents, before any scale."""
        model = cast(ScalableAutoencoder, self.ema.model)
        device = next(cast(nn.Module, model).parameters()).device
        chosen = evenly_spaced(len(self.slices), self.number)
        total = torch.zeros(3, dtype=torch.float64)  # number, sum, sum of squares
        for start in range(0, len(chosen), _BATCH):
            images = self.slices.__getitems__(chosen[start : start + _BATCH])[self.key].to(device)
            mean = model.encode_moments(images)[0].double().cpu()
            total += torch.stack([torch.tensor(float(mean.numel())), mean.sum(), mean.square().sum()])
        count, first, second = total.tolist()
        return (second / count - (first / count) ** 2) ** 0.5
