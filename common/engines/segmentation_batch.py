"""What a segmentation network, and its pretraining on images without labels, starts from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from ..parallel import process_count, process_rank
from ..transforms.deformation import Deformation
from .prepare_batch import random_flips
from .randomness import StepRandomness

_CELLS = 3  # of a side: hidden squares lie in different ones of 3 x 3 cells, so they do not overlap


class SegmentationPrepareBatch(PrepareBatch):
    """Images and label maps of a segmentation network, deformed alike in training.

    A batch holds ``image`` in grey levels 0..255 and ``label``, class indices, both (B, 1, X, Y) or, without
    ``augment``, volumes (B, 1, X, Y, Z). Returned are the image in [0, 1], and the label map as int64. Where there is
    no label map (inference), the image stands in its place.

    Args:
        randomness: source of the random numbers, needed with ``augment``; see :class:`StepRandomness`.
        augment: deforms slices, a new way in each iteration; None: they are taken as they are.
    """

    def __init__(self, randomness: StepRandomness | None = None, augment: Deformation | None = None) -> None:
        if augment is not None and randomness is None:
            raise ValueError("SegmentationPrepareBatch: `augment` needs `randomness`, which its numbers come from.")
        self.randomness = randomness
        self.augment = augment

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs).float() / 255
        if "label" not in batchdata:
            return image, image
        label = batchdata["label"].to(device=device, non_blocking=non_blocking, **kwargs).long()
        if self.augment is not None and self.randomness is not None:
            generator = self.randomness.shared(image.device)
            image, label = self.augment(image, label, generator, process_rank(), process_count())
        return image, label


class ContextPrepareBatch(PrepareBatch):
    """Hides squares of each image, which the network is to fill in; needs no labels.

    A batch holds ``image`` (B, 1, X, Y) in grey levels 0..255. Returned are the image in [0, 1], its hidden squares
    filled with its mean, as input, and ``{"image", "mask"}`` as what the loss compares with, mask 1 where hidden.
    The n squares of an image do not overlap and have one size, at most a third of the shorter side: together ``share``
    of the area, up to rounding.

    Args:
        randomness: source of the random numbers; see :class:`StepRandomness`.
        share: of the area that is hidden.
        squares: smallest and largest n, at most 9; of 0.25 and (4, 8) become sides between 1/2 / sqrt(8) and 1/4 of the
            image: 23 to 32 of 128 pixels.
        flip_axes: spatial axes that are flipped at random, with probability 1/2.
    Source: Pathak et al. 2016, "Context encoders: feature learning by inpainting", random blocks.
    """

    def __init__(
        self,
        randomness: StepRandomness,
        share: float = 0.25,
        squares: Sequence[int] = (4, 8),
        flip_axes: Sequence[int] = (0, 1),
    ) -> None:
        fewest, most = squares
        if not 1 <= fewest <= most <= _CELLS**2:
            raise ValueError(f"ContextPrepareBatch: squares={list(squares)} must be two rising numbers in 1..9.")
        if not 0 < share <= fewest / _CELLS**2:
            raise ValueError(
                f"ContextPrepareBatch: share={share} must be positive and at most {fewest}/9, since {fewest} squares "
                "lie in cells of a third of the side; raise the number of squares."
            )
        self.randomness = randomness
        self.share = share
        self.squares = (fewest, most)
        self.flip_axes = tuple(flip_axes)

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs).float() / 255
        generator = self.randomness.shared(image.device)
        image = random_flips(image, self.flip_axes, 0.5, generator)
        count, rank = process_count(), process_rank()
        mask = self.hidden(len(image) * count, (image.shape[2], image.shape[3]), generator)[rank::count].float()
        masked = torch.where(mask > 0, image.mean(dim=(1, 2, 3), keepdim=True), image)
        return masked, {"image": image, "mask": mask}

    def hidden(self, number: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw the hidden squares of ``number`` images: bool (number, 1, X, Y)."""
        device, cells = generator.device, _CELLS**2

        def draw(*shape: int) -> Tensor:
            return torch.rand(number, *shape, generator=generator, device=device)

        fewest, most = self.squares
        n = fewest + (draw() * (most - fewest + 1)).long()  # (number,) squares
        chosen = draw(cells).argsort(dim=1).argsort(dim=1) < n[:, None]  # (number, cells), n of them
        side = (size[0] * size[1] * self.share / n).sqrt().round().clamp(max=min(size) // _CELLS)  # (number,) pixels
        inside = []
        for axis, length in enumerate(size):
            cell = torch.arange(cells, device=device) // _CELLS ** (1 - axis) % _CELLS  # row or column of cells
            low, high = cell * length // _CELLS, (cell + 1) * length // _CELLS  # first pixel and end of a cell
            room = high - low - side[:, None] + 1  # (number, cells) places
            start = low + (draw(cells) * room).floor()
            pixel = torch.arange(length, device=device)
            inside.append((pixel >= start[..., None]) & (pixel < (start + side[:, None])[..., None]))
        rows, columns = (part & chosen[..., None] for part in inside)  # (number, cells, X), (number, cells, Y)
        return (rows[..., :, None] & columns[..., None, :]).any(dim=1)[:, None]
