"""The picture of a translation report: one slice a row, from source to error and uncertainty, with its scales.

A CT cannot be read in one window, so it has two rows: the windows of bone and of soft tissue that radiologists use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..metrics.image_quality import psnr
from ..pictures import radiological
from ..transforms.intensity import is_ct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = 2.0  # inches of an image


class View(NamedTuple):
    """A window of CT: its name, HU drawn black and white, and the HU that differences are a share of."""

    name: str
    black: float
    white: float
    contrast: float


CT_VIEWS = (View("bone window", -500.0, 1300.0, 1000.0), View("soft-tissue\nwindow", -100.0, 150.0, 250.0))


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
    others = [name for name in ("pointwise", "reconstruction") if name in images]
    panels = {
        "source": images["source_copy"],
        "prediction": images["prediction"],
        "target": images["target"],
        "error": (images["prediction"] - images["target"]).abs(),
    }
    panels |= {name: images[name] for name in others}
    if deviation is not None:
        panels["deviation"] = deviation[..., shown]
    affine = getattr(source, "affine", torch.eye(4)).double()
    place = affine @ torch.tensor([0.0, 0.0, first + shown, 1.0], dtype=torch.float64)
    return Example(
        case=case,
        place_mm=float(place[2]),
        images={name: panel[0].float().numpy(force=True) for name, panel in panels.items()},
        region=None if region is None else region[0, :, :, shown].numpy(force=True),
        psnr={name: float(psnr(images[name], images["target"])) for name in ("prediction", *others)},
    )


def draw_examples(
    examples: Sequence[Example],
    columns: Mapping[str, str],
    heat: Mapping[str, float],
    modalities: Mapping[str, str],
    ct_window: Sequence[float],
) -> "Figure":
    """Draw one row per example, or one for each of :data:`CT_VIEWS` if it shows a CT besides the source.

    The scale of each column stands below the last row, or the last of each view.

    Args:
        examples: their images have all ``columns``.
        columns: title of each column.
        heat: of the columns that show differences, the one drawn white, as a share of the displayed range of grey (for
            CT, of the view's ``contrast``).
        modalities: of each column.
        ct_window: HU that are 0 and 1.
    """
    from matplotlib.figure import Figure

    views = CT_VIEWS if any(is_ct(modalities[name]) for name in columns if name != "source") else CT_VIEWS[:1]
    size = (_SIZE * len(columns) + 1.5, _SIZE * len(examples) * len(views) + 2.0)
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(len(examples) * len(views), len(columns), squeeze=False)
    for panel, title in zip(panels[0], columns.values(), strict=True):
        panel.set_title(title, size=9)
    for number, view in enumerate(views):
        drawn = [name for name in columns if number == 0 or is_ct(modalities[name])]  # others do not change
        scales = {name: _scale(modalities[name], heat.get(name), view, ct_window) for name in drawn}
        rows = [dict(zip(columns, row, strict=True)) for row in panels[number :: len(views)]]
        for row, example in zip(rows, examples, strict=True):
            for name in drawn:
                _draw(row[name], example, name, scales[name], name in heat)
            for name in columns.keys() - drawn:
                row[name].set_axis_off()
            place = f"{example.case}\nz = {example.place_mm:.0f} mm" if number == 0 else ""
            label = f"{place}\n{view.name}" if len(views) > 1 else place
            row[drawn[0]].set_ylabel(label.strip(), rotation=0, ha="right", va="center", size=8)
        for name in drawn:
            _draw_scale(rows[-1][name], scales[name])
    for row, example in zip(panels[:: len(views)], examples, strict=True):
        for panel, name in zip(row, columns, strict=True):
            if name in example.psnr:
                panel.set_xlabel(f"PSNR {example.psnr[name]:.1f} dB", size=8, labelpad=2)
    return figure


def _draw(panel: "Axes", example: Example, name: str, scale: Scale, difference: bool) -> None:
    picture, colors = _upright(example.images[name]), "hot" if difference else "gray"
    panel.imshow(picture, cmap=colors, vmin=scale.low, vmax=scale.high, interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    if difference and example.region is not None and example.region.any():
        outline = _upright(example.region.astype(np.float32))
        panel.contour(outline, levels=[0.5], colors="deepskyblue", linewidths=0.7)


def _draw_scale(panel: "Axes", scale: Scale) -> None:
    bar = panel.inset_axes((0, -0.22, 1, 0.05))
    panel.figure.colorbar(panel.images[0], cax=bar, orientation="horizontal")
    bar.set_xticks([scale.low, scale.high], [scale.low_name, scale.high_name], size=8)
    left, right = bar.get_xticklabels()
    left.set_horizontalalignment("left")
    right.set_horizontalalignment("right")


def _upright(image: NDArray) -> NDArray:
    """(X, Y) of a volume in RAS -> rows and columns as radiologists look at them."""
    return radiological(torch.from_numpy(image)).T.numpy()


def _scale(modality: str, heat: float | None, view: View, ct_window: Sequence[float]) -> Scale:
    """The scale of an image of ``modality``, or of a difference that is white at ``heat`` times its range."""
    if not is_ct(modality):
        return Scale(0.0, 1.0, "0", "1") if heat is None else Scale(0.0, heat, "0", f"{heat:g}")
    bottom, top = ct_window
    if heat is not None:
        level = heat * view.contrast
        return Scale(0.0, level / (top - bottom), "0", f"{level:.0f} HU")
    low, high = ((level - bottom) / (top - bottom) for level in (view.black, view.white))
    return Scale(low, high, f"{view.black:.0f}", f"{view.white:.0f} HU")
