"""U-ViT on tokens: a vision transformer with long skip connections and, optionally, mixture-of-experts layers."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..blocks.attention import SelfAttention
from ..blocks.moe_mlp import Gate, Mlp, MoEMLP
from ..blocks.positions import sincos_positions
from ..blocks.timestep_embedding import TimestepEmbedding

MoELayers = Literal["first_last", "none", "all"]
PositionEmbedding = Literal["trunc_normal", "sincos"]


@dataclass(frozen=True)
class Size:
    """Width, number of in- and out-blocks together, and attention heads of a network."""

    hidden_size: int
    depth: int
    num_heads: int


SIZES = {
    "tiny": Size(hidden_size=96, depth=4, num_heads=4),
    "demo": Size(hidden_size=128, depth=4, num_heads=8),
    "S": Size(hidden_size=512, depth=12, num_heads=8),
    "M": Size(hidden_size=768, depth=16, num_heads=12),  # the networks of DCT-MoE's tables
}


class Block(nn.Module):
    """Pre-norm transformer block: ``x += attention(norm(x)); x += mlp(norm(x))``.

    With ``skip`` the input is first merged with an earlier block's output by ``Linear(2D, D)``.
    x ``(B, N, D)`` -> x ``(B, N, D)`` and the router's probabilities ``(B, N, E)``, or None where ``mlp`` is dense.
    """

    def __init__(self, hidden_size: int, num_heads: int, mlp: Mlp | MoEMLP, *, skip: bool = False) -> None:
        super().__init__()
        self.skip = nn.Linear(2 * hidden_size, hidden_size) if skip else None
        self.norm1 = nn.LayerNorm(hidden_size)
        self.attention = SelfAttention(hidden_size=hidden_size, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.mlp = mlp

    def forward(self, x: Tensor, earlier: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if self.skip is not None:
            assert earlier is not None
            x = self.skip(torch.cat([x, earlier], dim=-1))  # (B, N, 2D) -> (B, N, D)
        x = x + self.attention(self.norm1(x))
        if isinstance(self.mlp, MoEMLP):
            y, probs = self.mlp(self.norm2(x))
            return x + y, probs
        return x + self.mlp(self.norm2(x)), None


class UViT(nn.Module):
    """Transformer with long skips from the first to the second half (Bao et al. 2023), on given tokens.

    x ``(B, T, F)``, t ``(B,)`` in [0, 1] -> ``(B, T, F)``. There is neither a patch embedding nor a final convolution:
    a token is what the frequency transform or the autoencoder made of an image patch. ``depth / 2`` in-blocks, one
    middle block and ``depth / 2`` out-blocks; the time, and the class if there are any, are tokens of their own.
    Sources: DCT-MoE, section 4; DCT-G is the dense network (``moe_layers="none"`` or ``num_experts=1``).

    Args:
        num_features: F.
        grid: tokens along the two image axes, T is their product.
        hidden_size: D.
        depth: number of in- and out-blocks, even (the middle block comes on top).
        num_heads: attention heads.
        mlp_ratio: width of the feed-forward layers in units of D.
        mlp_time_embed: pass the sinusoid of t through an MLP (DCT-MoE yes, DCTdiff no).
        num_experts: experts of a mixture layer.
        top_k: experts per token.
        gate: weight of a chosen expert, see :class:`MoEMLP`.
        router_noise: noise of the router's logits in training.
        moe_layers: blocks with a mixture: the first and the last, none, or all but the middle one.
        position_embedding: initial values of the learned positions: normal(0.02), or 2-D sinusoids
            (:func:`sincos_positions`; the rows of time and class are then drawn from N(0, 1)).
        num_classes: number of classes of a conditional network; None for an unconditional one.
    """

    def __init__(
        self,
        *,
        num_features: int,
        grid: tuple[int, int],
        hidden_size: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        mlp_time_embed: bool = True,
        num_experts: int = 4,
        top_k: int = 2,
        gate: Gate = "ste",
        router_noise: float = 1e-2,
        moe_layers: MoELayers = "first_last",
        position_embedding: PositionEmbedding = "trunc_normal",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if depth < 2 or depth % 2:
            raise ValueError(f"UViT: depth={depth} must be even and at least 2 (as many out-blocks as in-blocks).")
        if moe_layers not in get_args(MoELayers):
            raise ValueError(f"UViT: moe_layers={moe_layers!r} is unknown; choose {', '.join(get_args(MoELayers))}.")
        if position_embedding not in get_args(PositionEmbedding):
            raise ValueError(
                f"UViT: position_embedding={position_embedding!r} is unknown; "
                f"choose {', '.join(get_args(PositionEmbedding))}."
            )
        self.num_features, self.grid = num_features, (int(grid[0]), int(grid[1]))
        self.num_tokens = self.grid[0] * self.grid[1]
        self.hidden_size, self.depth, self.num_heads = hidden_size, depth, num_heads
        self.num_experts, self.top_k, self.gate, self.moe_layers = num_experts, top_k, gate, moe_layers
        self.num_classes = num_classes
        mixtures = {"none": set(), "first_last": {0, depth}, "all": set(range(depth + 1)) - {depth // 2}}[moe_layers]

        def block(index: int) -> Block:
            mlp: Mlp | MoEMLP
            if index in mixtures and num_experts > 1:
                mlp = MoEMLP(hidden_size, mlp_ratio, num_experts, top_k, gate, router_noise)
            else:
                mlp = Mlp(hidden_size, mlp_ratio)
            return Block(hidden_size, num_heads, mlp, skip=index > depth // 2)

        extras = 1 if num_classes is None else 2  # [class,] time
        self.input = nn.Linear(num_features, hidden_size)
        self.time_embed = TimestepEmbedding(hidden_size, mlp=mlp_time_embed)
        self.class_embed = None if num_classes is None else nn.Embedding(num_classes, hidden_size)
        self.position_embedding = nn.Parameter(torch.empty(1, extras + self.num_tokens, hidden_size))
        self.in_blocks = nn.ModuleList(block(i) for i in range(depth // 2))
        self.mid_block = block(depth // 2)
        self.out_blocks = nn.ModuleList(block(i) for i in range(depth // 2 + 1, depth + 1))
        self.norm = nn.LayerNorm(hidden_size)
        self.output = nn.Linear(hidden_size, num_features)
        self._initialize(position_embedding)

    def _initialize(self, position_embedding: PositionEmbedding) -> None:
        """All weights normal(0.02) cut at +-2, biases 0, norms 1 and 0, class embedding N(0, 1)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if position_embedding == "trunc_normal":
            nn.init.trunc_normal_(self.position_embedding, std=0.02)
            return
        positions = sincos_positions(self.grid, self.hidden_size)  # (T, D)
        with torch.no_grad():
            nn.init.normal_(self.position_embedding)
            self.position_embedding[0, -self.num_tokens :].copy_(positions)

    def forward(
        self, x: Tensor, t: Tensor, class_labels: Tensor | None = None, *, return_router: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Predict from tokens ``(B, T, F)`` at times ``(B,)``; class_labels ``(B,)`` int64 if there are classes.

        With ``return_router`` also the probabilities ``(B, extras + T, E)`` of each mixture layer, first block first.
        """
        tokens = torch.cat([*self._extra_tokens(x, t, class_labels), self.input(x)], dim=1)
        h = tokens + self.position_embedding  # (B, extras + T, D)
        router: list[Tensor | None] = []
        earlier = []
        for block in self.in_blocks:
            h, probs = block(h)
            router.append(probs)
            earlier.append(h)
        h, probs = self.mid_block(h)
        for block in self.out_blocks:
            h, probs = block(h, earlier.pop())
            router.append(probs)
        y = self.output(self.norm(h[:, -self.num_tokens :]))  # (B, T, F)
        return (y, [probs for probs in router if probs is not None]) if return_router else y

    def settings(self) -> dict[str, int | str]:
        """What the shapes of the weights do not tell in full but a checkpoint must agree with."""
        mixture = isinstance(self.out_blocks[-1].mlp, MoEMLP)
        return {
            "hidden_size": self.hidden_size,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "moe_layers": self.moe_layers if mixture else "none",
            "num_experts": self.num_experts if mixture else 1,
            "top_k": self.top_k if mixture else 1,
            "gate": self.gate if mixture else "none",
            "num_classes": self.num_classes or 0,
        }

    def _extra_tokens(self, x: Tensor, t: Tensor, class_labels: Tensor | None) -> list[Tensor]:
        """Class token, if any, and time token, each ``(B, 1, D)``."""
        if x.ndim != 3 or x.shape[1:] != (self.num_tokens, self.num_features):
            raise ValueError(
                f"UViT: got input of shape {tuple(x.shape)}; this network takes (B, {self.num_tokens}, "
                f"{self.num_features}), a grid of {self.grid[0]}x{self.grid[1]} tokens of {self.num_features} features."
            )
        if t.shape != x.shape[:1]:
            raise ValueError(f"UViT: got times of shape {tuple(t.shape)}; give one per image, ({len(x)},).")
        time_token = self.time_embed(t)[:, None]
        if self.class_embed is None:
            if class_labels is not None:
                raise ValueError("UViT: class_labels given, but the network was built without num_classes.")
            return [time_token]
        if class_labels is None:
            raise ValueError(f"UViT: class_labels missing; the network was built for {self.num_classes} classes.")
        return [self.class_embed(class_labels)[:, None].to(time_token.dtype), time_token]


def u_vit(
    size: str,
    *,
    num_features: int,
    grid: tuple[int, int],
    mlp_time_embed: bool = True,
    num_experts: int = 4,
    top_k: int = 2,
    gate: Gate = "ste",
    router_noise: float = 1e-2,
    moe_layers: MoELayers = "first_last",
    position_embedding: PositionEmbedding = "trunc_normal",
    num_classes: int | None = None,
) -> UViT:
    """A :class:`UViT` of a named size (:data:`SIZES`)."""
    if size not in SIZES:
        raise ValueError(f"u_vit: size {size!r} is unknown; choose one of {', '.join(SIZES)} or build a UViT directly.")
    shape = SIZES[size]
    return UViT(
        num_features=num_features,
        grid=grid,
        hidden_size=shape.hidden_size,
        depth=shape.depth,
        num_heads=shape.num_heads,
        mlp_time_embed=mlp_time_embed,
        num_experts=num_experts,
        top_k=top_k,
        gate=gate,
        router_noise=router_noise,
        moe_layers=moe_layers,
        position_embedding=position_embedding,
        num_classes=num_classes,
    )
