"""The autoencoder of FQCDM: slices to latents that are snapped to a codebook, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import VQVAE
from torch import Tensor, nn

from ..blocks.compatibility import refuse, settings_differences, weight_differences
from ..blocks.feature_quantizer import CodebookMode, FeatureQuantizer
from ..blocks.recorded_settings import RecordedSettings, decode_setting
from ..blocks.weights_digest import weights_digest

_WIDTHS = ("channels", "num_res_channels")
_RECORDED = (
    *_WIDTHS,
    "num_res_layers",
    "num_embeddings",
    "embedding_dim",
    "mode",
    "commitment",
    "decay",
    "restart_after",
)


class QuantizedAutoencoder(nn.Module):
    """Encoder and decoder of MONAI's ``VQVAE`` around a :class:`FeatureQuantizer` (FQCDM, section 3.2).

    image ``(B, 1, X, Y)`` in [0, 1] -> ``{"image", "codebook_loss", "indices", "latent"}``: the reconstruction from the
    codes, not clipped; the loss of the quantizer; the codes ``(B, x, y)``; the latent ``(B, C, x, y)`` before it was
    quantized. x = X / factor with factor ``2 ** len(channels)``. Diffusion works on the continuous latents of
    :meth:`encode`, and :meth:`decode` snaps what it has made of them to the codebook again. The networks run in the
    autocast that is on, all results are float32. There is neither normalization nor attention, so images of a batch do
    not see each other.

    The state dict records all settings; one that was made for another network is refused with one message before
    anything is loaded. The default has 7.0 M weights.

    Args:
        channels: widths, at half the resolution first.
        num_res_layers: residual units on each resolution.
        num_res_channels: widths inside of them; None: as ``channels``.
        num_embeddings, embedding_dim, mode, commitment, decay, restart_after: see :class:`FeatureQuantizer`.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (128, 256),
        num_res_layers: int = 2,
        num_res_channels: Sequence[int] | None = None,
        num_embeddings: int = 1024,
        embedding_dim: int = 8,
        mode: CodebookMode = "gradient",
        commitment: float = 0.25,
        decay: float = 0.99,
        restart_after: int = 100,
    ) -> None:
        super().__init__()
        inner = channels if num_res_channels is None else num_res_channels
        network = VQVAE(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            channels=tuple(channels),
            num_res_layers=num_res_layers,
            num_res_channels=tuple(inner),
            downsample_parameters=((2, 4, 1, 1),) * len(channels),
            upsample_parameters=((2, 4, 1, 1, 0),) * len(channels),
            num_embeddings=1,  # MONAI's quantizer is not used
            embedding_dim=embedding_dim,
            ddp_sync=False,
        )
        self.encoder, self.decoder = network.encoder, network.decoder
        self.quantizer = FeatureQuantizer(
            num_embeddings=num_embeddings,
            embedding_dim=embedding_dim,
            commitment=commitment,
            mode=mode,
            decay=decay,
            restart_after=restart_after,
        )
        self.num_embeddings, self.latent_channels, self.factor = num_embeddings, embedding_dim, 2 ** len(channels)
        self.settings = RecordedSettings(
            {
                "channels": ",".join(map(str, channels)),
                "num_res_channels": ",".join(map(str, inner)),
                "num_res_layers": num_res_layers,
                "num_embeddings": num_embeddings,
                "embedding_dim": embedding_dim,
                "mode": mode,
                "commitment": float(commitment),
                "decay": float(decay),
                "restart_after": restart_after,
            }
        )

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> "QuantizedAutoencoder":
        """The network that a state dict describes, with its weights.

        Raises:
            ValueError: it describes none, or not the one whose weights it holds.
        """
        lines = [f"{name}: not recorded" for name in _RECORDED if f"settings.{name}" not in state_dict]
        refuse("QuantizedAutoencoder", lines)
        recorded: dict[str, Any] = {name: decode_setting(state_dict[f"settings.{name}"]) for name in _RECORDED}
        widths: dict[str, Any] = {name: [int(width) for width in recorded.pop(name).split(",")] for name in _WIDTHS}
        autoencoder = cls(**widths, **recorded)
        autoencoder.load_state_dict(state_dict)
        return autoencoder

    @property
    def identity(self) -> str:
        """``quantized:<digest>`` of all that latents and images depend on. Reads all weights: ask once a run."""
        used = nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder})
        used.register_parameter("codebook", self.quantizer.codebook)
        return f"quantized:{weights_digest(used)}"

    @property
    def last_layer(self) -> nn.Parameter:
        """Weights of the convolution that makes the image."""
        return self.decoder.blocks[-1].conv.weight  # type: ignore[union-attr, return-value]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        latent = self.encode(image)
        loss, quantized, indices = self.quantizer(latent)
        reconstruction = self.decoder(quantized).float()
        return {"image": reconstruction, "codebook_loss": loss, "indices": indices, "latent": latent}

    def encode(self, image: Tensor) -> Tensor:
        """Latents ``(B, C, x, y)`` float32 of images in [0, 1], not quantized.

        Raises:
            ValueError: not one channel, or sides that are no multiples of the factor.
        """
        if image.ndim != 4 or image.shape[1] != 1 or any(side % self.factor for side in image.shape[2:]):
            raise ValueError(
                f"QuantizedAutoencoder.encode: got images of shape {tuple(image.shape)}; needed are (B, 1, X, Y) with "
                f"X and Y multiples of {self.factor}. Pad or resize the slices."
            )
        return self.encoder(image).float()

    def decode(self, latent: Tensor, quantize: bool = True) -> Tensor:
        """Images ``(B, 1, X, Y)`` float32, clipped to [0, 1], of latents ``(B, C, x, y)``.

        Args:
            latent: of :meth:`encode`, or what diffusion has made of such.
            quantize: snap it to the codebook before, which the decoder was trained with; the codebook stays as it is.

        Raises:
            ValueError: another number of channels.
        """
        if latent.ndim != 4 or latent.shape[1] != self.latent_channels:
            raise ValueError(
                f"QuantizedAutoencoder.decode: got latents of shape {tuple(latent.shape)}; needed are (B, "
                f"{self.latent_channels}, x, y). They come from another autoencoder."
            )
        codes = self.quantizer.embed(self.quantizer.quantize(latent)) if quantize else latent
        return self.decoder(codes).float().clamp(0, 1)

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """What is left of images after encoding, quantizing and decoding: the limit of all that diffusion makes."""
        return self.decode(self.encode(image))

    @torch.no_grad()
    def codes(self, image: Tensor) -> Tensor:
        """Indices ``(B, x, y)`` of the codes of images."""
        return self.quantizer.quantize(self.encode(image))

    def latent_range(self) -> tuple[Tensor, Tensor]:
        """Least and greatest value ``(C,)`` of the codes in each channel, which latents are trained to stay near."""
        codes = self.quantizer.codebook.detach()
        return codes.amin(0), codes.amax(0)

    def freeze(self) -> "QuantizedAutoencoder":
        """In evaluation mode, without gradients of weights, and with a codebook that nothing changes any more."""
        self.quantizer.freeze()
        return self.eval().requires_grad_(False)

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        lines = settings_differences("QuantizedAutoencoder", self.settings, state_dict, prefix)
        if not lines:
            parts = {"encoder": self.encoder, "decoder": self.decoder, "quantizer": self.quantizer}
            lines = [
                line for name, part in parts.items() for line in weight_differences(part, state_dict, prefix, name)
            ]
        refuse("QuantizedAutoencoder", lines)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
