"""The picture of a reconstruction report: curves over the start steps, and slices beside their reconstructions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..atomic import atomic_path
from ..pictures import image_grid
from .bootstrap import Score

_LABELS = {"psnr": "PSNR in dB", "ms_ssim": "MS-SSIM x 100", "l1": "mean absolute error", "lpips": "LPIPS"}
_GAP = 2  # pixels between images


@dataclass(frozen=True)
class Reconstructions:
    """Some slices.

    Attributes:
        starts: start steps.
        images: the slice and one reconstruction per start step, (N, 1 + S, 1, X, Y) in [0, 1].
        names: of the slices.
    """

    starts: Sequence[int]
    images: Tensor
    names: Sequence[str]


def draw_curves(path: Path, scores: Sequence[Score], floor: str, shown: Reconstructions, title: str) -> None:
    """Write ``report.png``.

    Args:
        path: of the picture.
        scores: their groups are ``t0=<start>`` and ``floor``.
        floor: the group that is drawn as a line.
        shown: what is drawn below.
        title: of the whole.
    """
    from matplotlib.figure import Figure

    number, columns, _, width, height = shown.images.shape
    figure_width = max(3.2 * len(scores), 1.5 * columns)
    picture_height = figure_width * number * height / (columns * width)
    figure = Figure(figsize=(figure_width, 3.6 + picture_height), layout="constrained")
    rows: list[Any] = [[score.name for score in scores], ["images"] * len(scores)]
    panels = figure.subplot_mosaic(rows, height_ratios=[2.8, picture_height])
    for score in scores:
        panel, entry = panels[score.name], score.entry(0)
        curve = [entry[f"t0={start}"] for start in shown.starts]
        values = [float("nan") if point["value"] is None else point["value"] for point in curve]
        panel.errorbar(shown.starts, values, [point["bootstrap_sd"] or 0.0 for point in curve], marker="o", capsize=3)
        if floor in entry:
            panel.axhline(entry[floor]["value"], color="gray", linestyle="--", label=floor.replace("_", " "))
            panel.legend()
        panel.set_title(_LABELS[score.name])
        panel.set_xlabel("t0, steps of noise")
    picture = image_grid(shown.images.flatten(0, 1), columns=columns, gap=_GAP)
    panel = panels["images"]
    panel.imshow(picture, interpolation="nearest")
    places = [_GAP + (width + _GAP) * place + width / 2 for place in range(columns)]
    panel.set_xticks(places, ["real image", *(f"t0 = {start}" for start in shown.starts)])
    panel.set_yticks([_GAP + (height + _GAP) * row + height / 2 for row in range(number)], shown.names, size=7)
    panel.tick_params(length=0, labeltop=True, labelbottom=False)
    figure.suptitle(title, size=9, wrap=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
