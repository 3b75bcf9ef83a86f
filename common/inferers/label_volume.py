"""Image volumes for label volumes, slice by slice."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from ..seeds import Stream, derive_seed
from ..transforms.target_intensity import with_geometry
from .label_synthesis import LabelSynthesisInferer
from .slicewise import case_number


class LabelVolumeInferer(Inferer):
    """Paints the slices of label volumes; those without (enough) labels stay 0.

    The noise of a slice depends on the inferer's seed, the name of the case, the number of the sample and, unless it is
    shared, that of the slice alone.

    Args:
        inferer: paints slices.
        batch_size: slices that are painted at once.
        min_label_pixels: labelled pixels from which on a slice is painted.
        share_noise: use the same noise for all slices of a volume, so that what the labels leave open does not change
            from slice to slice.
    """

    def __init__(
        self, inferer: LabelSynthesisInferer, batch_size: int = 16, min_label_pixels: int = 1, share_noise: bool = True
    ) -> None:
        if batch_size < 1 or min_label_pixels < 0:
            raise ValueError(
                f"LabelVolumeInferer: batch_size={batch_size} must be at least 1 and "
                f"min_label_pixels={min_label_pixels} not negative."
            )
        self.inferer = inferer
        self.batch_size = batch_size
        self.min_label_pixels = min_label_pixels
        self.share_noise = share_noise

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Images (B, 1, X, Y, Z) in [0, 1], with the geometry of the labels.

        Args:
            inputs: class indices (B, 1, X, Y, Z) on the network's grid in plane.
            network: a synthesizer in evaluation mode.
            args: not used.
            kwargs: ``case``: names of the volumes; ``index``: numbers of the samples, default 0; ``image``
                (B, 1, X, Y, Z), where the inferer reconstructs.

        Raises:
            ValueError: no slice of a volume has enough labels; the case is named.
        """
        if inputs.ndim != 5:
            raise ValueError(f"LabelVolumeInferer: got labels of shape {tuple(inputs.shape)}, needs (B, 1, X, Y, Z).")
        labels, images = convert_to_tensor(inputs, track_meta=False), kwargs.get("image")
        cases = kwargs.get("case") or [""] * len(labels)
        index = kwargs.get("index")
        numbers = [0] * len(labels) if index is None else [int(number) for number in index]
        volumes = [
            self._volume(label, network, case, number, None if images is None else images[row])
            for row, (label, case, number) in enumerate(zip(labels, cases, numbers, strict=True))
        ]
        return with_geometry(torch.stack(volumes), inputs)

    def _volume(
        self, label: Tensor, network: Callable[..., Any], case: str, number: int, image: Tensor | None
    ) -> Tensor:
        """(1, X, Y, Z) -> (1, X, Y, Z)."""
        slices = label.permute(3, 0, 1, 2).contiguous()  # (Z, 1, X, Y)
        real = None if image is None else convert_to_tensor(image, track_meta=False).permute(3, 0, 1, 2)
        counts = (slices > 0).flatten(1).sum(dim=1)
        chosen = torch.nonzero(counts >= self.min_label_pixels).flatten().tolist()
        if not chosen:
            raise ValueError(
                f"The label map of {case or 'the volume'} is empty, or no slice of it has {self.min_label_pixels} "
                f"labelled pixels (min_label_pixels; the most is {int(counts.max())}): there is nothing to paint."
            )
        result = torch.zeros_like(slices, dtype=torch.float32)
        for start in range(0, len(chosen), self.batch_size):
            rows = chosen[start : start + self.batch_size]
            keys = [() if self.share_noise else (row,) for row in rows]
            seeds = [derive_seed(Stream.SAMPLE, self.inferer.seed, case_number(case), number, *key) for key in keys]
            batch = None if real is None else real[rows]
            result[rows] = self.inferer.paint(slices[rows], network, seeds, batch)
        return result.permute(1, 2, 3, 0)
