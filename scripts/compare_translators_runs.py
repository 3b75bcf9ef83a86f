"""Evaluations of translators for ``compare_translators.py``: read, held against each other, laid out in lines."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

REPORT = "common.handlers.translation_report"
PER_RUN = "reconstruction"  # the limit of a run's own autoencoder

_ONE_TABLE = ("source", "target", "dataset", "section", "held_out", "n")
_NOT_SETTINGS = (*_ONE_TABLE, "report", "commit", "methods", "protocols")
_GENERIC = ("evaluation", "output")
_TOLERANCE = 1e-3  # relative, and absolute; what devices and thread counts may change
_EXACT_DB = 100.0  # PSNR from which only rounding is left to compare


class Score(NamedTuple):
    """A mean, ``None`` where it is not finite, its standard deviation over cases, and their number."""

    value: float | None
    sd: float | None
    cases: int


@dataclass(frozen=True)
class Run:
    """One evaluation: what ``metrics.json`` holds, and the cases of ``metrics_cases.csv``."""

    name: str
    metrics: Mapping[str, Any]
    cases: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What the record says besides the data that were scored; entries of a dictionary one by one."""
        flat: dict[str, Any] = {}
        for name, value in self.metrics.items():
            if name not in _NOT_SETTINGS:
                parts = value if isinstance(value, dict) else {"": value}
                flat |= {f"{name} {part}".strip(): content for part, content in parts.items()}
        return flat

    def meanings(self) -> dict[str, str]:
        """How each protocol, and each score as ``<protocol>_<score>``, is defined."""
        texts = {}
        for protocol, content in self.metrics["protocols"].items():
            texts[protocol] = content["meaning"]
            texts |= {f"{protocol}_{name}": score["meaning"] for name, score in content["scores"].items()}
        return texts

    def scores(self, method: str) -> dict[str, Score]:
        """All scores of a method by ``<protocol>_<score>``."""
        return {
            f"{protocol}_{name}": Score(own["value"], own["sd_over_cases"], own["n_cases"])
            for protocol, content in self.metrics["protocols"].items()
            for name, score in content["scores"].items()
            if (own := score.get(method)) is not None
        }


@dataclass(frozen=True)
class Line:
    """A row of the table. ``kind``: ``prediction``, ``floor``, ``limit`` or ``reference``."""

    name: str
    kind: str
    scores: Mapping[str, Score]


def run_names(folders: Sequence[str]) -> dict[str, Path]:
    """Folders, each ``path`` or ``name=path``, by name: without one, the last part of the path that tells anything.

    Raises:
        ValueError: there is none, or two have one name.
    """
    found: dict[str, Path] = {}
    for text in folders:
        name, _, path = text.rpartition("=")
        telling = [part for part in Path(path).parts if part not in _GENERIC]
        name = name or (telling[-1] if telling else path)
        if name in found:
            raise ValueError(f"two runs are called {name!r}: {found[name]} and {path}. Give names: --runs a=...,b=...")
        found[name] = Path(path)
    if not found:
        raise ValueError(
            "no evaluation is given; name the folders, e.g. --runs dit=out/evaluation,gan=other/evaluation"
        )
    return found


def read_run(name: str, folder: Path) -> Run:
    """Read an evaluation.

    Raises:
        FileNotFoundError: a file is missing. ValueError: it is no evaluation of a translator.
    """
    paths = [folder / file for file in ("metrics.json", "metrics_cases.csv")]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing; evaluate.json writes it to the folder `evaluation` of its output_dir."
            )
    try:
        metrics = json.loads(paths[0].read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{paths[0]} is not JSON ({error}); evaluate again.") from error
    if not isinstance(metrics, dict) or metrics.get("report") != REPORT:
        raise ValueError(f"{paths[0]} is not the report of a translator; only those can be compared here.")
    with paths[1].open(encoding="utf-8", newline="") as file:
        cases = sorted({row["case"] for row in csv.DictReader(file) if row["method"] == "prediction"})
    return Run(name, metrics, tuple(cases))


def require_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that scored different data, or the same data by different rules.

    Raises:
        ValueError: with one line for everything that differs.
    """
    complaints = []
    for field in _ONE_TABLE:
        complaints += _difference(field, {run.name: run.metrics.get(field) for run in runs})
    complaints += _difference("cases", {run.name: ", ".join(run.cases) for run in runs})
    for name in dict.fromkeys(name for run in runs for name in run.meanings()):
        texts = {f"{run.name}, commit {run.metrics.get('commit')}": run.meanings().get(name) for run in runs}
        complaints += _difference(f"protocol {name}", texts)
    if not complaints:
        for method in _references(runs):
            complaints += [] if method == PER_RUN else _disagreement(method, runs)
    if complaints:
        raise ValueError("These evaluations do not belong in one table:\n" + "\n".join(f"- {c}" for c in complaints))


def lines_of(runs: Sequence[Run]) -> list[Line]:
    """Predictions of all runs, then what all of them are held against, once; runs are comparable."""
    lines = []
    for run in runs:
        lines.append(Line(run.name, "prediction", run.scores("prediction")))
        if "mean_of_samples" in run.metrics["methods"]:
            lines.append(Line(f"{run.name}, mean of samples", "prediction", run.scores("mean_of_samples")))
    references = _references(runs)
    for kind in ("floor", "limit", "reference"):
        for method in (name for name, text in references.items() if text == kind):
            having = [run for run in runs if method in run.metrics["methods"]]
            title = method.replace("_", " ")
            if method == PER_RUN and _disagreement(method, runs):
                lines += [Line(f"{title}, {run.name}", kind, run.scores(method)) for run in having]
            else:
                lines.append(Line(title, kind, having[0].scores(method)))
    return lines


def _references(runs: Iterable[Run]) -> dict[str, str]:
    """Kind of every method that is no prediction; the text of a method in ``metrics.json`` begins with it."""
    kinds = {name: text.partition(":") for run in runs for name, text in run.metrics["methods"].items()}
    return {name: kind for name, (kind, colon, _) in kinds.items() if colon}


def _difference(what: str, values: Mapping[str, Any]) -> list[str]:
    """One complaint if the values of the runs are not all the same."""
    texts = {name: json.dumps(value, sort_keys=True) for name, value in values.items()}
    if len(set(texts.values())) == 1:
        return []
    return [f"{what} differs: " + "; ".join(f"{text} ({name})" for name, text in texts.items())]


def _disagreement(method: str, runs: Sequence[Run]) -> list[str]:
    """One complaint if a method that has nothing to do with the translator has different scores in two runs."""
    first, *others = (run for run in runs if method in run.metrics["methods"])
    for other in others:
        mine, its = first.scores(method), other.scores(method)
        for name in sorted(mine.keys() | its.keys()):
            one, two = (scores[name].value if name in scores else None for scores in (mine, its))
            if not _agree(one, two, exact=_EXACT_DB if name.endswith("psnr") else math.inf):
                return [
                    f"{method} should not depend on the translator, but its {name} is {one} ({first.name}) and "
                    f"{two} ({other.name}): training slices, grid, intensity window or foreground rule differ"
                ]
    return []


def _agree(one: float | None, other: float | None, exact: float) -> bool:
    """Whether two values are the same; from ``exact`` on, and infinite ones, all are."""
    first, second = (math.inf if value is None else value for value in (one, other))
    return min(first, second) >= exact or math.isclose(first, second, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
