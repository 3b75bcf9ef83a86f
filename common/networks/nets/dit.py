"""Diffusion transformer on latents, conditioned through adaptive layer norms: the backbone of Med-DiT."""

from collections.abc import Sequence

import torch
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from ..blocks.adaptive_norm import Modulation, modulated_norm
from ..blocks.dit_block import DiTBlock
from ..blocks.patches import PatchEmbedding, token_grid, unpatchify
from ..blocks.positions import fixed_positions
from ..blocks.precision import full_precision
from ..blocks.timestep_embedding import sinusoidal_embedding

_SINUSOIDS = 256


class DiT(nn.Module):
    """Diffusion transformer with adaLN-Zero (Peebles and Xie 2023) that several vectors, and an image, condition.

    x ``(B, latent_channels, X, Y)``, t ``(B,)`` integer steps of the original schedule (0..999), conditions
    ``num_conditions`` x ``(B, D)``, source ``(B, source_channels, X, Y)`` -> ``(B, out_channels, X, Y)`` in float32,
    under autocast, too. The blocks see ``c = [condition_1 + e(t) | condition_2 + e(t) | ...]`` (Med-DiT, eq. 6), or
    ``c = e(t)`` without conditions. The source, if any, is concatenated with x along the channels, pixel upon pixel:
    vectors say what is in an image, but not where.

    A fresh network returns exactly 0, and every block of it is the identity.

    Under autocast only attention and feed-forward layers run in low precision; the input, e(t), the modulation, the
    residual stream and the output stay in float32.

    Args:
        input_size: (X, Y) or a side, in latent pixels; multiples of ``patch_size``.
        patch_size: side of a patch in latent pixels.
        latent_channels: channels of x.
        source_channels: channels of the source; 0 for a network that takes none.
        out_channels: channels of the result: noise, and the interpolation of the variance where it is learned.
        hidden_size: D, a multiple of ``num_heads`` and of 4.
        depth: number of blocks.
        num_heads: attention heads.
        num_conditions: number of condition vectors.
        mlp_ratio: width of the feed-forward layers in units of D.
        long_skip: add to the input of block i > depth / 2 (from 0) what block ``depth - 1 - i`` returned.

    Raises:
        ValueError: sizes that do not divide, or an impossible count.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        input_size: int | Sequence[int],
        patch_size: int = 2,
        latent_channels: int = 4,
        source_channels: int = 0,
        out_channels: int = 8,
        hidden_size: int = 512,
        depth: int = 16,
        num_heads: int = 8,
        num_conditions: int = 2,
        mlp_ratio: float = 4.0,
        long_skip: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or num_conditions < 0 or source_channels < 0:
            raise ValueError(
                f"DiT: depth={depth} must be at least 1, num_conditions={num_conditions} and "
                f"source_channels={source_channels} at least 0."
            )
        self.input_size: tuple[int, int] = ensure_tuple_rep(input_size, 2)
        self.grid = token_grid("DiT", self.input_size, patch_size)
        self.patch_size, self.hidden_size, self.depth, self.num_heads = patch_size, hidden_size, depth, num_heads
        self.latent_channels, self.source_channels, self.out_channels = latent_channels, source_channels, out_channels
        self.num_conditions, self.mlp_ratio, self.long_skip = num_conditions, float(mlp_ratio), long_skip
        condition_size = max(num_conditions, 1) * hidden_size

        self.register_buffer("positions", fixed_positions(self.grid, hidden_size), persistent=False)  # (L, D)
        self.patch_embedding = PatchEmbedding(latent_channels + source_channels, patch_size, hidden_size)
        self.time_embedding = nn.Sequential(
            nn.Linear(_SINUSOIDS, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.blocks = nn.ModuleList(
            DiTBlock(hidden_size=hidden_size, num_heads=num_heads, condition_size=condition_size, mlp_ratio=mlp_ratio)
            for _ in range(depth)
        )
        self.output_modulation = Modulation(condition_size, hidden_size, 2)
        self.output = nn.Linear(hidden_size, patch_size**2 * out_channels)
        self._initialize()

    def _initialize(self) -> None:
        """Weights Xavier-uniform and biases 0; of the time embedding normal(0.02); 0 in modulations and output."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.time_embedding:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Modulation):
                module.reset_parameters()
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, t: Tensor, conditions: Sequence[Tensor] = (), source: Tensor | None = None) -> Tensor:
        self._check_input(x, t, conditions, source)
        c = self._condition(t, conditions)  # (B, max(num_conditions, 1) D)
        image = x if source is None else torch.cat([x, source], dim=1)
        h = self.patch_embedding(image) + self.positions  # (B, L, D)
        earlier: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if self.long_skip and index > self.depth / 2:
                h = h + earlier[self.depth - 1 - index]
            h = block(h, c)
            earlier.append(h)
        shift, scale = self.output_modulation(c)
        with full_precision(h.device):  # bfloat16 would cut the prediction to 8 bits
            y = self.output(modulated_norm(h, shift, scale))  # (B, L, p * p * out_channels)
        return unpatchify(y, self.patch_size, self.grid)

    def settings(self) -> dict[str, int | float | str]:
        """What the shapes of the weights do not tell in full but a checkpoint must agree with."""
        return {
            "input_size": ",".join(map(str, self.input_size)),
            "patch_size": self.patch_size,
            "latent_channels": self.latent_channels,
            "source_channels": self.source_channels,
            "out_channels": self.out_channels,
            "hidden_size": self.hidden_size,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "num_conditions": self.num_conditions,
            "mlp_ratio": self.mlp_ratio,
            "long_skip": int(self.long_skip),
        }

    def _condition(self, t: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        with full_precision(t.device):
            time = self.time_embedding(sinusoidal_embedding(t, _SINUSOIDS, time_scale=1.0))  # (B, D)
        if not conditions:
            return time
        return torch.cat([condition.to(time.dtype) + time for condition in conditions], dim=-1)

    def _check_input(self, x: Tensor, t: Tensor, conditions: Sequence[Tensor], source: Tensor | None) -> None:
        expected = (self.latent_channels, *self.input_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"DiT: got input of shape {tuple(x.shape)}; this network takes (B, {', '.join(map(str, expected))}). "
                "Bring the images to the size it was trained on, or build it with another input_size."
            )
        if t.shape != x.shape[:1]:
            raise ValueError(f"DiT: got steps of shape {tuple(t.shape)}; give one per image, ({len(x)},).")
        shapes = [tuple(condition.shape) for condition in conditions]
        if shapes != [(len(x), self.hidden_size)] * self.num_conditions:
            raise ValueError(
                f"DiT: got conditions of shapes {shapes}; this network takes {self.num_conditions} of "
                f"({len(x)}, {self.hidden_size})."
            )
        if source is None and self.source_channels:
            raise ValueError(
                f"DiT: source missing; the network was built for one of {self.source_channels} channels. Give it, or "
                "build the network with source_channels=0."
            )
        if source is not None and tuple(source.shape) != (len(x), self.source_channels, *self.input_size):
            wanted = f"({len(x)}, {', '.join(map(str, (self.source_channels, *self.input_size)))})"
            raise ValueError(
                f"DiT: got a source of shape {tuple(source.shape)}; "
                + (f"this network takes {wanted}." if self.source_channels else "it was built with source_channels=0.")
            )
