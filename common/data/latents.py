"""Pairs of slices in the latent space of a frozen autoencoder, encoded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..image_size import check_image_size
from .encoded_slices import Autoencoder, EncodedSlices
from .fingerprint import fingerprint
from .slices import SliceDataset

CACHE_VERSION = 1  # raise when the meaning of cached values changes


class ImageEncoder(Protocol):
    """Frozen network that makes one vector of an image."""

    @property
    def identity(self) -> str:
        """Changes with the weights and with what is done to the image."""

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 1, X, Y) in [-1, 1] -> (B, V)."""


class LatentDataset(EncodedSlices):
    """Posterior moments of the latents of every pair of slices, and the image encoder's vector of every source.

    Moments are stored, never a sample: noise that was drawn once would be an error that no training removes. They take
    float16 (steps of 1/2048 at 1), vectors float32.

    Args:
        slices: registered slices with the keys ``source`` and ``target``, in [-1, 1].
        autoencoder: encodes both; on ``device``.
        cache_dir: folder for the cache, one subfolder per list of slices and encoders.
        image_encoder: gives ``vector`` of the source; None leaves it out.
        keep_images: give ``image``, the source slice itself, to train an image encoder on.
        batch_size: slices encoded at a time.
        patch_size: latent pixels per token of the network to train, which the sides must be multiples of.
        device: where to encode.
        progress: show a bar while encoding, if there is a terminal.

    Raises:
        ValueError: keys are missing, the slices do not become whole tokens, or an encoder gives values that are not
            finite.
    """

    def __init__(
        self,
        slices: SliceDataset,
        autoencoder: Autoencoder,
        cache_dir: str | Path,
        *,
        image_encoder: ImageEncoder | None = None,
        keep_images: bool = False,
        batch_size: int = 32,
        patch_size: int = 2,
        device: str | torch.device = "cpu",
        progress: bool = True,
    ) -> None:
        if not {"source", "target"} <= set(slices.keys):
            raise ValueError(
                f"LatentDataset: the slices have the keys {', '.join(slices.keys)}; source and target are needed."
            )
        check_image_size(slices.images.shape[2:], autoencoder.factor, patch_size)
        self.keep_images = keep_images
        vector = None if image_encoder is None else image_encoder.identity
        key = fingerprint(CACHE_VERSION, slices.cache_key(), len(slices), autoencoder.identity, vector)

        if isinstance(image_encoder, torch.nn.Module):
            image_encoder.to(device)

        def encode(indices: Sequence[int]) -> dict[str, Tensor]:
            pair = slices.__getitems__(indices)
            source, target = (pair[name].to(device) for name in ("source", "target"))
            pairs = [torch.stack(autoencoder.encode_moments(image), dim=1) for image in (source, target)]
            rows = {"moments": torch.stack(pairs, dim=1).half()}  # (B, 2 images, mean and logvar, C, h, w)
            if image_encoder is not None:
                rows["vectors"] = image_encoder(source).float()
            return rows

        super().__init__(slices, cache_dir, f"latents-{key}", encode, batch_size=batch_size, progress=progress)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch, for a loader with `ready_batch`.

        Returns:
            ``source_mean``, ``source_logvar``, ``target_mean``, ``target_logvar`` (B, C, h, w), not scaled; ``vector``
            (B, V) and ``image`` (B, 1, X, Y) if asked for; all float32. ``index`` (B,) int64.
        """
        source, target = self._rows("moments", indices).unbind(dim=1)  # (B, mean and logvar, C, h, w) each
        batch = {
            **dict(zip(("source_mean", "source_logvar"), source.unbind(dim=1), strict=True)),
            **dict(zip(("target_mean", "target_logvar"), target.unbind(dim=1), strict=True)),
        }
        if "vectors" in self.arrays:
            batch["vector"] = self._rows("vectors", indices)
        if self.keep_images:
            batch["image"] = self.slices.__getitems__(indices)["source"]
        return {**batch, "index": torch.as_tensor(np.asarray(indices, dtype=np.int64))}
