"""What the training steps in a latent space, and of the autoencoder that spans it, start from."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from ..diffusion.gaussian import NoiseSchedule, marginal
from ..parallel import process_count, process_rank
from .randomness import StepRandomness


class LatentPrepareBatch(PrepareBatch):
    """Draws steps and noise for the training of a latent translator from the posteriors of both latents.

    A batch holds ``source_mean``, ``source_logvar``, ``target_mean`` and ``target_logvar`` (B, C, h, w), not scaled,
    and optionally ``image`` (B, 1, X, Y) or ``vector`` (B, V). Returned are the source latent as input, the dictionary
    ``{"noise", "x0", "x_t", "t"}`` as what the loss compares with, and x_t, t, image and vector as keyword arguments of
    the inferer. t is uniform on 0..T-1, one for each sample.

    Args:
        randomness: source of the random numbers; see :class:`StepRandomness`.
        schedule: of the noise.
        scale: factor that gives the latents about unit variance.
        latent_sample: take a sample of each posterior, ``scale (mean + std noise)``; otherwise its mean.
    """

    def __init__(
        self, randomness: StepRandomness, schedule: NoiseSchedule, scale: float, latent_sample: bool = False
    ) -> None:
        self.randomness = randomness
        self.schedule = schedule
        self.scale = scale
        self.latent_sample = latent_sample

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, Tensor]]:
        names = ("source_mean", "source_logvar", "target_mean", "target_logvar", "image", "vector")
        batch = {
            name: batchdata[name].to(device=device, non_blocking=non_blocking, **kwargs).float()
            for name in names
            if name in batchdata
        }
        device = batch["target_mean"].device
        shape, count, rank = batch["target_mean"].shape, process_count(), process_rank()
        total = shape[0] * count
        generator = self.randomness.shared(device)

        def drawn(*size: int) -> Tensor:
            """Standard normal rows of this process; every process draws for all of them."""
            return torch.randn(total, *size, generator=generator, device=device)[rank::count]

        t = torch.randint(self.schedule.num_steps, (total,), generator=generator, device=device)[rank::count]
        noise = drawn(*shape[1:])
        latents = []
        for name in ("source", "target"):
            latent = batch[f"{name}_mean"]
            if self.latent_sample:
                latent = latent + (0.5 * batch[f"{name}_logvar"]).exp() * drawn(*shape[1:])
            latents.append(self.scale * latent)
        source, x0 = latents
        x_t = marginal(self.schedule, x0, noise, t)
        arguments = {"x_t": x_t, "t": t}
        arguments |= {name: batch[name] for name in ("image", "vector") if name in batch}
        return source, {"noise": noise, "x0": x0, "x_t": x_t, "t": t}, (), arguments


class AutoencoderPrepareBatch(PrepareBatch):
    """Source and target slices as one batch of images, to be their own targets: one autoencoder for both.

    A batch holds ``source`` and ``target`` (B, 1, X, Y); returned is (2B, 1, X, Y) twice.
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        images = torch.cat([batchdata["source"], batchdata["target"]])
        images = images.to(device=device, non_blocking=non_blocking, **kwargs).float()
        return images, images
