"""The picture of a segmentation report: slices of a few volumes with the outlines of reference and prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..pictures import radiological
from .label_overlay import class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SLICES = 3  # of a volume
_SIZE = 1.9  # inches of an image


@dataclass(frozen=True)
class Example:
    """A few slices of a volume, each of the arrays (n, X, Y): image in 0..255, reference and prediction as indices."""

    case: str
    numbers: Sequence[int]
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    pred: NDArray[np.uint8]


def example_slices(case: str, image: Tensor, label: Tensor, pred: Tensor) -> Example:
    """The lower, middle and upper one of the slices in which the reference has labels.

    Args:
        case: name.
        image: (1, X, Y, Z) in [0, 1].
        label, pred: class indices, the same shape.
    """
    labeled = torch.nonzero((label > 0).flatten(0, 2).any(dim=0)).flatten().tolist()
    if len(labeled) > SLICES:  # the middles of as many equal parts
        labeled = [labeled[(2 * part + 1) * len(labeled) // (2 * SLICES)] for part in range(SLICES)]
    numbers = labeled or [label.shape[3] // 2]

    def cut(volume: Tensor) -> NDArray[np.uint8]:
        return volume[0, :, :, numbers].permute(2, 0, 1).round().clamp(0, 255).byte().numpy(force=True)

    return Example(case, numbers, cut(image.float() * 255), cut(label), cut(pred))


def draw_examples(examples: Sequence[tuple[str, Example]], class_names: Sequence[str], axial: bool = False) -> "Figure":
    """Draw one row per volume; each slice stands there with the outlines of the reference, then of the prediction.

    Args:
        examples: what stands left of each row, and the volume.
        class_names: of index 0, 1, ...; the first is the background.
        axial: see :class:`SegmentationGrid`.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(_SIZE * 2 * SLICES + 1.8, _SIZE * len(examples) + 1.6), layout="compressed")
    panels = figure.subplots(len(examples), 2 * SLICES, squeeze=False)
    for row, (text, example) in zip(panels, examples, strict=True):
        row[0].set_ylabel(text, rotation=0, ha="right", va="center", size=8)
        for panel in row:
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_frame_on(False)
        for position, number in enumerate(example.numbers):
            for offset, (title, labels) in enumerate((("reference", example.label), ("prediction", example.pred))):
                panel = row[2 * position + offset]
                _draw(panel, example.image[position], labels[position], len(class_names), axial)
                panel.set_title(f"slice {number}, {title}", size=7)
    lines = [Line2D([], [], color=class_color(index)) for index in range(1, len(class_names))]
    figure.legend(lines, class_names[1:], loc="outside lower center", ncols=len(lines), fontsize=8, frameon=False)
    return figure


def _draw(panel: "Axes", image: NDArray[np.uint8], labels: NDArray[np.uint8], num_classes: int, axial: bool) -> None:
    panel.imshow(_upright(image, axial), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    for index in range(1, num_classes):
        region = _upright(labels == index, axial)
        if region.any():
            panel.contour(region.astype(float), levels=[0.5], colors=[class_color(index)], linewidths=0.9)


def _upright(image: NDArray, axial: bool) -> NDArray:
    """(X, Y) -> rows and columns of a picture."""
    pixels = torch.from_numpy(image)
    return (radiological(pixels) if axial else pixels).T.numpy()
