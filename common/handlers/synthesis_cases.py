"""The table of a synthesis report: one row per generated image."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..metrics.volume_dice import dice


def cases_table(
    distances: Tensor,
    nearest: Sequence[str],
    seams: Tensor | None,
    likeness: Tensor,
    counts: Tensor | None,
    names: Sequence[str],
) -> str:
    """The text of ``metrics_cases.csv``; a value that is not defined stays empty.

    Args:
        distances: to the nearest training slice, (N,).
        nearest: what that slice is called.
        seams: seam ratios (N,), if there are any.
        likeness: MS-SSIM times 100 to the most similar training slice, (N,).
        counts: of :func:`adherence_counts`, (N, K - 1, 3), if there is a segmenter.
        names: of the K classes, background first.
    """
    columns: dict[str, Sequence[str]] = {
        "sample": [str(number) for number in range(len(distances))],
        "nearest_training_distance": _cells(distances),
        "nearest_training_slice": nearest,
    }
    if seams is not None:
        columns["seam_ratio"] = _cells(seams)
    columns["nearest_training_ms_ssim"] = _cells(likeness)
    if counts is not None:
        columns |= _dice_columns(counts, names)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _dice_columns(counts: Tensor, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    values = dice(counts)  # (N, K - 1)
    return {
        f"label_dice_{name.replace(' ', '_')}": _cells(column) for name, column in zip(names[1:], values.T, strict=True)
    }


def _cells(values: Tensor) -> list[str]:
    return [_cell(value) for value in values.tolist()]


def _cell(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""
