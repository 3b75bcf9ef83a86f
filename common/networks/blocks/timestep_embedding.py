"""Embedding of the diffusion time."""

import math

import torch
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dim: int, *, time_scale: float = 999.0) -> Tensor:
    """Times ``(B,)`` to ``[cos(w_i s t) | sin(w_i s t)]``, ``(B, dim)``, with ``w_i = 10000**(-2i / dim)``.

    Continuous times in [0, 1] thereby span the range of the 1000 discrete steps of DDPM (Ho et al. 2020).
    """
    if dim % 2:
        raise ValueError(f"sinusoidal_embedding: dim={dim} must be even, half cosines and half sines.")
    half = dim // 2
    frequencies = torch.exp(-math.log(10000.0) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = time_scale * t.float()[:, None] * frequencies  # (B, dim / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Time token: the sinusoid of ``t``, passed through ``D -> 4D -> SiLU -> D`` unless ``mlp`` is off.

    t ``(B,)`` in [0, 1] -> ``(B, D)``. DCT-MoE has the MLP, DCTdiff and U-ViT do without.
    """

    def __init__(self, hidden_size: int, *, mlp: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        layers = [nn.Linear(hidden_size, 4 * hidden_size), nn.SiLU(), nn.Linear(4 * hidden_size, hidden_size)]
        self.mlp = nn.Sequential(*layers) if mlp else nn.Identity()

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(sinusoidal_embedding(t, self.hidden_size))
