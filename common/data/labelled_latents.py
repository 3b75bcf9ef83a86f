"""Labelled slices in the latent space of a frozen autoencoder, encoded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .encoded_slices import EncodedSlices
from .fingerprint import fingerprint
from .slices import SliceDataset

CACHE_VERSION = 1  # raise when the meaning of cached values changes


class Encoder(Protocol):
    """What the cache needs of an autoencoder; ``QuantizedAutoencoder`` and ``PixelSpace`` have it."""

    @property
    def identity(self) -> str:
        """Changes with the weights."""

    def encode(self, image: Tensor) -> Tensor:
        """(B, 1, X, Y) in [0, 1] -> continuous latent (B, C, h, w)."""


class LabelledLatents(EncodedSlices):
    """The continuous latent of every slice, before any codebook and not standardized, beside its label map.

    Latents take float16 on disk (steps of 1/2048 at 1), batches have them in float32.

    Args:
        slices: with the keys ``image``, in gray levels 0..255, and ``label``, in class indices.
        autoencoder: on ``device``.
        cache_dir: folder for the cache, one subfolder per list of slices and autoencoder.
        batch_size: slices encoded at a time.
        device: where to encode.
        progress: show a bar while encoding, if there is a terminal.

    Raises:
        ValueError: keys are missing, or the autoencoder gives values that are not finite.
    """

    def __init__(
        self,
        slices: SliceDataset,
        autoencoder: Encoder,
        cache_dir: str | Path,
        *,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
        progress: bool = True,
    ) -> None:
        if not {"image", "label"} <= set(slices.keys):
            raise ValueError(
                f"LabelledLatents: the slices have the keys {', '.join(slices.keys)}; image and label are needed."
            )
        key = fingerprint(CACHE_VERSION, slices.cache_key(), len(slices), autoencoder.identity)
        self.batch_size = batch_size

        def encode(indices: Sequence[int]) -> dict[str, Tensor]:
            image = slices.__getitems__(indices)["image"].to(device) / 255
            return {"latents": autoencoder.encode(image).half()}

        super().__init__(slices, cache_dir, f"labelled-{key}", encode, batch_size=batch_size, progress=progress)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch, for a loader with `ready_batch`.

        Returns:
            ``latent`` (B, C, h, w) and ``label`` (B, 1, X, Y), float32; ``index`` (B,) int64.
        """
        slices = self.slices.__getitems__(indices)
        return {"latent": self._rows("latents", indices), "label": slices["label"], "index": slices["index"]}

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (C,) float32 of each channel over all pixels of all latents.

        Summed in float64 about the first batch's mean, batch by batch.
        """
        latents = self.arrays["latents"]
        center = _values(latents[: self.batch_size]).mean(axis=1)  # (C,)
        total, squares = np.zeros_like(center), np.zeros_like(center)
        for start in range(0, len(latents), self.batch_size):
            deviations = _values(latents[start : start + self.batch_size]) - center[:, None]
            total += deviations.sum(axis=1)
            squares += np.square(deviations).sum(axis=1)
        count = latents[:, 0].size
        shift = total / count
        std = np.sqrt(squares / count - np.square(shift))
        return torch.from_numpy(center + shift).float(), torch.from_numpy(std).float()


def _values(latents: np.ndarray) -> np.ndarray:
    """(N, C, h, w) -> (C, N h w) in float64."""
    return latents.astype(np.float64).swapaxes(0, 1).reshape(latents.shape[1], -1)
