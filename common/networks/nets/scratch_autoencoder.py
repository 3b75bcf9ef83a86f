"""The autoencoder that a user trains on their own images, for slices of both modalities."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import AutoencoderKL
from torch import Tensor

from ..blocks.compatibility import refuse, settings_differences, weight_differences
from ..blocks.recorded_settings import RecordedSettings, decode_setting
from .latent_autoencoder import LatentAutoencoder

_RECORDED = ("channels", "num_res_blocks", "latent_channels", "norm_groups", "mid_attention", "ct_low", "ct_high")


class ScratchAutoencoder(LatentAutoencoder):
    """MONAI's ``AutoencoderKL`` on single slices; the factor is ``2 ** (len(channels) - 1)``.

    image ``(B, 1, X, Y)`` in [-1, 1] -> ``{"image", "mean", "logvar"}``: the reconstruction, not clipped, of a sample
    of the posterior (in evaluation mode: of its mean), and the posterior. The sample is drawn from PyTorch's global
    generator. (64, 128, 256, 256) with two residual blocks and attention has 18.2 M weights, the default 0.25 M.

    The state dict records the architecture, the HU window of the CT images and the scale of the latents; one that was
    made for another network is refused with one message before anything is loaded.

    Args:
        ct_window: HU that are -1 and +1 in the CT images it is trained on.
        channels: widths, at full resolution first.
        num_res_blocks: residual blocks on each resolution.
        latent_channels: C.
        norm_groups: groups of the normalization; they divide every width.
        mid_attention: attention at the lowest resolution, in encoder and decoder.
    """

    network: AutoencoderKL

    def __init__(
        self,
        *,
        ct_window: Sequence[float],
        channels: Sequence[int] = (16, 32, 64),
        num_res_blocks: int = 1,
        latent_channels: int = 4,
        norm_groups: int = 16,
        mid_attention: bool = False,
    ) -> None:
        low, high = (float(level) for level in ct_window)
        if not low < high:
            raise ValueError(f"ScratchAutoencoder: ct_window={list(ct_window)} must be two rising HU values.")
        network = AutoencoderKL(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            num_res_blocks=num_res_blocks,
            channels=tuple(channels),
            attention_levels=(False,) * len(channels),
            latent_channels=latent_channels,
            norm_num_groups=norm_groups,
            with_encoder_nonlocal_attn=mid_attention,
            with_decoder_nonlocal_attn=mid_attention,
            use_flash_attention=True,
        )
        super().__init__("scratch", network, latent_channels=latent_channels, factor=2 ** (len(channels) - 1))
        self.ct_window = (low, high)
        self.settings = RecordedSettings(
            {
                "channels": ",".join(map(str, channels)),
                "num_res_blocks": num_res_blocks,
                "latent_channels": latent_channels,
                "norm_groups": norm_groups,
                "mid_attention": int(mid_attention),
                "ct_low": low,
                "ct_high": high,
            }
        )

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> "ScratchAutoencoder":
        """The network that a state dict describes, with its weights.

        Raises:
            ValueError: it describes none, or not the one whose weights it holds.
        """
        lines = [f"{name}: not recorded" for name in _RECORDED if f"settings.{name}" not in state_dict]
        refuse("ScratchAutoencoder", lines)
        recorded: dict[str, Any] = {name: decode_setting(state_dict[f"settings.{name}"]) for name in _RECORDED}
        autoencoder = cls(
            ct_window=(recorded.pop("ct_low"), recorded.pop("ct_high")),
            channels=[int(width) for width in recorded.pop("channels").split(",")],
            mid_attention=bool(recorded.pop("mid_attention")),
            **recorded,
        )
        autoencoder.load_state_dict(state_dict)
        return autoencoder

    def set_scale(self, std: float) -> None:
        """Set the scale from the standard deviation of the latents that diffusion will generate."""
        if not 0 < std < torch.inf:
            raise ValueError(
                f"ScratchAutoencoder.set_scale: the latents' standard deviation is {std}; it must be positive and "
                "finite. The autoencoder gives every image the same latent, or its training diverged."
            )
        self.latent_scale.fill_(1 / std)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Reconstruction ``(B, 1, X, Y)``, mean and log variance ``(B, C, x, y)``, all float32."""
        mean, logvar = self.encode_moments(image)
        z = mean + (0.5 * logvar).exp() * torch.randn_like(mean) if self.training else mean
        return {"image": self._reconstruct(z), "mean": mean, "logvar": logvar}

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        lines = settings_differences("ScratchAutoencoder", self.settings, state_dict, prefix)
        lines = lines or weight_differences(self.network, state_dict, prefix, "network")
        if not lines and f"{prefix}latent_scale" not in state_dict:
            lines = ["latent_scale: not in the checkpoint"]
        refuse("ScratchAutoencoder", lines)

    def _posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        mean, sigma = self.network.encode(image)  # MONAI gives the standard deviation, at least exp(-15)
        return mean, 2 * sigma.log()

    def _image(self, z: Tensor) -> Tensor:
        return self.network.decode(z)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
