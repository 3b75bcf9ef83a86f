"""Random numbers for samplers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None


def draw_noise(
    shape: Sequence[int],
    generator: Generators = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal noise of ``shape`` (B, ...).

    Args:
        shape: of the result, batch first.
        generator: None for PyTorch's global one; one generator for the whole batch; or B generators, one a sample,
            which makes every sample independent of how many others are drawn beside it. Numbers are drawn on the
            generator's device and then moved, so CPU generators give the same noise on any device.
        dtype: of the result.
        device: of the result, the CPU if not given.
    Raises:
        ValueError: the number of generators is not the batch size.
    """
    device = torch.device(device or "cpu")
    if generator is None:
        return torch.randn(*shape, dtype=dtype, device=device)
    if isinstance(generator, torch.Generator):
        noise = torch.randn(*shape, generator=generator, dtype=dtype, device=generator.device)
    else:
        if len(generator) != shape[0]:
            raise ValueError(f"draw_noise: {len(generator)} generators for a batch of {shape[0]}; give one per sample.")
        rows = [torch.randn(*shape[1:], generator=g, dtype=dtype, device=g.device) for g in generator]
        noise = torch.stack(rows)  # (B, ...)
    if device.type == "cuda" and noise.device.type == "cpu":
        noise = noise.pin_memory()  # a copy from pinned memory does not make the host wait for the GPU
    return noise.to(device, non_blocking=True)
