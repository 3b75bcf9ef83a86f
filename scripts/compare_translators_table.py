"""The table of ``compare_translators.py`` as CSV (all scores) and as Markdown (those of the main protocol)."""

import csv
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

from compare_translators_runs import Line, Run, Score

SETTING_WIDTH = 60  # letters


class Column(NamedTuple):
    """A score by ``<protocol>_<score>``, its title, which way is better, and its digits behind the point."""

    key: str
    title: str
    better: str
    digits: int


_DIRECTIONS = {"psnr": "↑", "ssim": "↑", "mae": "↓", "absolute_error": "↓", "error_ratio": "↓", "ratio": "→ 1"}
_DIGITS = {"mae": 1, "psnr": 2}
_CAPITALS = ("mae", "psnr", "ssim")
_IN_HU = "synthrad"


def columns_of(run: Run) -> list[Column]:
    """Scores that are shown: in Hounsfield units where there are any, else on the network's grid; and steps along z."""
    there = run.metrics["protocols"]
    first = (_IN_HU,) if _IN_HU in there else ("paper", "masked", "region")
    columns = []
    for protocol in (name for name in (*first, "z_consistency") if name in there):
        for score in there[protocol]["scores"]:
            kind = "mae" if score.startswith("mae") else score
            words = score.split("_") if protocol == _IN_HU else [*protocol.split("_"), *score.split("_")]
            title = " ".join(word.upper() if word in _CAPITALS else word for word in words)
            columns.append(Column(f"{protocol}_{score}", title, _DIRECTIONS.get(kind, ""), _DIGITS.get(kind, 3)))
    return columns


def as_csv(lines: Sequence[Line]) -> str:
    """One row a line, of each score its value, standard deviation over cases and number of cases."""
    keys = list(dict.fromkeys(key for line in lines for key in line.scores))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "kind", *(name for key in keys for name in (key, f"{key}_sd", f"{key}_cases"))])
    for line in lines:
        scores = [line.scores.get(key, Score(None, None, 0)) for key in keys]
        numbers = [number for own in scores for number in (_plain(own.value), _plain(own.sd), own.cases)]
        table.writerow([line.name, line.kind, *numbers])
    return text.getvalue()


def as_markdown(runs: Sequence[Run], lines: Sequence[Line], columns: Sequence[Column]) -> str:
    """Title, table, what its columns mean, and what the runs are."""
    facts = runs[0].metrics
    where = [f"{name} {facts[name]}" for name in ("dataset", "section") if name in facts]
    header = ["", "", *(f"{column.title} {column.better}".strip() for column in columns)]
    rows = [[line.name, line.kind, *(cell(line.scores.get(c.key), c.digits) for c in columns)] for line in lines]
    differing = _settings(runs)
    return "\n".join(
        [
            f"# {facts['source']} to {facts['target']}: {', '.join(run.name for run in runs)}",
            "",
            f"{', '.join([*where, str(facts['n']['cases']) + ' cases'])}; mean ± standard deviation over cases. "
            "Research use only, not for diagnosis.",
            "",
            *_table(header, rows),
            "",
            *_legend(runs[0], columns),
            "",
            *_table(
                ["run", "commit", *differing],
                [
                    [run.name, str(run.metrics.get("commit")), *(_setting(run, name) for name in differing)]
                    for run in runs
                ],
            ),
            "",
        ]
    )


def cell(score: Score | None, digits: int) -> str:
    """Value and spread as a reader sees them; a dash where there is none, ∞ where all cases are exact."""
    if score is None:
        return "–"
    if score.value is None:
        return "∞" if score.cases == 0 else "–"
    return f"{score.value:.{digits}f}" + ("" if score.sd is None else f" ± {score.sd:.{digits}f}")


def _legend(run: Run, columns: Sequence[Column]) -> list[str]:
    """What the columns mean, below their protocols."""
    meanings, lines = run.meanings(), {}
    for column in columns:
        protocol = next(name for name in run.metrics["protocols"] if column.key.startswith(f"{name}_"))
        lines[protocol] = f"- {protocol}: {meanings[protocol]}"
        lines[column.key] = f"  - {column.title}: {meanings[column.key]}"
    return list(lines.values())


def _settings(runs: Sequence[Run]) -> list[str]:
    """Names of what the records say differently; of one run, all."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    differing = [name for name in names if len({json.dumps(run.settings.get(name)) for run in runs}) > 1]
    return names if len(runs) == 1 else differing


def _setting(run: Run, name: str) -> str:
    value = run.settings.get(name)
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= SETTING_WIDTH else text[: SETTING_WIDTH - 1] + "…"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns also stand below each other as plain text."""
    widths = [max(map(len, texts)) for texts in zip(header, *rows, strict=True)]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return [f"| {line} |" for line in (lines[0], " | ".join("-" * max(width, 3) for width in widths), *lines[1:])]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
