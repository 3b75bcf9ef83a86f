"""Group normalization, optionally modulated, fast for channels-last tensors."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NUM_GROUPS = 32


class GroupNorm(nn.Module):
    """``y = (1 + scale) (w n + b) + shift``, n being x at zero mean and unit variance in each of 32 channel groups.

    x ``(B, C, H, W)``, scale and shift ``(B, C)`` or absent -> y ``(B, C, H, W)`` in x's type and memory format.
    All arithmetic is float32, under autocast and for bfloat16 x, too.

    Raises:
        ValueError: C is no multiple of 32.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        if channels < NUM_GROUPS or channels % NUM_GROUPS:
            raise ValueError(
                f"GroupNorm: channels={channels} do not divide into {NUM_GROUPS} groups; "
                f"every width of the network must be a multiple of {NUM_GROUPS}."
            )
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        if scale is None or shift is None:
            return _Normalization.apply(x, self.weight, self.bias, self.eps)
        factor = 1 + scale.to(self.weight.dtype)  # (B, C)
        offset = torch.addcmul(shift.to(self.bias.dtype), factor, self.bias)
        return _Normalization.apply(x, factor * self.weight, offset, self.eps)


class _Normalization(torch.autograd.Function):
    """``w n + b`` with w and b ``(C,)`` or ``(B, C)``, as one affine map of x per image and channel.

    PyTorch's own kernel is, for channels-last tensors on a CPU, an order of magnitude slower than the convolutions
    between which it stands when a group has few channels. Here only sums over pixels and multiply-adds touch the
    images; everything else is ``(B, C)``. The type is that of the parameters inside and that of x outside.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        values = x.to(weight.dtype)
        mean = _group_mean(values.mean((2, 3)))  # (B, C), as all below but values
        # centered first: the mean of squares less the square of the mean cancels where the mean is large
        variance = _group_mean((values - mean[..., None, None]).square_().mean((2, 3)))
        inverse_std = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse_std)
        gain = weight * inverse_std
        return _affine(values, gain, bias - gain * mean).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse_std = ctx.saved_tensors
        values, grad_values = x.to(weight.dtype), grad.to(weight.dtype)
        pixels = x.shape[2] * x.shape[3]
        grad_bias = grad_values.sum((2, 3))  # (B, C)
        grad_weight = ((values * grad_values).sum((2, 3)) - mean * grad_bias) * inverse_std  # sum of grad times n
        # dx = (w grad - group mean of (w grad) - n times group mean of (w grad n)) / std
        common = _group_mean(weight * grad_bias) / pixels
        along = _group_mean(weight * grad_weight) / pixels * inverse_std
        offset = (along * mean - common) * inverse_std
        grad_x = _affine(values, -along * inverse_std, offset)
        grad_x = grad_x.addcmul_(grad_values, (weight * inverse_std)[..., None, None]).to(x.dtype)
        if weight.ndim == 1:
            grad_weight, grad_bias = grad_weight.sum(0), grad_bias.sum(0)
        return grad_x, grad_weight, grad_bias, None


def _affine(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """``gain x + offset`` of x ``(B, C, H, W)`` with ``(B, C)``."""
    return torch.addcmul(offset[..., None, None], x, gain[..., None, None])


def _group_mean(x: Tensor) -> Tensor:
    """Mean over each group of channels, repeated for its channels: ``(B, C)`` -> ``(B, C)``."""
    groups = x.unflatten(1, (NUM_GROUPS, -1))
    return groups.mean(2, keepdim=True).expand_as(groups).flatten(1)
