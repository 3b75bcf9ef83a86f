"""The picture of ``run_strategy.py``: Dice against what the arms of a strategy vary."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from run_strategy_plan import Strategy
from run_strategy_table import MEAN, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", ":", "-.")
_MARKS = ("o", "s", "^", "D")
_ASIDE = 0.04  # of the width: points of one place on the axis stand beside each other
_LETTERS = 14  # of a place's name in one line


def draw_curve(strategy: Strategy, lines: Sequence[Line]) -> "Figure":
    """Mean Dice of each arm with its standard deviation over seeds: a color per network, a line per series.

    The reference of each network is a level with its spread. Places on the axis may be numbers or words.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    panel: Axes = figure.subplots()
    words = list(dict.fromkeys(arm.x for arm in strategy.arms.values() if isinstance(arm.x, str)))
    networks = list(dict.fromkeys(line.network for line in lines))
    series = list(dict.fromkeys(arm.series for arm in strategy.arms.values()))
    kinds = [(network, name) for network in networks for name in series]
    for place, (network, name) in enumerate(kinds):
        own = [line for line in lines if line.network == network and strategy.arms[line.arm].series == name]
        drawn = [(strategy.arms[line.arm].x, line.dice[MEAN]) for line in own if strategy.arms[line.arm].x is not None]
        if not drawn:
            continue
        shift = (place - (len(kinds) - 1) / 2) * _ASIDE
        panel.errorbar(
            [_position(x, words, shift, strategy.scale) for x, _ in drawn],
            [score.mean for _, score in drawn],
            yerr=[score.sd or 0.0 for _, score in drawn],
            color=f"C{networks.index(network)}",
            linestyle="" if words else _DASHES[series.index(name) % len(_DASHES)],
            marker=_MARKS[series.index(name) % len(_MARKS)],
            markersize=5,
            capsize=3,
            label=", ".join(part for part in (network, name) if part),
        )
    for line in lines:
        if line.arm == strategy.reference:
            _draw_level(panel, line, f"C{networks.index(line.network)}")
    if words:
        panel.set_xticks(range(len(words)), [textwrap.fill(word, _LETTERS) for word in words])
        panel.set_xlim(-0.5, len(words) - 0.5)
    else:
        panel.set_xscale(strategy.scale)
        ticks = sorted({float(arm.x) for arm in strategy.arms.values() if arm.x is not None})
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45)
        panel.minorticks_off()
    panel.set_xlabel(strategy.x_label)
    panel.set_ylabel("Dice × 100, mean of the classes")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    number = max((line.dice[MEAN].number for line in lines), default=0)
    panel.set_title(f"{strategy.title}\nmean ± standard deviation over {number} seed(s); research use only", size=10)
    return figure


def _draw_level(panel: "Axes", line: Line, color: str) -> None:
    score = line.dice[MEAN]
    panel.axhline(score.mean, color=color, linewidth=1, linestyle="--", label=f"{line.network}, {line.arm} only")
    if score.sd is not None:
        panel.axhspan(score.mean - score.sd, score.mean + score.sd, color=color, alpha=0.1, linewidth=0)


def _position(x: float | str | None, words: Sequence[str], shift: float, scale: str) -> float:
    """Place on the axis; on a logarithmic one a shift is a factor."""
    if isinstance(x, str):
        return words.index(x) + 3 * shift
    return float(x or 0) * (1 + shift) if scale == "log" else float(x or 0)
