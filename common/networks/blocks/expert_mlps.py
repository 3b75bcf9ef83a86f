"""Several MLPs side by side, each applied to its own slice of rows."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_grouped_mm = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def expert_mlps(rows: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, ends: Tensor) -> Tensor:
    """``gelu(rows @ weight1[e].T + bias1[e]) @ weight2[e].T + bias2[e]`` for the rows of each expert e.

    On a GPU in bfloat16, with layer widths that are multiples of 8, the products are grouped ones and the host never
    waits for the device (with PyTorch's native kernel, compute capability 9.0 and newer). Elsewhere it is a loop over
    the experts' slices. On a CPU that costs nothing; on a GPU (float32, odd widths) the loop reads the E slice ends on
    the host, one synchronization per call.

    Args:
        rows: sorted by expert, ``(R, D)``; the result has the same shape.
        weight1: ``(E, H, D)``, in the dtype of ``rows``, as all that follow.
        bias1: ``(E, H)``.
        weight2: ``(E, D, H)``.
        bias2: ``(E, D)``.
        ends: end of each expert's slice, ``(E,)`` int32.
    """
    if rows.device.type == "cuda" and can_group(rows, weight1):
        hidden = F.gelu(grouped_linear(rows, weight1, bias1, ends))  # (R, H)
        return grouped_linear(hidden, weight2, bias2, ends)
    sizes = [end - start for start, end in pairwise([0, *ends.tolist()])]
    return _MlpPerSlice.apply(rows, weight1, bias1, weight2, bias2, sizes)


def can_group(rows: Tensor, weight: Tensor) -> bool:
    """Whether the grouped product takes these operands: bfloat16, rows and weights aligned to 16 bytes."""
    aligned = weight.shape[-1] % 8 == 0 and weight.shape[-2] % 8 == 0
    return _grouped_mm is not None and rows.dtype == torch.bfloat16 and aligned


def grouped_linear(rows: Tensor, weight: Tensor, bias: Tensor, ends: Tensor) -> Tensor:
    """``rows @ weight[e].T + bias[e]`` as one grouped matrix product; the biases are a second, thin one."""
    assert _grouped_mm is not None
    number = torch.arange(len(rows), device=rows.device, dtype=ends.dtype)
    expert = torch.searchsorted(ends, number, right=True)  # (R,)
    member = F.one_hot(expert, len(ends)).to(rows.dtype)  # (R, E): a gather of biases would need atomic adds backward
    return torch.addmm(_grouped_mm(rows, weight.mT, offs=ends), member, bias)


class _MlpPerSlice(torch.autograd.Function):
    """Loop over experts, each taken from input to output while its slice is in the cache.

    All results are written into slices of one buffer, which saves joining them; an expert without rows gets gradients
    of zero.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, sizes: list[int]
    ) -> Tensor:
        hidden = rows.new_empty(len(rows), weight1.shape[1])  # (R, H), before the nonlinearity
        active, y = torch.empty_like(hidden), torch.empty_like(rows)
        slices = zip(*(x.split(sizes) for x in (rows, hidden, active, y)), strict=True)
        for e, (x_e, hidden_e, active_e, y_e) in enumerate(slices):
            torch.addmm(bias1[e], x_e, weight1[e].mT, out=hidden_e)
            torch.ops.aten.gelu.out(hidden_e, out=active_e)
            torch.addmm(bias2[e], active_e, weight2[e].mT, out=y_e)
        ctx.save_for_backward(rows, hidden, active, weight1, weight2)
        ctx.sizes = sizes
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, active, weight1, weight2 = ctx.saved_tensors
        grad_rows, grad_weight1, grad_weight2 = (torch.empty_like(x) for x in (rows, weight1, weight2))
        grad_bias1, grad_bias2 = weight1.new_empty(weight1.shape[:2]), weight2.new_empty(weight2.shape[:2])
        slices = zip(*(x.split(ctx.sizes) for x in (rows, hidden, active, grad, grad_rows)), strict=True)
        for e, (x_e, hidden_e, active_e, grad_e, grad_x_e) in enumerate(slices):
            torch.mm(grad_e.mT, active_e, out=grad_weight2[e])
            torch.sum(grad_e, dim=0, out=grad_bias2[e])
            grad_hidden = torch.ops.aten.gelu_backward(grad_e @ weight2[e], hidden_e)  # (R_e, H)
            torch.mm(grad_hidden.mT, x_e, out=grad_weight1[e])
            torch.sum(grad_hidden, dim=0, out=grad_bias1[e])
            torch.mm(grad_hidden, weight1[e], out=grad_x_e)
        return grad_rows, grad_weight1, grad_bias1, grad_weight2, grad_bias2, None
