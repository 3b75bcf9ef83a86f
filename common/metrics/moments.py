"""Mean and covariance of feature vectors, of all at once or streamed over batches and processes, in float64."""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ..parallel import gather_objects


class Moments(NamedTuple):
    """Mean ``(D,)`` and unbiased covariance ``(D, D)`` of feature vectors, float64."""

    mean: Tensor
    covariance: Tensor


def feature_moments(features: Tensor) -> Moments:
    """Moments of ``(N, D)`` feature vectors.

    Raises:
        ValueError: fewer than two vectors, which have no covariance.
    """
    return RunningMoments().update(features).result()


class RunningMoments:
    """Moments of vectors that come in batches; memory is ``D * D``, whatever the number of vectors.

    Two parts with n and m vectors, means a and b and scatter matrices S and T have together the mean
    ``a + m / (n + m) (b - a)`` and the scatter ``S + T + n m / (n + m) (b - a)(b - a)^T`` (Chan et al. 1983), which
    loses nothing to cancellation, however far the mean lies from 0.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)  # (D,) once there are vectors
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)  # (D, D)

    def update(self, features: Tensor) -> "RunningMoments":
        """Take in ``(B, D)`` vectors, B >= 0; returns itself."""
        if features.ndim != 2:
            raise ValueError(f"RunningMoments: features of shape {tuple(features.shape)}; expected (B, D).")
        part = RunningMoments()
        if len(features):
            vectors = features.detach().as_subclass(Tensor).double()
            part.count, part._mean = len(vectors), vectors.mean(0)
            centered = vectors - part._mean
            part._scatter = centered.mT @ centered
        return self.merge(part)

    def merge(self, other: "RunningMoments") -> "RunningMoments":
        """Take in the vectors that ``other`` has seen; returns itself.

        Raises:
            ValueError: vectors of another length.
        """
        if self.count and other.count and len(self._mean) != len(other._mean):
            raise ValueError(
                f"RunningMoments: features of {len(other._mean)} numbers after features of {len(self._mean)}."
            )
        if not self.count:
            self.count, self._mean, self._scatter = other.count, other._mean, other._scatter
        elif other.count:
            total = self.count + other.count
            shift = other._mean.to(self._mean.device) - self._mean
            between = torch.outer(shift, shift) * (self.count * other.count / total)
            self._mean = self._mean + shift * (other.count / total)
            self._scatter = self._scatter + other._scatter.to(self._scatter.device) + between
            self.count = total
        return self

    def over_processes(self) -> "RunningMoments":
        """What all processes together have seen, on the CPU; every process must call this."""
        own = RunningMoments()
        own.count, own._mean, own._scatter = self.count, self._mean.cpu(), self._scatter.cpu()
        return reduce(RunningMoments.merge, gather_objects([own]), RunningMoments())

    def result(self) -> Moments:
        """Mean and covariance.

        Raises:
            ValueError: fewer than two vectors, which have no covariance.
        """
        if self.count < 2:
            raise ValueError(f"Frechet distance: {self.count} image(s) on one side; it takes at least two.")
        return Moments(self._mean, self._scatter / (self.count - 1))
