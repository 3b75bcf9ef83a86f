"""Tokens and a vector that describe an image's latents: the Vision Embedder of Med-DiT."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from ..blocks.compatibility import refuse, settings_differences, weight_differences
from ..blocks.patches import PatchEmbedding, token_grid
from ..blocks.precision import full_precision
from ..blocks.recorded_settings import RecordedSettings

GateAxis = Literal["channel", "token"]


class VisionEmbedder(nn.Module):
    """Patch embedding, a gate in (0, 1), and a layer norm (Med-DiT, section on the Vision Embedder).

    Latents ``(B, in_channels, X, Y)`` -> tokens ``(B, L, D)`` in float32, under autocast, too:
    ``LN(T sigmoid(m(avgpool T) + m(maxpool T)))`` with ``T = patches(z)`` and m ``Linear -> ReLU -> Linear``.

    The layer norm runs over channels and takes out any positive factor that a token's channels share. A gate per token
    is therefore of no effect but through the norm's eps, and its weights hardly learn; one per channel has an effect.

    The state dict records the settings; one made for another network is refused with one message before anything is
    loaded.

    Args:
        input_size: (X, Y) or a side, in latent pixels; multiples of ``patch_size``.
        patch_size: side of a patch in latent pixels.
        in_channels: channels of the latents.
        embed_dim: D.
        gate_axis: ``"channel"``: pool over tokens and gate channels; ``"token"``: pool over channels and gate tokens,
            as the published network does.
        reduction: factor by which m narrows in its middle; divides D, or L for gates of tokens.
        autoencoder: what made the latents (``LatentAutoencoder.identity``).

    Raises:
        ValueError: sizes that do not divide, or an unknown axis.
    """

    def __init__(
        self,
        *,
        input_size: int | Sequence[int],
        patch_size: int = 2,
        in_channels: int = 4,
        embed_dim: int = 512,
        gate_axis: GateAxis = "channel",
        reduction: int = 16,
        autoencoder: str = "",
    ) -> None:
        super().__init__()
        if gate_axis not in get_args(GateAxis):
            raise ValueError(
                f"VisionEmbedder: gate_axis={gate_axis!r} is unknown; choose one of {', '.join(get_args(GateAxis))}."
            )
        self.input_size: tuple[int, int] = ensure_tuple_rep(input_size, 2)
        self.grid = token_grid("VisionEmbedder", self.input_size, patch_size)
        self.num_tokens, self.in_channels, self.embed_dim = self.grid[0] * self.grid[1], in_channels, embed_dim
        self.gate_axis: GateAxis = gate_axis
        self.autoencoder = autoencoder
        gates = embed_dim if gate_axis == "channel" else self.num_tokens
        if reduction < 1 or gates % reduction:
            raise ValueError(
                f"VisionEmbedder: the {gates} gates (gate_axis={gate_axis!r}) do not divide by reduction={reduction}."
            )
        self.patch_embedding = PatchEmbedding(in_channels, patch_size, embed_dim)
        self.gate_mlp = nn.Sequential(
            nn.Linear(gates, gates // reduction), nn.ReLU(), nn.Linear(gates // reduction, gates)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.settings = RecordedSettings(
            {
                "input_size": ",".join(map(str, self.input_size)),
                "patch_size": patch_size,
                "in_channels": in_channels,
                "embed_dim": embed_dim,
                "gate_axis": gate_axis,
                "reduction": reduction,
                "autoencoder": autoencoder,
            }
        )

    def forward(self, z: Tensor) -> Tensor:
        """Tokens ``(B, L, D)``."""
        with full_precision(z.device):
            tokens = self._tokens(z)
            return self.norm(tokens * self._gate(tokens))

    def vector(self, z: Tensor) -> Tensor:
        """Mean over the tokens, ``(B, D)``; the order of patches does not matter to it if channels are gated."""
        return self(z).mean(dim=1)

    def gate(self, z: Tensor) -> Tensor:
        """What tokens are multiplied with: ``(B, 1, D)``, or ``(B, L, 1)`` for gates of tokens."""
        with full_precision(z.device):
            return self._gate(self._tokens(z))

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        lines = settings_differences("VisionEmbedder", self.settings, state_dict, prefix)
        if not lines:
            for name in ("patch_embedding", "gate_mlp", "norm"):
                lines += weight_differences(self.get_submodule(name), state_dict, prefix, name)
        refuse("VisionEmbedder", lines)

    def _tokens(self, z: Tensor) -> Tensor:
        if z.ndim != 4 or tuple(z.shape[1:]) != (self.in_channels, *self.input_size):
            expected = ", ".join(map(str, (self.in_channels, *self.input_size)))
            raise ValueError(
                f"VisionEmbedder: got latents of shape {tuple(z.shape)}; this network takes (B, {expected}). Bring the "
                "images to the size it was trained on, or train one for this size."
            )
        return self.patch_embedding(z)  # (B, L, D)

    def _gate(self, tokens: Tensor) -> Tensor:
        pooled = 1 if self.gate_axis == "channel" else 2
        mean, largest = tokens.mean(dim=pooled), tokens.amax(dim=pooled)  # (B, D) or (B, L)
        return (self.gate_mlp(mean) + self.gate_mlp(largest)).sigmoid().unsqueeze(pooled)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
