"""Looking up a schedule's values for the samples of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(table: Tensor, t: Tensor, like: Tensor, *, first: int = 0) -> Tensor:
    """Values of a table at times t ``(B,)``, in the dtype and rank and on the device of ``like`` (B, ...).

    Does not wait for an accelerator, hence checks the range of t on the CPU only.

    Args:
        table: ``(N,)`` on the CPU.
        t: ``(B,)``, or ``(1,)`` for the same time in the whole batch; on the CPU or where ``like`` is.
        like: tensor that the values will be multiplied with.
        first: the time that row 0 belongs to.

    Returns:
        ``(B, 1, ..., 1)``.

    Raises:
        TypeError: t is not integer.
        IndexError: t on the CPU is outside the table.
    """
    if t.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"diffusion: time must be an integer tensor, got {t.dtype}.")
    last = first + len(table) - 1
    if t.device.type == "cpu" and not bool(((t >= first) & (t <= last)).all()):
        raise IndexError(f"diffusion: time {t.tolist()} is outside {first}..{last}, the steps of this schedule.")
    values = table.to(like.dtype).to(t.device, non_blocking=True)[t - first]  # (B,)
    return values.to(like.device, non_blocking=like.device.type != "cpu").reshape(-1, *[1] * (like.ndim - 1))
