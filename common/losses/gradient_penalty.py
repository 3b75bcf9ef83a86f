"""Penalty that keeps a Wasserstein critic's slope near one."""

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """``mean((|grad_x D(x)| - 1)^2)`` at points ``x = u real + (1 - u) fake``, a float32 scalar.

    D of a sample is the mean of its logits, as in the objective of the critic. Computed in float32 outside autocast;
    reaches the discriminator's weights, not the images.

    Args:
        discriminator: images ``(B, C, ...)`` -> logits ``(B, ...)``; without normalization over the batch, which would
            let a sample's logits depend on other samples.
        real: ``(B, C, ...)``.
        fake: as ``real``.
        u: ``(B,)``, uniform in [0, 1].
    Source: Gulrajani et al. 2017, "Improved training of Wasserstein GANs", eq. 3 (without lambda).
    """
    if real.shape != fake.shape or u.shape != real.shape[:1]:
        raise ValueError(
            f"gradient_penalty: real {tuple(real.shape)} and fake {tuple(fake.shape)} must have one shape (B, ...) and "
            f"u {tuple(u.shape)} must be (B,)."
        )
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        share = u.detach().float().reshape(-1, *[1] * (real.ndim - 1))  # (B, 1, ..., 1)
        x = torch.lerp(fake.detach().float(), real.detach().float(), share).requires_grad_()
        scores = discriminator(x).reshape(len(x), -1).mean(dim=1)  # (B, ...) -> (B,)
        (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)  # (B, C, ...)
        return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()
