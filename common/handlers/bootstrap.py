"""A score of several groups of images with its spread: what one entry of a report is made of."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..seeds import Stream, derive_seed

ROUNDS = 100


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        name: in ``metrics.json``.
        meaning: one line for a reader: what it is, which way is better.
        groups: name of the group -> one row per image, pair or label map, ``(N, ...)``.
        value: rows -> a scalar.
        rounds: of the bootstrap; fewer where the value takes seconds.
        details: further entries of the score.
        details_of: further entries of a group, by its name.
    """

    name: str
    meaning: str
    groups: Mapping[str, Tensor]
    value: Callable[[Tensor], Tensor]
    rounds: int = ROUNDS
    details: Mapping[str, Any] = field(default_factory=dict)
    details_of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def entry(self, number: int) -> dict[str, Any]:
        """What ``metrics.json`` says of it: for each group the value, its bootstrap standard deviation and N.

        ``None`` stands for a value that is not defined. ``number`` tells the random numbers of one score from those of
        another.
        """
        result: dict[str, Any] = {"meaning": self.meaning, **self.details}
        for place, (group, rows) in enumerate(self.groups.items()):
            generator = torch.Generator().manual_seed(derive_seed(Stream.SCORE, 0, len(rows), number, place))
            draws = torch.randint(len(rows), (self.rounds, len(rows)), generator=generator)
            drawn = torch.stack([self.value(rows[draw]) for draw in draws])
            finite = drawn[drawn.isfinite()]
            enough = len(rows) > 1 and len(finite) > 1
            result[group] = {
                "value": defined(self.value(rows)),
                "bootstrap_sd": defined(finite.std()) if enough else None,
                "n": len(rows),
                **self.details_of.get(group, {}),
            }
        return result


def mean(rows: Tensor) -> Tensor:
    """The value of most scores."""
    return rows.mean()


def defined(value: Tensor | float) -> float | None:
    """What JSON can hold: ``None`` for NaN and infinity."""
    number = float(value)
    return number if math.isfinite(number) else None
