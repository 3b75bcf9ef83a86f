"""The picture of ``compare_translators.py``: a bar for each run, a line for each floor and limit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from compare_translators_runs import Line
from compare_translators_table import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PER_ROW = 3
_STYLES: dict[str, Literal["--", ":", "-."]] = {"floor": "--", "limit": ":", "reference": "-."}
_ROOM = 1.3  # length of an axis, in that of the longest bar with its spread


def draw_comparison(lines: Sequence[Line], columns: Sequence[Column], title: str) -> "Figure":
    """One panel a score: bars from 0 with the standard deviation over cases; lines of all that is no prediction.

    An axis has room for the bars and for lines that are not much further; the others are named below the panel.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    runs = [line for line in lines if line.kind == "prediction"]
    others = {f"{line.name} ({line.kind})": line for line in lines if line.kind != "prediction"}
    colors = {name: f"C{number + 1}" for number, name in enumerate(others)}
    wide = min(len(columns), _PER_ROW)
    rows = -(-len(columns) // wide)
    figure = Figure(figsize=(4.2 * wide + 1.2, rows * (1.4 + 0.4 * len(runs)) + 1.0), layout="constrained")
    panels = figure.subplots(rows, wide, squeeze=False).ravel()
    for number, (panel, column) in enumerate(zip(panels, columns, strict=False)):
        _draw_bars(panel, runs, column)
        _draw_lines(panel, others, colors, column)
        panel.set_title(f"{column.title} {column.better}", size=10)
        panel.set_yticks(range(len(runs)), [line.name for line in runs] if number % wide == 0 else [""] * len(runs))
        panel.invert_yaxis()
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    handles = [
        Line2D([], [], linestyle=_STYLES[line.kind], color=colors[name], label=name) for name, line in others.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(f"{title} (research use only)", size=10)
    return figure


def _draw_bars(panel: "Axes", runs: Sequence[Line], column: Column) -> None:
    ends = [0.0]
    for place, line in enumerate(runs):
        score = line.scores.get(column.key)
        if score is None or score.value is None:
            panel.text(0, place, " none", va="center", size=8)
            continue
        panel.barh(place, score.value, xerr=score.sd, height=0.6, color="lightsteelblue", capsize=3)
        panel.text(0, place, f" {score.value:.{column.digits}f}", va="center", size=8)
        ends.append(score.value + (score.sd or 0.0))
    panel.set_xlim(0, _ROOM * max(ends) or 1.0)
    panel.set_ylim(-0.5, len(runs) - 0.5)


def _draw_lines(panel: "Axes", others: dict[str, Line], colors: dict[str, str], column: Column) -> None:
    beyond = []
    for name, line in others.items():
        score = line.scores.get(column.key)
        if score is None or score.value is None:
            continue
        if 0 <= score.value <= panel.get_xlim()[1]:
            panel.axvline(score.value, linestyle=_STYLES[line.kind], color=colors[name], label=name)
        else:
            beyond.append(f"{line.name} {score.value:.{column.digits}f}")
    if beyond:
        panel.set_xlabel("beyond the axis: " + ", ".join(beyond), size=7)
