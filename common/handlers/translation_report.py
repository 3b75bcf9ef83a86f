"""Scores of a translator, each beside the same score of its floors; JSON, CSV and a picture."""

import csv
import io
import json
import logging
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor

from ..atomic import atomic_path, write_text
from ..inferers.slicewise import BACKGROUND, FOREGROUND_LEVEL
from ..metrics.image_quality import unit_range
from ..parallel import gather_objects, process_rank
from ..pictures import evenly_spaced
from ..transforms.intensity import CT_WINDOW
from ..transforms.slicing import slice_block
from .commit import commit
from .translation_figure import Example, draw_examples, example_slice
from .translation_references import PairedSlices, Reconstruct, TrainingFloors, fit_floors, through_autoencoder
from .translation_scores import (
    MethodScores,
    native_scores,
    region_scores,
    score_names,
    slice_scores,
    step_scores,
    summarize,
)

logger = logging.getLogger(__name__)

Restore = Callable[[dict[str, Any]], Mapping[str, Any]]

METHODS = {
    "prediction": "the first sample of every slice",
    "mean_of_samples": "mean of all samples of every slice",
    "mean_target": "floor: mean target intensity of the training foreground, everywhere in the mask",
    "source_copy": "floor: the source taken for the prediction",
    "pointwise": "floor: mean target intensity of each source intensity in the training slices",
    "target": "reference: the target itself",
    "reconstruction": "limit: the target through the autoencoder",
    "resampled_target": "limit: the target, led to the network's grid and intensity window and back to the files' grid",
}
_ERROR_WHITE, _SD_WHITE = 0.5, 0.25  # of the displayed range of grey
_TITLE_WIDTH = 150  # letters
_MAIN_SCORES = (
    ("paper", "psnr", "PSNR in dB (2-D slices, network's grid)", 2),
    ("paper", "ssim", "SSIM (the same)", 3),
    ("region", "absolute_error", "mean absolute error in the labeled region, of the range [0, 1]", 3),
    ("synthrad", "mae", "mean absolute error in HU (SynthRAD, grid of the files)", 1),
)


class TranslationReport:
    """Scores the volumes of an evaluation one by one and writes what a reader needs to judge the translator.

    - ``metrics.json``: every score of `METHODS` under the protocol that defines it, with its spread over the cases;
    - ``metrics_cases.csv``: one row per case and method;
    - ``report.png``: source, prediction, target, error, pointwise map, reconstruction and deviation of the samples of a
      few cases, each at the slice with the largest part of the labeled region, or in the middle of the block.

    For an evaluator that takes batches apart. Items of the batch: ``case``, ``source`` (1, X, Y, Z) in [-1, 1] in RAS,
    ``mask``, optionally ``region`` (a label map); of the output: ``pred`` (K, X, Y, Z), K samples, and the target as
    ``label``. With ``restore`` also ``target_native`` in HU and ``mask_native``, both (1, X', Y', Z').

    Predictions are background outside of the mask, as in the files that inference writes. Only the slices of the block
    that training takes are scored, but for the protocol ``synthrad``. Memory does not grow
    with the number of cases beyond their scores.

    Args:
        output_dir: folder for the three files.
        cases: all items to be evaluated, with their names as ``case``; a few of them are drawn.
        training: training slices, which the floors are fitted on.
        source, target: modalities.
        slices_per_case: size of the block, see ``slice_block``; ``None``: all slices.
        record: what else to state: data set, seed, weights file, ...
        restore: for CT as target: leads ``pred`` (M, X, Y, Z) of an item back to HU on the grid of ``target_native``.
        reconstruct: for latent translators: slices (B, 1, X, Y) in [-1, 1] on the device of ``pred`` through the
            autoencoder and back, which limits what such a translator can reach.
        ct_window: HU that are -1 and 1, if the source or the target is CT.
        number: how many cases to draw, spread evenly.
    """

    def __init__(
        self,
        output_dir: str | Path,
        cases: Sequence[Mapping[str, Any]],
        training: PairedSlices,
        source: str,
        target: str,
        slices_per_case: int | None,
        record: Mapping[str, Any],
        restore: Restore | None = None,
        reconstruct: Reconstruct | None = None,
        ct_window: Sequence[float] = CT_WINDOW,
        number: int = 4,
    ) -> None:
        names = sorted(str(item["case"]) for item in cases)
        if not names or number < 1:
            raise ValueError(f"TranslationReport: {len(names)} cases, number={number}; both must be at least 1.")
        self.output_dir = Path(output_dir)
        self.drawn = {names[position] for position in evenly_spaced(len(names), number)}
        self.training = training
        self.source, self.target = source, target
        self.slices_per_case = slices_per_case
        self.record = dict(record)
        self.restore, self.reconstruct = restore, reconstruct
        self.ct_window = ct_window
        self._floors: TrainingFloors | None = None
        self._rows: list[MethodScores] = []
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
            raise ValueError("TranslationReport: the evaluator must take batches apart; build it with decollate=True.")
        for item, output in zip(cast(list, engine.state.batch), engine.state.output, strict=True):
            case = str(item["case"])
            try:
                self._add(case, item, output)
            except ValueError as error:
                raise ValueError(f"{case}: {error}") from error

    def write(self) -> None:
        """Gather the scores of all processes and write the files on rank 0."""
        rows = {(row.case, row.method): row for row in gather_objects(self._rows)}  # samplers may repeat a case
        examples = {example.case: example for example in gather_objects(self._examples)}
        if process_rank() != 0:
            return
        ordered = [rows[key] for key in sorted(rows, key=lambda key: (key[0], list(METHODS).index(key[1])))]
        metrics = self.metrics(ordered)
        write_text(self.output_dir / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        self.write_cases(ordered)
        headline = _headline(metrics["protocols"])
        self.draw([examples[case] for case in sorted(examples)], headline)
        logger.info("%s -> %s: %s\nThe report is in %s.", self.source, self.target, headline, self.output_dir)

    def metrics(self, rows: Sequence[MethodScores]) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {
            "report": "common.handlers.translation_report",
            "source": self.source,
            "target": self.target,
            **self.record,
            "commit": commit(),
            "n": {"cases": len({row.case for row in rows}), "training_slices": len(self.training)},
            "methods": {name: METHODS[name] for name in dict.fromkeys(row.method for row in rows)},
            "protocols": summarize(rows),
        }

    def write_cases(self, rows: Sequence[MethodScores]) -> None:
        """Write ``metrics_cases.csv``; what is not defined for a row stays empty."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        names = score_names(rows)
        table.writerow(["case", "method", *names])
        for row in rows:
            values = row.summary()
            table.writerow([row.case, row.method, *(_cell(values.get(name, math.nan)) for name in names)])
        write_text(self.output_dir / "metrics_cases.csv", text.getvalue())

    def draw(self, examples: Sequence[Example], headline: str) -> None:
        """Write ``report.png``."""
        columns = {
            "source": f"source\n{self.source}",
            "prediction": f"prediction (synthetic)\n{self.target}",
            "target": f"target\n{self.target}",
            "error": "absolute error\nof the prediction",
            "pointwise": "pointwise map\n(floor)",
        }
        if self.reconstruct is not None:
            columns["reconstruction"] = "through the autoencoder\n(limit)"
        if any(example.region is not None and example.region.any() for example in examples):
            columns["error"] += "\n(outlined: labeled region)"
        if any("deviation" in example.images for example in examples):
            columns["deviation"] = "standard deviation\nof the samples"
        heat = {"error": _ERROR_WHITE, "deviation": _SD_WHITE}
        modalities = {name: self.source if name == "source" else self.target for name in columns}
        figure = draw_examples(examples, columns, heat, modalities, self.ct_window)
        title = [headline, *textwrap.wrap(_in_words(self.record), _TITLE_WIDTH), "research use only, not for diagnosis"]
        figure.suptitle("\n".join(title), size=9)
        with atomic_path(self.output_dir / "report.png") as temporary:
            figure.savefig(temporary, dpi=110, format="png")

    def _add(self, case: str, item: Mapping[str, Any], output: Mapping[str, Tensor]) -> None:
        samples = _plain(output["pred"])  # (K, X, Y, Z), the others (1, X, Y, Z)
        source, target, mask = (
            _plain(image).to(samples.device) for image in (item["source"], output["label"], item["mask"])
        )
        if not samples.isfinite().all():
            raise ValueError("the prediction holds values that are NaN or infinite; check the weights.")
        outside = (mask <= 0) & (source <= FOREGROUND_LEVEL)  # the rim of a resampled source counts as inside
        written = _predictions(samples)  # inference clears the background on the grid of the files
        samples = torch.where(outside, torch.full_like(samples, BACKGROUND), samples)
        methods = _predictions(samples)
        methods |= {"source_copy": source, **self._training_floors().predict(source, ~outside)}
        if self.reconstruct is not None:
            methods["reconstruction"] = through_autoencoder(target, ~outside, self.reconstruct)
        first, count = slice_block(item["mask"], self.slices_per_case)
        block = {name: unit_range(volume[..., first : first + count]) for name, volume in methods.items()}
        truth, inside = unit_range(target[..., first : first + count]), mask[..., first : first + count]
        region = None
        if "region" in item:
            region = _plain(item["region"]).to(samples.device)[..., first : first + count] > 0
        native: Mapping[str, Mapping[str, float]] = {}
        if self.restore is not None:
            native = _native_scores({**methods, **written, "resampled_target": target}, item, self.restore)
            self._rows.append(MethodScores(case, "resampled_target", {}, native["resampled_target"]))
        for method, volume in block.items():
            values = {**step_scores(volume, truth, inside), **native.get(method, {})}
            if region is not None:
                values |= region_scores(volume, truth, region)
            self._rows.append(MethodScores(case, method, slice_scores(volume, truth, inside), values))
        if region is not None and region.any():
            self._rows.append(MethodScores(case, "target", {}, {"region_mean_intensity": float(truth[region].mean())}))
        block["target"] = truth
        if case in self.drawn:
            deviation = samples[..., first : first + count].std(0, keepdim=True) / 2 if len(samples) > 1 else None
            self._examples.append(example_slice(case, item["source"], first, block, region, deviation))

    def _training_floors(self) -> TrainingFloors:
        if self._floors is None:
            self._floors = fit_floors(self.training)
        return self._floors


def _predictions(samples: Tensor) -> dict[str, Tensor]:
    """(K, X, Y, Z) -> what is scored of the samples, (1, X, Y, Z) each."""
    first = {"prediction": samples[:1]}
    return first if len(samples) == 1 else {**first, "mean_of_samples": samples.mean(0, keepdim=True)}


def _headline(protocols: Mapping[str, Any]) -> str:
    """The main numbers of all methods, a line each."""
    lines = []
    for protocol, score, title, digits in _MAIN_SCORES:
        values = protocols.get(protocol, {}).get("scores", {}).get(score, {})
        texts = [
            f"{method.replace('_', ' ')} {values[method]['value']:.{digits}f}"
            for method in METHODS
            if method in values and values[method]["value"] is not None
        ]
        if texts:
            lines.append(f"{title}: {', '.join(texts)}")
    return "\n".join(lines)


def _in_words(record: Mapping[str, Any]) -> str:
    """A record in one line, dictionaries in it as brackets."""
    return ", ".join(
        f"{name} ({_in_words(value)})" if isinstance(value, Mapping) else f"{name}: {value}"
        for name, value in record.items()
    )


def _native_scores(
    methods: Mapping[str, Tensor], item: Mapping[str, Any], restore: Restore
) -> dict[str, dict[str, float]]:
    """Scores of volumes (1, X, Y, Z) in [-1, 1] that ``restore`` leads back to the grid of the files, by method."""
    stacked = MetaTensor(torch.cat(list(methods.values())))  # (M, X, Y, Z); Invertd asks for this type
    restored = _plain(restore({**item, "pred": stacked})["pred"])  # (M, X', Y', Z')
    target, mask = (_plain(item[key]).to(restored.device) for key in ("target_native", "mask_native"))
    volumes = restored.split(1)
    return {name: native_scores(volume, target, mask) for name, volume in zip(methods, volumes, strict=True)}


def _plain(image: Tensor) -> Tensor:
    return image.detach().as_subclass(Tensor)


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
