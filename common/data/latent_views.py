"""Several latents of every source slice, to learn by contrast what a slice has in every pose and from every scanner."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..image_size import check_image_size
from ..seeds import Stream, derive_seed
from .encoded_slices import Autoencoder, EncodedSlices
from .fingerprint import fingerprint
from .slices import SliceDataset

CACHE_VERSION = 1  # raise when the meaning of cached values changes


class LatentViews(EncodedSlices):
    """Posterior means of augmented views of every source slice, or the posterior of the slice itself.

    A view is a function of ``seed``, ``batch_size`` and the numbers of slice and view. Stored in float16.

    Args:
        slices: slices with the key ``source``, in [-1, 1].
        autoencoder: encodes them; on ``device``.
        cache_dir: folder for the cache, one subfolder per list of slices, autoencoder and settings.
        views: views per slice, two at least; 0 stores the moments of the slice itself.
        seed: of the views.
        augment: ``(images (B, 1, X, Y) in [-1, 1], generator) -> images`` makes views; not needed if there are none.
        batch_size: slices encoded at a time.
        patch_size: latent pixels per token of the network to train, which the sides must be multiples of.
        device: where to augment and encode.
        progress: show a bar while encoding, if there is a terminal.

    Raises:
        ValueError: impossible settings, slices that do not become whole tokens, or latents that are not finite.
    """

    def __init__(
        self,
        slices: SliceDataset,
        autoencoder: Autoencoder,
        cache_dir: str | Path,
        *,
        views: int = 4,
        seed: int = 0,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        batch_size: int = 32,
        patch_size: int = 2,
        device: str | torch.device = "cpu",
        progress: bool = True,
    ) -> None:
        if views < 0 or views == 1:
            raise ValueError(f"LatentViews: views={views}; two are needed to compare, or 0 for the slice itself.")
        if views and augment is None:
            raise ValueError(f"LatentViews: views={views} need `augment`, which makes them.")
        check_image_size(slices.images.shape[2:], autoencoder.factor, patch_size)
        settings = (views, seed, batch_size, augment) if views else ()
        key = fingerprint(CACHE_VERSION, slices.cache_key(), len(slices), autoencoder.identity, settings)

        def encode(indices: Sequence[int]) -> dict[str, Tensor]:
            images = slices.__getitems__(indices)["source"].to(device)  # (B, 1, X, Y)
            if augment is None or not views:
                return {"moments": torch.stack(autoencoder.encode_moments(images), dim=1).half()}  # (B, 2, C, h, w)
            means = []
            for view in range(views):
                generator = torch.Generator(device).manual_seed(derive_seed(Stream.VIEW, seed, indices[0], view))
                means.append(autoencoder.encode_moments(augment(images, generator))[0])
            return {"views": torch.stack(means, dim=1).half()}  # (B, views, C, h, w)

        super().__init__(slices, cache_dir, f"views-{key}", encode, batch_size=batch_size, progress=progress)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch, for a loader with `ready_batch`.

        Returns:
            ``views`` (B, views, C, h, w), or ``mean`` and ``logvar`` (B, C, h, w) where there are none; float32, not
            scaled. ``index`` (B,) int64.
        """
        index = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        if "views" in self.arrays:
            return {"views": self._rows("views", indices), "index": index}
        mean, logvar = self._rows("moments", indices).unbind(dim=1)
        return {"mean": mean, "logvar": logvar, "index": index}
