"""What a translator is held against: floors that are fitted on training slices, and the limit of its autoencoder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..inferers.slicewise import BACKGROUND, FOREGROUND_LEVEL
from ..metrics.pointwise import PointwiseMap

Reconstruct = Callable[[Tensor], Tensor]
"""Slices (B, 1, X, Y) in [-1, 1] through an autoencoder and back, in the same shape."""

_BATCH = 64  # training slices
_RECONSTRUCTED = 16  # slices at once


class PairedSlices(Protocol):
    """Slices of source and target in [-1, 1], as ``SliceDataset`` hands them out."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class TrainingFloors:
    """Predictions that know the training slices, but neither place nor context.

    ``mean_target``: mean intensity of the target over the foreground, in [-1, 1]; ``pointwise``: the same for each
    intensity of the source, over all pixels.
    """

    mean_target: float
    pointwise: PointwiseMap

    def predict(self, source: Tensor, inside: Tensor) -> Mapping[str, Tensor]:
        """Volumes of the shape of ``source``, by floor; ``inside`` tells where the mean goes, elsewhere is background.

        The pointwise map needs no mask: it has learned what background becomes.
        """
        constant = torch.full_like(source, BACKGROUND).masked_fill(inside, self.mean_target)
        return {"mean_target": constant, "pointwise": self.pointwise.apply(source)}


def fit_floors(training: PairedSlices) -> TrainingFloors:
    """Fit all floors in one pass; foreground is what is brighter than background in source or target.

    Raises:
        ValueError: no pixel is.
    """
    pointwise, total, count = PointwiseMap(), 0.0, 0
    for start in range(0, len(training), _BATCH):
        batch = training.__getitems__(range(start, min(start + _BATCH, len(training))))
        source, target = batch["source"], batch["target"]
        pointwise.update(source, target)
        foreground = target[(source > FOREGROUND_LEVEL) | (target > FOREGROUND_LEVEL)]
        total, count = total + float(foreground.double().sum()), count + len(foreground)
    if not count:
        raise ValueError(
            f"none of the {len(training)} training slices has foreground, so there is no floor to fit; check the "
            "training data."
        )
    return TrainingFloors(total / count, pointwise)


@torch.no_grad()
def through_autoencoder(target: Tensor, inside: Tensor, reconstruct: Reconstruct) -> Tensor:
    """A volume (1, X, Y, Z) in [-1, 1] through ``reconstruct``, a few slices at a time; background outside.

    Slices that lie outside as a whole are not reconstructed. The result is not clamped.

    Raises:
        ValueError: ``reconstruct`` changes the shape, or gives values that are not finite.
    """
    result = torch.full_like(target, BACKGROUND, dtype=torch.float32)
    slices = target.permute(3, 0, 1, 2).contiguous()  # (Z, 1, X, Y)
    numbers = inside.flatten(0, -2).any(dim=0).nonzero().flatten()
    for chosen in numbers.split(_RECONSTRUCTED):
        decoded = reconstruct(slices[chosen]).to(result)
        if decoded.shape != slices[chosen].shape or not decoded.isfinite().all():
            raise ValueError(
                f"the autoencoder makes {tuple(decoded.shape)} of slices of shape {tuple(slices[chosen].shape)}, or "
                "values that are NaN or infinite; check its weights and the image size it was trained for."
            )
        result[..., chosen] = decoded.permute(1, 2, 3, 0)
    return torch.where(inside, result, torch.full_like(result, BACKGROUND))
