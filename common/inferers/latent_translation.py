"""Translation by diffusion in a latent space: the training step, and the translation of slices and volumes."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, cast, get_args

import torch
from monai.inferers import Inferer
from torch import Tensor

from ..diffusion.gaussian import NoiseSchedule, respaced
from ..diffusion.samplers.ancestral import ddpm
from ..diffusion.samplers.implicit import ddim
from .diffusion import unwrap
from .precision import autocast
from .slicewise import SliceNoise, SlicewiseInferer

LatentSampler = Literal["ddim", "ddpm"]


class Autoencoder(Protocol):
    """Images to latents and back; ``LatentAutoencoder`` is one."""

    def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, latent: Tensor) -> Tensor: ...


class Denoiser(Protocol):
    """What sampling asks of a network besides its call; ``LatentTranslator`` has it."""

    schedule: NoiseSchedule
    learn_sigma: bool
    scale: float

    def conditions(self, source: Tensor, image: Tensor | None, vector: Tensor | None) -> list[Tensor]: ...


class LatentDiffusionInferer(Inferer):
    """Training step: the network's prediction for x_t.

    Called by MONAI's ``SupervisedTrainer`` as ``inferer(source, network, x_t=..., t=..., ...)`` with what
    ``LatentPrepareBatch`` drew; returns (B, 2C or C, h, w) in fp32.

    Args:
        amp: run the network in bf16 where the device has it.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        x_t, t, image, vector = (kwargs.get(name) for name in ("x_t", "t", "image", "vector"))
        with autocast(inputs.device, self.amp):
            return network(x_t, t, inputs, image=image, vector=vector).float()


class LatentTranslationInferer(SlicewiseInferer):
    """Encodes slices of the source, draws latents of the target, decodes them.

    Encoding and the vectors that condition the network are computed once per slice, whatever the number of samples.
    Autoencoder and image encoder work in fp32.

    Args:
        autoencoder: the latent space of the network; moved to the device of the slices at the first call.
        image_encoder: slices (B, 1, X, Y) -> vectors (B, 512), for a network that needs them.
        sampler: ``"ddim"`` (no noise after the start if ``eta`` is 0) or ``"ddpm"``.
        num_steps: network evaluations per slice, at most the steps of the training.
        eta: noise of DDIM relative to DDPM's, in 0..1.
        batch_size, num_samples, share_noise, min_foreground, seed, amp: see :class:`SlicewiseInferer`.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        image_encoder: Callable[[Tensor], Tensor] | None = None,
        *,
        sampler: LatentSampler = "ddim",
        num_steps: int = 50,
        eta: float = 0.0,
        batch_size: int = 16,
        num_samples: int = 1,
        share_noise: bool = True,
        min_foreground: float = 0.005,
        seed: int = 0,
        amp: bool = False,
    ) -> None:
        super().__init__(batch_size, num_samples, share_noise, min_foreground, seed, amp)
        if sampler not in get_args(LatentSampler):
            raise ValueError(
                f"LatentTranslationInferer: sampler={sampler!r} is unknown; choose one of "
                f"{', '.join(get_args(LatentSampler))}."
            )
        if not 0 <= eta <= 1:
            raise ValueError(f"LatentTranslationInferer: eta={eta} must lie in [0, 1].")
        self.autoencoder = autoencoder
        self.image_encoder = image_encoder
        self.sampler: LatentSampler = sampler
        self.num_steps = num_steps
        self.eta = eta

    def translate(self, source: Tensor, network: Callable[..., Any], noises: Sequence[SliceNoise]) -> Tensor:
        """(B, 1, X, Y) -> (B, K, X, Y)."""
        self._to(source.device)
        denoiser = cast(Denoiser, unwrap(network))
        schedule = respaced(denoiser.schedule, self.num_steps)
        latent = denoiser.scale * self.autoencoder.encode_moments(source)[0]  # (B, C, h, w)
        vector = None if self.image_encoder is None else self.image_encoder(source)
        with autocast(source.device, self.amp):
            conditions = denoiser.conditions(latent, source, vector)

        def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
            with autocast(source.device, self.amp):
                output = network(x_t, t, latent, conditions=conditions).float()
            noise, variance = output.chunk(2, dim=1) if denoiser.learn_sigma else (output, None)
            return noise, variance

        latents = (self._draw(predict, latent, schedule, noise) for noise in noises)
        return torch.cat([self.autoencoder.decode(drawn / denoiser.scale) for drawn in latents], dim=1)

    def _draw(self, predict: Callable[..., Any], latent: Tensor, schedule: NoiseSchedule, noise: SliceNoise) -> Tensor:
        """A latent of the target for each of the source: (B, C, h, w) -> (B, C, h, w)."""
        silent = self.sampler == "ddim" and self.eta == 0
        maps = noise(1 if silent else schedule.num_steps, *latent.shape[1:])  # (N, B or 1, C, h, w)
        start = maps[0].expand_as(latent)  # the same whatever the sampler

        def step_noise(i: int) -> Tensor:  # i = N-1 .. 1; the last step has none
            return maps[i]

        if self.sampler == "ddpm":
            return ddpm(predict, start, schedule, noise=step_noise)
        return ddim(predict, start, schedule, eta=self.eta, noise=None if silent else step_noise)

    def _to(self, device: torch.device) -> None:
        for part in (self.autoencoder, self.image_encoder):
            if isinstance(part, torch.nn.Module):
                part.to(device)
