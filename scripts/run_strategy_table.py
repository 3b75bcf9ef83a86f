"""Results of ``run_strategy.py``: one line per run, and means with their spread over seeds."""

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from run_strategy_plan import EQUAL, Run, Strategy

MEAN, NATIVE = "mean", "mean, grid of the files"


class Spread(NamedTuple):
    """Mean and standard deviation (of a sample; None for one value) over ``number`` seeds."""

    mean: float
    sd: float | None
    number: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}{_sd(self)}"


@dataclass(frozen=True)
class Result:
    """Dice x 100 of a finished run: by class, their mean, and their mean on the grid of the files, if that is known."""

    run: Run
    dice: Mapping[str, float]


@dataclass(frozen=True)
class Line:
    """A network and arm: its scores by class, and the difference of the mean to the arm it is held against."""

    network: str
    arm: str
    dice: Mapping[str, Spread]
    gain: Spread | None


def read_result(run: Run) -> Result:
    """What evaluate.json wrote.

    Raises:
        SystemExit: the file is not such a report.
    """
    try:
        return Result(run, _dice(json.loads(run.result.read_text(encoding="utf-8"))))
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{run.result} is no report of a segmentation ({error!r}); evaluate again.") from error


def _dice(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Of the content of ``metrics.json``; classes that no test patient has are left out."""
    grids = metrics["protocols"]
    dice = {name: entry["dice"] for name, entry in grids["network_grid"]["classes"].items()}
    dice[MEAN] = grids["network_grid"]["mean_dice"]
    if dice[MEAN] is None:
        raise ValueError("no class has a Dice")
    if "native_grid" in grids:
        dice[NATIVE] = grids["native_grid"]["mean_dice"]
    return {name: 100 * value for name, value in dice.items() if value is not None}


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (n - 1)."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def lines_of(strategy: Strategy, results: Sequence[Result]) -> list[Line]:
    """One line per network and arm that has results, in the order of the plan.

    The gain of an arm is taken seed by seed, so that what both arms owe to the seed (which real slices were drawn)
    cancels.
    """
    table = {(result.run.network, result.run.arm, result.run.seed): result.dice for result in results}
    lines = []
    for network in strategy.networks:
        for arm in strategy.arms.values():
            own = {key[2]: dice for key, dice in table.items() if key[:2] == (network, arm.name)}
            if not own:
                continue
            classes = list(next(iter(own.values())))
            other = {key[2]: dice for key, dice in table.items() if key[:2] == (network, arm.against)}
            gains = [dice[MEAN] - other[seed][MEAN] for seed, dice in own.items() if seed in other]
            dice = {name: spread([scores[name] for scores in own.values()]) for name in classes}
            gain = spread(gains) if gains and arm.against != arm.name else None
            lines.append(Line(network, arm.name, dice, gain))
    return lines


def results_csv(strategy: Strategy, results: Sequence[Result]) -> str:
    """One row per run."""
    options = list(dict.fromkeys(option for arm in strategy.arms.values() for option in arm.options))
    rows = []
    for result in results:
        arm = strategy.arms[result.run.arm]
        rows.append(
            {
                "strategy": strategy.name,
                "network": result.run.network,
                "arm": arm.name,
                "series": arm.series,
                "x": arm.x,
                "seed": result.run.seed,
                **{option: arm.options.get(option) for option in options},
                "pretrained": arm.pretrain is not None,
                **{f"dice_{name}": f"{value:.4f}" for name, value in result.dice.items()},
                "folder": result.run.folder,
            }
        )
    return _csv(rows)


def summary_csv(strategy: Strategy, lines: Sequence[Line]) -> str:
    """One row per network and arm: means and standard deviations over seeds."""
    rows = []
    for line in lines:
        arm = strategy.arms[line.arm]
        row: dict[str, Any] = {"network": line.network, "arm": arm.name, "series": arm.series, "x": arm.x}
        row["seeds"] = line.dice[MEAN].number
        scores = {**{f"dice_{name}": score for name, score in line.dice.items()}, "gain": line.gain}
        for name, score in scores.items():
            row[name] = "" if score is None else f"{score.mean:.4f}"
            row[f"{name}_sd"] = "" if score is None or score.sd is None else f"{score.sd:.4f}"
        row["gain_against"] = arm.against if line.gain is not None else ""
        rows.append(row)
    return _csv(rows)


def summary_markdown(strategy: Strategy, lines: Sequence[Line], settings: Mapping[str, Any]) -> str:
    """Title, what all runs had in common, and the table."""
    classes = list(dict.fromkeys(name for line in lines for name in line.dice))
    header = ["network", "arm", "training data", "seeds", *classes, "gain"]
    rows = [header, ["---"] * len(header)]
    for line in lines:
        arm = strategy.arms[line.arm]
        gain = "–" if line.gain is None else f"{line.gain.mean:+.2f}{_sd(line.gain)} over {arm.against}"
        cells = [str(line.dice[name]) if name in line.dice else "–" for name in classes]
        rows.append([line.network, arm.name, _words(arm.options), str(line.dice[MEAN].number), *cells, gain])
    common = ", ".join(f"{name} {settings[name]}" for name in (*EQUAL, "dataset") if name in settings)
    return "\n".join(
        [
            f"# {strategy.title}",
            "",
            "Dice × 100 of the test patients, per volume; mean ± standard deviation over seeds. Gain: difference of "
            f"the mean to the arm that is named, seed by seed. Equal for all runs: {common}. Research use only, not "
            "for diagnosis.",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
        ]
    )


def _sd(score: Spread) -> str:
    return "" if score.sd is None else f" ± {score.sd:.2f}"


def _words(options: Mapping[str, Any]) -> str:
    """Options of an arm in few words."""
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(text, names, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
