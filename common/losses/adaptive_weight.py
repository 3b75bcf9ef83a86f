"""How much an adversarial loss counts beside a reconstruction loss."""

from collections import deque
from typing import Literal, get_args

import torch
from torch import Tensor

from ..parallel import process_count, sum_over_processes

WeightMode = Literal["adaptive", "fixed"]

_RECENT = 100  # calls that the alarm looks back on


class AdaptiveWeight:
    """Weight of the adversarial loss that gives it a fixed share of what the reconstruction loss does to an image.

    ``lambda = min(weight * clamp(|dL_rec/dW| / (|dL_GAN/dW| + 1e-4), 0, 1e4), cap)`` with the norms of the gradients of
    the last layer's weights W, over the batch of all processes. Called with both losses (scalars, with their graphs,
    which are kept) and W -> scalar float32 without a graph.

    Args:
        mode: ``"adaptive"``; or ``"fixed"``: always ``fixed``.
        weight: share.
        fixed: weight of mode ``"fixed"``.
        cap: largest weight; a discriminator whose gradient vanishes would get nearly all of the training.

    Source: Esser et al. 2021, "Taming transformers", eq. 7; FQCDM, eq. 7.
    """

    def __init__(
        self, mode: WeightMode = "adaptive", weight: float = 0.8, fixed: float = 0.01, cap: float = 10.0
    ) -> None:
        if mode not in get_args(WeightMode):
            raise ValueError(f"AdaptiveWeight: mode={mode!r} must be one of {', '.join(get_args(WeightMode))}.")
        if min(weight, fixed, cap) < 0:
            raise ValueError(f"AdaptiveWeight: weight={weight}, fixed={fixed} and cap={cap} must not be negative.")
        self.mode, self.weight, self.fixed, self.cap = mode, weight, fixed, cap
        self._capped: deque[Tensor] = deque(maxlen=_RECENT)

    def __call__(self, reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor) -> Tensor:
        if self.mode == "fixed":
            return torch.full((), self.fixed, device=adversarial_loss.device)
        ours, theirs = (_gradient_norm(loss, last_layer) for loss in (reconstruction_loss, adversarial_loss))
        uncapped = self.weight * (ours / (theirs + 1e-4)).clamp(0, 1e4)
        self._capped.append(uncapped > self.cap)
        return uncapped.clamp(max=self.cap)

    @property
    def alarm(self) -> float:
        """Share of the last 100 calls in which the cap was needed; near 1 the discriminator has nothing to say."""
        return torch.stack(tuple(self._capped)).float().mean().item() if self._capped else 0.0


def _gradient_norm(loss: Tensor, weights: Tensor) -> Tensor:
    """``|dL/dW|``, float32, of the mean of the loss over all processes."""
    (gradient,) = torch.autograd.grad(loss, weights, retain_graph=True)
    return torch.linalg.vector_norm(sum_over_processes(gradient.float()) / process_count())
