"""Dice of a segmentation network, volume by volume; JSON, CSV and a picture."""

import csv
import io
import json
import logging
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor

from ..atomic import atomic_path, write_text
from ..metrics.volume_dice import volume_dice
from ..parallel import gather_objects, process_rank
from .commit import commit
from .provenance import split_mark
from .segmentation_figure import Example, draw_examples, example_slices

logger = logging.getLogger(__name__)

Restore = Callable[[dict[str, Any]], Mapping[str, Any]]

GRIDS = {
    "network_grid": "2 |A and B| / (|A| + |B|) in [0, 1] of each class over a whole volume of one frame of a patient, "
    "on the pixels the network sees; mean over the volumes that have the class, then over the classes",
    "native_grid": "the same on the grid of the files, after the inverse of all spatial transforms; what a crop cut "
    "off of the reference counts as missed",
}
_TITLE_WIDTH = 150  # letters


@dataclass(frozen=True)
class VolumeScores:
    """Dice of one volume: by grid, one number a class, NaN where the reference has none of it."""

    case: str
    patient: str
    dice: Mapping[str, Sequence[float]]


class SegmentationReport:
    """Scores the volumes of an evaluation one by one and writes what a reader needs to judge the network.

    - ``metrics.json``: Dice of each class on each of `GRIDS`, with its spread over the volumes and how many lack it;
    - ``metrics_cases.csv``: one row per volume;
    - ``report.png``: the worst, the median and the best volume with the outlines of reference and prediction.

    For an evaluator that takes batches apart. Items of the batch: ``case``, ``image`` and ``label`` (1, X, Y, Z), class
    indices, and optionally ``patient``; of the output: ``image`` in [0, 1], and ``pred``, class indices, both
    (1, X, Y, Z). With ``restore`` also ``label_native`` (1, X', Y', Z'). Memory grows with the number of volumes by a
    few slices each.

    Args:
        output_dir: folder for the three files.
        class_names: of index 0, 1, ...; the first is the background.
        record: what else to state: data set, seed, weights file, ...
        restore: leads ``pred`` of an item back to the grid of ``label_native``, taking nearest pixels, e.g. ``Invertd``
            with ``label`` as ``orig_keys``.
        axial: see :class:`SegmentationGrid`.
    """

    def __init__(
        self,
        output_dir: str | Path,
        class_names: Sequence[str],
        record: Mapping[str, Any],
        restore: Restore | None = None,
        axial: bool = False,
    ) -> None:
        if len(class_names) < 2:
            raise ValueError(f"SegmentationReport: class_names={list(class_names)} must name the background and more.")
        self.output_dir = Path(output_dir)
        self.class_names = tuple(class_names)
        self.record = dict(record)
        self.restore = restore
        self.axial = axial
        self._rows: list[VolumeScores] = []
        self._examples: list[Example] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator of whole volumes (ignite handler interface)."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def clear(self) -> None:
        """Forget the last evaluation."""
        self._rows, self._examples = [], []

    def collect(self, engine: Engine) -> None:
        """Score the volumes of a batch.

        Raises:
            ValueError: a volume cannot be scored; the message names the case.
        """
        if not isinstance(engine.state.output, list):
            raise ValueError("SegmentationReport: the evaluator must take batches apart; build it with decollate=True.")
        for item, output in zip(cast(list, engine.state.batch), engine.state.output, strict=True):
            try:
                self._add(item, output)
            except ValueError as error:
                raise ValueError(f"{item['case']}: {error}") from error

    def write(self) -> None:
        """Gather the scores of all processes and write the files on rank 0."""
        found = {row.case: row for row in gather_objects(self._rows)}  # samplers may repeat a case
        examples = {example.case: example for example in gather_objects(self._examples)}
        if process_rank() != 0:
            return
        rows = [found[case] for case in sorted(found)]
        metrics = self.metrics(rows)
        write_text(self.output_dir / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        self.write_cases(rows)
        headline = _headline(metrics["protocols"])
        self.draw(rows, examples, headline)
        logger.info("%s\nThe report is in %s.", headline, self.output_dir)

    def metrics(self, rows: Sequence[VolumeScores]) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        grids = list(dict.fromkeys(grid for row in rows for grid in row.dice))
        return {
            "report": "common.handlers.segmentation_report",
            **self.record,
            **split_mark(self.record),
            "commit": commit(),
            "n": {"volumes": len(rows), "patients": len({row.patient for row in rows})},
            "protocols": {
                grid: {"meaning": GRIDS[grid], **_summary([row.dice[grid] for row in rows], self.class_names[1:])}
                for grid in grids
            },
        }

    def write_cases(self, rows: Sequence[VolumeScores]) -> None:
        """Write ``metrics_cases.csv``; a class that a volume lacks stays empty."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        grids = list(rows[0].dice)
        names = [*self.class_names[1:], "mean"]
        table.writerow(["case", "patient", *(f"{grid}_dice_{name}" for grid in grids for name in names)])
        for row in rows:
            values = [value for grid in grids for value in (*row.dice[grid], _mean(row.dice[grid]))]
            table.writerow([row.case, row.patient, *("" if math.isnan(value) else f"{value:.4f}" for value in values)])
        write_text(self.output_dir / "metrics_cases.csv", text.getvalue())

    def draw(self, rows: Sequence[VolumeScores], examples: Mapping[str, Example], headline: str) -> None:
        """Write ``report.png``; volumes without any label are not shown."""
        ranked = sorted(rows, key=lambda row: _mean(row.dice["network_grid"]))
        ranked = [row for row in ranked if not math.isnan(_mean(row.dice["network_grid"]))]
        if not ranked:
            return
        shown: dict[str, tuple[str, Example]] = {}
        places = {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "best": ranked[-1]}
        for place, row in places.items():  # of one or two volumes each is shown once
            shown.setdefault(row.case, (self._beside(place, row), examples[row.case]))
        figure = draw_examples(list(shown.values()), self.class_names, self.axial)
        words = ", ".join(f"{name}: {value}" for name, value in self.record.items())
        title = [headline, *textwrap.wrap(words, _TITLE_WIDTH), "research use only, not for diagnosis"]
        figure.suptitle("\n".join(title), size=9)
        with atomic_path(self.output_dir / "report.png") as temporary:
            figure.savefig(temporary, dpi=110, format="png")

    def _add(self, item: Mapping[str, Any], output: Mapping[str, Tensor]) -> None:
        pred, label = _plain(output["pred"]), _plain(item["label"]).to(output["pred"].device)
        self._require_indices(pred, "prediction")
        self._require_indices(label, "label map")
        dice = {"network_grid": self._dice(pred, label)}
        if self.restore is not None:
            restored = _plain(self.restore({**item, "pred": MetaTensor(pred)})["pred"])
            self._require_indices(restored, "prediction on the grid of the files")
            dice["native_grid"] = self._dice(restored, _plain(item["label_native"]).to(restored.device))
        case = str(item["case"])
        self._rows.append(VolumeScores(case, str(item.get("patient", case)), dice))
        self._examples.append(example_slices(case, _plain(output["image"]), label, pred))

    def _dice(self, pred: Tensor, label: Tensor) -> list[float]:
        return volume_dice(pred[None], label[None], len(self.class_names))[0].tolist()

    def _require_indices(self, labels: Tensor, what: str) -> None:
        values = labels.float().unique()
        wrong = values[(values != values.round()) | (values < 0) | (values >= len(self.class_names))].tolist()
        if wrong:
            raise ValueError(
                f"the {what} holds {', '.join(f'{value:g}' for value in wrong[:5])}, but the classes are 0.."
                f"{len(self.class_names) - 1}; label maps must be resampled by their nearest pixels."
            )

    def _beside(self, place: str, row: VolumeScores) -> str:
        scores = zip(self.class_names[1:], row.dice["network_grid"], strict=True)
        return "\n".join([f"{place}:", row.case, "Dice", *(f"{name} {_percent(value)}" for name, value in scores)])


def _summary(dice: Sequence[Sequence[float]], names: Sequence[str]) -> dict[str, Any]:
    """Class means with their spread, and the mean of these."""
    table = np.array(dice, dtype=np.float64)  # (volumes, classes)
    classes = {}
    for name, column in zip(names, table.T, strict=True):
        known = column[~np.isnan(column)]
        classes[name] = {
            "dice": _number(known.mean() if len(known) else np.nan),
            "sd_over_volumes": _number(known.std(ddof=1) if len(known) > 1 else np.nan),
            "n_volumes": len(known),
            "n_absent": len(column) - len(known),
        }
    means = [entry["dice"] for entry in classes.values() if entry["dice"] is not None]
    per_volume = np.array([_mean(row) for row in dice])
    per_volume = per_volume[~np.isnan(per_volume)]
    return {
        "mean_dice": _number(np.mean(means) if means else np.nan),
        "sd_over_volumes": _number(per_volume.std(ddof=1) if len(per_volume) > 1 else np.nan),
        "classes": classes,
    }


def _headline(protocols: Mapping[str, Any]) -> str:
    """The class means of both grids, a line each, in percent."""
    lines = []
    for grid, scores in protocols.items():
        classes = ", ".join(f"{name} {_percent(entry['dice'])}" for name, entry in scores["classes"].items())
        lines.append(f"Dice in % on the {grid.replace('_', ' ')}: {_percent(scores['mean_dice'])} ({classes})")
    return "\n".join(lines)


def _mean(scores: Sequence[float]) -> float:
    """Mean of those that are defined."""
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known) if known else math.nan


def _percent(value: float | None) -> str:
    return "absent" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _number(value: float | np.floating) -> float | None:
    """What JSON can hold: ``None`` for NaN."""
    return float(value) if np.isfinite(value) else None


def _plain(image: Tensor) -> Tensor:
    return torch.as_tensor(image).detach().as_subclass(Tensor)
