"""The picture of a translation report: one slice a row, from source to error and uncertainty, with its scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..metrics.image_quality import psnr
from ..pictures import radiological
from ..transforms.intensity import CT_WINDOW, is_ct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CT_DISPLAY = (-200.0, 800.0)
"""HU drawn black and white: air and fat dark, soft tissue grey, bone bright."""

_SIZE = 2.0  # inches of an image


class Scale(NamedTuple):
    """Black and white of a panel, both in [0, 1], and what they are called."""

    low: float
    high: float
    low_name: str
    high_name: str


@dataclass(frozen=True)
class Example:
    """One slice.

    ``images``: by column, (X, Y) in [0, 1]; ``region``: (X, Y), outlined where differences are shown; ``psnr``: in dB,
    of the columns that show a method.
    """

    case: str
    place_mm: float
    images: Mapping[str, NDArray[np.float32]]
    region: NDArray[np.bool_] | None
    psnr: Mapping[str, float]


def example_slice(
    case: str,
    source: Tensor,
    first: int,
    block: Mapping[str, Tensor],
    region: Tensor | None,
    deviation: Tensor | None,
) -> Example:
    """The slice with the largest part of the region, or the middle one, of a block of slices.

    Args:
        case: name.
        source: the volume (1, X, Y, Z) of the case, for its place in space.
        first: number of the block's first slice in ``source``.
        block: by method, volumes (1, X, Y, N) in [0, 1].
        region, deviation: (1, X, Y, N), if there are any.
    """
    count = block["target"].shape[-1]
    shown = count // 2 if region is None or not region.any() else int(region.sum(dim=(0, 1, 2)).argmax())
    images = {name: volume[..., shown] for name, volume in block.items()}  # (1, X, Y)
    panels = {
        "source": images["source_copy"],
        "prediction": images["prediction"],
        "target": images["target"],
        "error": (images["prediction"] - images["target"]).abs(),
        "pointwise": images["pointwise"],
    }
    if deviation is not None:
        panels["deviation"] = deviation[..., shown]
    affine = getattr(source, "affine", torch.eye(4)).double()
    place = affine @ torch.tensor([0.0, 0.0, first + shown, 1.0], dtype=torch.float64)
    return Example(
        case=case,
        place_mm=float(place[2]),
        images={name: panel[0].float().numpy(force=True) for name, panel in panels.items()},
        region=None if region is None else region[0, :, :, shown].numpy(force=True),
        psnr={name: float(psnr(images[name], images["target"])) for name in ("prediction", "pointwise")},
    )


def draw_examples(
    examples: Sequence[Example], columns: Mapping[str, str], heat: Mapping[str, float], modalities: Mapping[str, str]
) -> "Figure":
    """Draw one row per example, with the scale of each column below it.

    Args:
        examples: their images have all ``columns``.
        columns: title of each column.
        heat: of the columns that show differences, the one drawn white, as a share of the displayed range of grey.
        modalities: of each column.
    """
    from matplotlib.figure import Figure

    size = (_SIZE * len(columns) + 1.5, _SIZE * len(examples) + 2.0)
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(len(examples), len(columns), squeeze=False)
    scales = {name: _scale(modalities[name], heat.get(name)) for name in columns}
    for row, example in zip(panels, examples, strict=True):
        for panel, name in zip(row, columns, strict=True):
            _draw(panel, example, name, scales[name], name in heat)
        row[0].set_ylabel(f"{example.case}\nz = {example.place_mm:.0f} mm", rotation=0, ha="right", va="center", size=8)
    for panel, title in zip(panels[0], columns.values(), strict=True):
        panel.set_title(title, size=9)
    for panel, name in zip(panels[-1], columns, strict=True):
        bar = panel.inset_axes((0, -0.22, 1, 0.05))
        figure.colorbar(panel.images[0], cax=bar, orientation="horizontal")
        bar.set_xticks([scales[name].low, scales[name].high], [scales[name].low_name, scales[name].high_name], size=8)
        left, right = bar.get_xticklabels()
        left.set_horizontalalignment("left")
        right.set_horizontalalignment("right")
    return figure


def _draw(panel: "Axes", example: Example, name: str, scale: Scale, difference: bool) -> None:
    picture, colors = _upright(example.images[name]), "hot" if difference else "gray"
    panel.imshow(picture, cmap=colors, vmin=scale.low, vmax=scale.high, interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    if difference and example.region is not None and example.region.any():
        outline = _upright(example.region.astype(np.float32))
        panel.contour(outline, levels=[0.5], colors="deepskyblue", linewidths=0.7)
    if name in example.psnr:
        panel.set_xlabel(f"PSNR {example.psnr[name]:.1f} dB", size=8, labelpad=2)


def _upright(image: NDArray) -> NDArray:
    """(X, Y) of a volume in RAS -> rows and columns as radiologists look at them."""
    return radiological(torch.from_numpy(image)).T.numpy()


def _scale(modality: str, heat: float | None) -> Scale:
    """The scale of an image of ``modality``, or of a difference that is white at ``heat`` times its range."""
    if is_ct(modality):
        width = CT_WINDOW[1] - CT_WINDOW[0]
        if heat is not None:
            level = heat * (CT_DISPLAY[1] - CT_DISPLAY[0])
            return Scale(0.0, level / width, "0", f"{level:.0f} HU")
        low, high = ((level - CT_WINDOW[0]) / width for level in CT_DISPLAY)
        return Scale(low, high, f"{CT_DISPLAY[0]:.0f}", f"{CT_DISPLAY[1]:.0f} HU")
    return Scale(0.0, 1.0, "0", "1") if heat is None else Scale(0.0, heat, "0", f"{heat:g}")
