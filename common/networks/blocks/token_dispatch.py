"""Move tokens to the experts they chose, and back."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CPU_ROW_MULTIPLE = 32


@dataclass(frozen=True)
class Dispatch:
    """Where the rows of M tokens, k choices each, lie in one buffer of R rows sorted by expert.

    Attributes:
        source: token of each row of the buffer, ``(R,)``.
        place: row of each choice in the buffer, ``(M, k)``.
        ends: end of each expert's slice, ``(E,)`` int32.
    """

    source: Tensor
    place: Tensor
    ends: Tensor

    @classmethod
    def from_choices(cls, experts: Tensor, num_experts: int) -> "Dispatch":
        """Sort the choices ``(M, k)``, expert indices, by expert; the order of tokens is kept within an expert.

        On a GPU the slices touch (R = M k) and the host never waits for the device. On a CPU each slice is filled up to
        a multiple of 32 rows with copies of token 0, whose results are not used: the bfloat16 kernels are compiled per
        matrix size, and without this nearly every step would bring sizes not met before.
        """
        top_k, flat = experts.shape[1], experts.flatten()
        order = flat.argsort(stable=True)
        ascending = flat[order]
        each = torch.arange(num_experts, device=flat.device)
        ends = torch.searchsorted(ascending, each, right=True, out_int32=True)
        position = torch.arange(len(flat), device=flat.device)
        num_rows = len(flat)
        if flat.device.type == "cpu":
            counts = ends.diff(prepend=ends.new_zeros(1))
            padding = -counts % _CPU_ROW_MULTIPLE
            position += (padding.cumsum(0) - padding)[ascending]
            ends = ends + padding.cumsum(0, dtype=torch.int32)
            num_rows = int(ends[-1])
        place = torch.empty_like(order).scatter_(0, order, position)
        source = torch.zeros(num_rows, dtype=torch.int64, device=flat.device).scatter_(0, position, order // top_k)
        return cls(source, place.view_as(experts), ends)


def spread(tokens: Tensor, dispatch: Dispatch) -> Tensor:
    """Copy tokens ``(M, D)`` into the sorted buffer, ``(R, D)``."""
    return _Spread.apply(tokens, dispatch.source, dispatch.place)


def combine(rows: Tensor, weights: Tensor, dispatch: Dispatch) -> Tensor:
    """Sum each token's rows of the buffer ``(R, D)`` with its weights ``(M, k)``: ``(M, D)``, float32 or wider."""
    return _Combine.apply(rows, weights.to(torch.promote_types(rows.dtype, torch.float32)), dispatch.place)


class _Spread(torch.autograd.Function):
    """Gathers in its backward pass, too, where autograd would scatter with atomic additions."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, source: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return tokens.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (place,) = ctx.saved_tensors
        first, *others = place.unbind(dim=1)
        grad_tokens = grad.index_select(0, first)
        for rows in others:
            grad_tokens = grad_tokens + grad.index_select(0, rows)
        return grad_tokens, None, None


class _Combine(torch.autograd.Function):
    """One pass per choice over ``(M, D)``; what the padding rows of the buffer hold takes no part."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights, place)
        y = weights.new_zeros(len(place), rows.shape[1])
        for choice, weight in zip(place.unbind(dim=1), weights.split(1, dim=1), strict=True):
            y.addcmul_(rows.index_select(0, choice).to(y.dtype), weight)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weights, place = ctx.saved_tensors
        grad_rows = torch.zeros_like(rows)
        grad_weights = []
        for choice, weight in zip(place.unbind(dim=1), weights.split(1, dim=1), strict=True):
            grad_rows.index_copy_(0, choice, (grad * weight).to(rows.dtype))
            grad_weights.append((grad * rows.index_select(0, choice)).sum(dim=1))
        return grad_rows, torch.stack(grad_weights, dim=1), None
