"""Autoencoder and denoiser trained at once, as the sum of their losses asks (FQCDM, section 3)."""

from typing import cast

import torch
from torch import Tensor, nn

from ...diffusion.gaussian import marginal
from ...parallel import process_count, sum_over_processes
from ..blocks.recorded_settings import encode_setting
from .label_guided_synthesizer import LabelGuidedSynthesizer
from .quantized_autoencoder import QuantizedAutoencoder

_TRAINED_ALONG = "trained along"


class JointSynthesizer(nn.Module):
    """One call for both parts: images through the autoencoder, their latents with noise through the denoiser.

    image ``(B, 1, X, Y)`` in [0, 1], guide ``(B, K, h, w)``, noise ``(B, C, h, w)``, t ``(B,)`` -> what the autoencoder
    returns and ``noise_prediction`` ``(B, C, h, w)`` float32. The statistics that standardize the latents run along:
    in training mode every call takes mean and mean square of the latents of all processes into averages that move by
    ``momentum``, the first calls by more, so that none outweighs the others.

    Args:
        synthesizer: its autoencoder is made trainable.
        detach: the denoiser's loss has no gradient in the encoder; with one, the cheapest way to a low loss is a flat
            latent.
        momentum: how far the statistics move in one step.
    """

    num_updates: Tensor

    def __init__(self, synthesizer: LabelGuidedSynthesizer, *, detach: bool = True, momentum: float = 0.01) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"JointSynthesizer: momentum={momentum} must lie in (0, 1].")
        if not isinstance(synthesizer.autoencoder, QuantizedAutoencoder):
            raise ValueError(
                "JointSynthesizer: the synthesizer diffuses pixels; there is no autoencoder to train along. Use "
                "train.json."
            )
        self.synthesizer = synthesizer
        self.synthesizer.record_autoencoder(_TRAINED_ALONG)
        _thaw(synthesizer.autoencoder)
        self.detach, self.momentum = detach, momentum
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self.train()

    @property
    def autoencoder(self) -> QuantizedAutoencoder:
        """The part that is usually trained alone."""
        return cast(QuantizedAutoencoder, self.synthesizer.autoencoder)

    @property
    def last_layer(self) -> nn.Parameter:
        """Of the autoencoder, for the adaptive weight."""
        return self.autoencoder.last_layer

    def train(self, mode: bool = True) -> "JointSynthesizer":
        """Training mode for all, the autoencoder included."""
        super().train(mode)
        self.autoencoder.train(mode)
        return self

    def forward(self, image: Tensor, guide: Tensor, noise: Tensor, t: Tensor) -> dict[str, Tensor]:
        """The autoencoder's dictionary with ``noise_prediction``."""
        output = self.autoencoder(image)
        latent = output["latent"].detach() if self.detach else output["latent"]  # (B, C, h, w)
        if self.training:
            self.update_statistics(latent.detach())
        x0 = self.synthesizer.standardize(latent)
        x_t = marginal(self.synthesizer.schedule, x0, noise, t)
        return {**output, "noise_prediction": self.synthesizer(x_t, t, guide)}

    @torch.no_grad()
    def update_statistics(self, latent: Tensor) -> None:
        """Take a batch of latents ``(B, C, h, w)`` into the averages; all processes must have the same B."""
        values = latent.double()
        batch = torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])  # (2, C)
        batch = sum_over_processes(batch) / process_count()
        mean, std = self.synthesizer.latent_mean.double(), self.synthesizer.latent_std.double()
        before = torch.where(self.num_updates > 0, torch.stack([mean, std.square() + mean.square()]), batch)
        self.num_updates += 1
        rate = (1 / self.num_updates.double()).clamp(min=self.momentum)
        mean, square = torch.lerp(before, batch, rate)
        variance = square - mean.square()
        self.synthesizer.latent_mean.copy_(mean)
        self.synthesizer.latent_std.copy_(variance.clamp(min=1e-12).sqrt())

    def weights(self) -> dict[str, Tensor]:
        """State dict of an ordinary :class:`LabelGuidedSynthesizer`, which names the autoencoder as it is now."""
        state = self.synthesizer.state_dict()
        state["settings.autoencoder"] = encode_setting(self.autoencoder.identity)
        return state


def _thaw(autoencoder: QuantizedAutoencoder) -> None:
    """Let everything learn that learns by gradients, and the codebook by its own rules."""
    quantizer = autoencoder.quantizer
    autoencoder.requires_grad_(True)
    quantizer.codebook.requires_grad_(quantizer.mode == "gradient")
    quantizer.frozen = False
