"""Segmentation of slices in training, and of slices and volumes afterwards."""

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from ..transforms.target_intensity import with_geometry
from .diffusion import unwrap
from .precision import autocast


class SegmentationNetwork(Protocol):
    """What the inferer asks of a network besides ``network(image) -> logits``; ``Segmenter`` has it."""

    image_size: tuple[int, int]


class SegmentationInferer(Inferer):
    """Training step: ``inferer(image (B, 1, X, Y), network)`` -> what the network returns, float32.

    Args:
        amp: run the network in bf16 where the device has it.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        with autocast(inputs.device, self.amp):
            return network(inputs).float()


class SegmentationVolumeInferer(Inferer):
    """Most likely class of every pixel of slices, or of volumes slice by slice.

    Memory on the device does not grow with the number of slices beyond the volume itself.

    Args:
        batch_size: slices of a volume that are segmented at once.
        amp: run the network in bf16 where the device has it.
    """

    def __init__(self, batch_size: int = 16, amp: bool = False) -> None:
        if batch_size < 1:
            raise ValueError(f"SegmentationVolumeInferer: batch_size={batch_size} must be at least 1.")
        self.batch_size = batch_size
        self.amp = amp

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """(B, 1, X, Y) or (B, 1, X, Y, Z) in [0, 1] -> class indices of the same shape, float32.

        Geometry and trace of the input are kept, so that ``Invertd`` leads the result back to the files' grid.

        Raises:
            ValueError: slices of another size than the network's.
        """
        size = cast(SegmentationNetwork, unwrap(network)).image_size
        images = convert_to_tensor(inputs, track_meta=False)
        if images.ndim not in (4, 5) or tuple(images.shape[1:4]) != (1, *size):
            raise ValueError(
                f"SegmentationVolumeInferer: got images of shape {tuple(images.shape)}; this network takes slices of "
                f"{size[0]} x {size[1]} pixels in one channel. Fit the images to it, or train a network for their size."
            )
        if images.ndim == 4:
            return with_geometry(self._segment(images, network), inputs)
        slices = images.permute(0, 4, 1, 2, 3).flatten(0, 1)  # (B Z, 1, X, Y)
        labels = torch.cat([self._segment(part, network) for part in slices.split(self.batch_size)])
        labels = labels.unflatten(0, (len(images), -1)).permute(0, 2, 3, 4, 1)  # (B, 1, X, Y, Z)
        return with_geometry(labels.contiguous(), inputs)

    def _segment(self, slices: Tensor, network: Callable[..., Any]) -> Tensor:
        with autocast(slices.device, self.amp):
            return network(slices.contiguous()).float().argmax(dim=1, keepdim=True).float()
