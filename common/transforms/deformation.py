"""Random deformation of images and their label maps alike, on whole batches."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling_grid import pose_matrix, sample, sampling_grid


class Deformation:
    """Rotation, scaling, shift, elastic distortion, random crop and flips: one resampling for all of them.

    Images are interpolated linearly, label maps take the nearest pixel, both from the same places; 0 (black,
    background) comes in from outside. All amounts are uniform; each kind happens to an image with its own probability.
    What is drawn is a function of the generator, the number of images and their size.

    Args:
        rotation: largest angle in degrees, in either direction.
        shift: largest shift along either axis, as a share of the side (0.094: 12 of 128 pixels).
        scale: smallest and largest scaling, above 1 makes things larger; None: never.
        elastic: smallest and largest distortion in pixels: how far the control points are moved at most along either
            axis; None: never.
        spacing: largest distance between control points in pixels; between them the displacement is bicubic.
        crop: share of the sides that a crop at a random place keeps, enlarged to the whole size; None: never.
        flip_axes: spatial axes (0 is x, left-right) that are flipped.
        rotation_prob, shift_prob, scale_prob, elastic_prob, crop_prob, flip_prob: probabilities; of flips, per axis.
    """

    def __init__(
        self,
        rotation: float = 15.0,
        shift: float = 0.094,
        scale: Sequence[float] | None = (0.9, 1.1),
        elastic: Sequence[float] | None = (1.0, 3.0),
        spacing: float = 24.0,
        crop: float | None = None,
        flip_axes: Sequence[int] = (),
        *,
        rotation_prob: float = 0.5,
        shift_prob: float = 0.5,
        scale_prob: float = 0.5,
        elastic_prob: float = 0.3,
        crop_prob: float = 0.3,
        flip_prob: float = 0.5,
    ) -> None:
        probabilities = (rotation_prob, shift_prob, scale_prob, elastic_prob, crop_prob, flip_prob)
        if not all(0 <= probability <= 1 for probability in probabilities):
            raise ValueError(f"Deformation: probabilities must lie in [0, 1], not {probabilities}.")
        if rotation < 0 or not 0 <= shift < 1 or spacing <= 0 or (crop is not None and not 0 < crop <= 1):
            raise ValueError(
                f"Deformation: rotation={rotation} must not be negative, shift={shift} must lie in [0, 1), "
                f"spacing={spacing} be positive and crop={crop} in (0, 1] or None."
            )
        if scale is not None and not (len(scale) == 2 and 0 < scale[0] <= scale[1]):
            raise ValueError(f"Deformation: scale={scale} must be two positive, rising numbers, or None.")
        if elastic is not None and not (len(elastic) == 2 and 0 <= elastic[0] <= elastic[1]):
            raise ValueError(f"Deformation: elastic={elastic} must be two rising numbers of pixels, or None.")
        if not set(flip_axes) <= {0, 1}:
            raise ValueError(f"Deformation: flip_axes={list(flip_axes)} may hold 0 and 1.")
        self.rotation, self.shift, self.spacing = math.radians(rotation), shift, spacing
        self.scale = None if scale is None else (float(scale[0]), float(scale[1]))
        self.elastic = None if elastic is None else (float(elastic[0]), float(elastic[1]))
        self.crop = crop
        self.flip_axes = tuple(flip_axes)
        self.rotation_prob, self.shift_prob, self.scale_prob = rotation_prob, shift_prob, scale_prob
        self.elastic_prob, self.crop_prob, self.flip_prob = elastic_prob, crop_prob, flip_prob

    def __call__(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, rank: int = 0, count: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Deform images (B, C, X, Y) and their label maps (B, 1, X, Y), which keep their types.

        Args:
            images, labels: on the device of ``generator``.
            generator: source of the random numbers.
            rank, count: the batch is the rows ``[rank::count]`` of one with ``count * B`` images.
        """
        grid = self._grid(images, generator, rank, count)
        return sample(images, grid), sample(labels, grid, nearest=True)

    def labels(self, labels: Tensor, generator: torch.Generator, rank: int = 0, count: int = 1) -> Tensor:
        """Deform label maps (B, 1, X, Y) alone: as with images of the same size and the same random numbers."""
        return sample(labels, self._grid(labels, generator, rank, count), nearest=True)

    def grid(self, number: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw ``number`` deformations of images of (X, Y) pixels: where each pixel comes from, (number, X, Y, 2)."""
        device = generator.device

        def draw(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(number, *shape, generator=generator, device=device)

        def happens(probability: float, *shape: int) -> Tensor:
            return draw(0, 1, *shape) < probability

        rotation = draw(-self.rotation, self.rotation) * happens(self.rotation_prob)
        shift = draw(-self.shift, self.shift, 2) * happens(self.shift_prob)[:, None]
        scaling = torch.ones(number, device=device)
        if self.scale is not None:
            scaling = torch.where(happens(self.scale_prob), draw(*self.scale), scaling)
        view, center = torch.ones(number, 2, device=device), torch.zeros(number, 2, device=device)  # half sides
        if self.crop is not None:
            cropped = happens(self.crop_prob)[:, None]
            view = torch.where(cropped, self.crop, view)
            center = torch.where(cropped, draw(-1, 1, 2) * (1 - self.crop), center)
        for axis in self.flip_axes:
            view[:, axis] = torch.where(happens(self.flip_prob), -view[:, axis], view[:, axis])
        pose = pose_matrix(rotation, scaling, shift, size)  # (number, 2, 3)
        back, origin = pose[:, :, :2], pose[:, :, 2:]
        matrix = torch.cat([back * view[:, None], back @ center[:, :, None] + origin], dim=2)  # crop and flip come last
        grid = sampling_grid(matrix, size)
        if self.elastic is not None:
            largest = draw(*self.elastic) * happens(self.elastic_prob)  # (number,) pixels
            points = [math.ceil((side - 1) / self.spacing) + 1 for side in size]
            moved = draw(-1, 1, 2, *points) * largest[:, None, None, None]  # (number, 2, n, m), order Y, X
            moved = F.interpolate(moved, size, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
            grid = grid + 2 * moved / grid.new_tensor([size[1], size[0]])
        return grid

    def _grid(self, images: Tensor, generator: torch.Generator, rank: int, count: int) -> Tensor:
        return self.grid(len(images) * count, (images.shape[2], images.shape[3]), generator)[rank::count]
