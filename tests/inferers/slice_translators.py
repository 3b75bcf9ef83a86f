"""Translators of slices whose results are known, for tests of what translates with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.diffusion.gaussian import linear_schedule
from common.diffusion.residual_shift import residual_shift_schedule
from common.inferers.generator import GeneratorInferer
from common.inferers.latent_translation import LatentTranslationInferer
from common.inferers.slicewise import SlicewiseInferer
from common.inferers.translation import TranslationInferer

SIZE = (6, 4)


def volume(depth: int = 7, seed: int = 0) -> Tensor:
    """(1, 1, X, Y, Z) in [-0.9, 0.9]: all slices have foreground."""
    generator = torch.Generator().manual_seed(seed)
    return 1.8 * torch.rand(1, 1, *SIZE, depth, generator=generator) - 0.9


class Recording(nn.Module):
    """Keeps the steps t and the noisy images that it is called with."""

    image_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.times: list[list[int]] = []
        self.inputs: list[Tensor] = []

    def check_ready(self) -> None:
        """Nothing is missing."""

    def record(self, x_t: Tensor, t: Tensor) -> None:
        self.times.append(t.tolist())
        self.inputs.append(x_t.clone())


class ShiftRecording(Recording):
    """Estimates the target by a function of (x_t, t, source)."""

    def __init__(self, estimate: Callable[[Tensor, Tensor, Tensor], Tensor], num_steps: int = 4) -> None:
        super().__init__()
        self.estimate, self.schedule = estimate, residual_shift_schedule(num_steps)

    def forward(self, x_t: Tensor, t: Tensor, source: Tensor) -> Tensor:
        assert x_t.shape == source.shape == (len(t), 1, *SIZE)
        self.record(x_t, t)
        return self.estimate(x_t, t, source)


class LatentRecording(Recording):
    """Predicts noise, and v if given, by a function of (x_t, t, latent of the source, source)."""

    def __init__(
        self, predict: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], scale: float = 0.5, v: float | None = None
    ) -> None:
        super().__init__()
        self.predict, self.scale, self.v, self.learn_sigma = predict, scale, v, v is not None
        self.schedule = linear_schedule()
        self.vectors: list[Tensor | None] = []
        self.latents: list[Tensor] = []

    def conditions(self, source: Tensor, image: Tensor | None, vector: Tensor | None) -> list[Tensor]:
        assert image is not None
        self.latents.append(source)
        self.vectors.append(vector)
        return [image]

    def forward(self, x_t: Tensor, t: Tensor, source: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        assert x_t.shape == source.shape == (len(t), 4, SIZE[0] // 2, SIZE[1] // 2)
        assert source is self.latents[-1]
        self.record(x_t, t)
        noise = self.predict(x_t, t, source, conditions[0])
        return noise if self.v is None else torch.cat([noise, torch.full_like(noise, self.v)], dim=1)


class Unshuffle(nn.Module):
    """An autoencoder without loss: latents are the four pixels of each 2x2 block, times 3. The variance is unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded, self.decoded = 0, 0  # slices so far

    def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        self.encoded += len(image)
        mean = 3 * F.pixel_unshuffle(image, 2)
        return mean, torch.full_like(mean, torch.nan)

    def decode(self, latent: Tensor) -> Tensor:
        self.decoded += len(latent)
        return F.pixel_shuffle(latent / 3, 2)


class Generator(Recording):
    """One pass, no noise."""

    def forward(self, source: Tensor) -> Tensor:
        self.record(source, torch.zeros(len(source)))
        return 0.3 * source


def noisy_shift(num_steps: int = 4) -> ShiftRecording:
    """Estimates to which the noise of every step contributes, inside of the range so that nothing is clamped."""
    return ShiftRecording(lambda x_t, t, source: 0.1 * source + 0.02 * x_t, num_steps)


def noisy_latent(v: float | None = None) -> LatentRecording:
    """Predicted noise that leaves a part of the true noise of every step in the result."""
    return LatentRecording(lambda x_t, t, latent, image: 0.5 * x_t + 0.1 * latent, v=v)


@dataclass(frozen=True)
class Method:
    """A way to translate, and how many network calls it takes per batch of slices and sample."""

    inferer: Callable[..., SlicewiseInferer]
    network: Callable[[], Recording]
    calls: int


def _latent(sampler: str, eta: float = 0.0) -> Method:
    def inferer(**options: object) -> SlicewiseInferer:
        return LatentTranslationInferer(Unshuffle(), sampler=sampler, num_steps=3, eta=eta, **options)  # type: ignore[arg-type]

    return Method(inferer, noisy_latent, 3)


SAMPLERS = {
    "residual shift": Method(TranslationInferer, noisy_shift, 4),
    "latent ddim": _latent("ddim"),
    "latent ddim eta": _latent("ddim", 0.7),
    "latent ddpm": _latent("ddpm"),
}
METHODS = SAMPLERS | {"generator": Method(GeneratorInferer, Generator, 1)}
