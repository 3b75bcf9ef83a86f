"""How large the measurements of ``benchmark.py`` are, and what a row says that cannot be measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark_recipe import Workload


class Skipped(Exception):  # noqa: N818
    """This row cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Plan:
    """How large the measurements on one device are.

    Attributes:
        device: where. folder: for made-up data. seconds: spent on each comparison, at least.
        training: of the wait for data, memory, utilization. comparisons: of steps.
        sampling: network, and images sampled together. tokenized: slices of the tokenizer.
        looped: slices of the loops over blocks. steps: of the training loop. calls: per turn of the clock.
        evaluations: of the network, per image. volumes: of the smaller slice cache.
        translation: keys of the translation recipes that are not left as they are. volume: (X, Y, Z) to translate.
        depths: slices of the two volumes whose memory is compared. paper: measure the papers' networks, too.
        latent: keys of the latent translation recipes that are not left as they are. latent_volume: (X, Y, Z).
    """

    device: str
    folder: Path
    seconds: float
    training: Workload
    comparisons: tuple[Workload, ...]
    sampling: Workload
    tokenized: int = 512
    looped: int = 8
    steps: int = 100
    calls: int = 1
    evaluations: tuple[int, ...] = (26, 50)
    volumes: int = 32
    translation: Mapping[str, Any] = field(default_factory=dict)
    volume: tuple[int, int, int] = (240, 240, 155)
    depths: tuple[int, int] = (40, 155)
    paper: bool = False
    latent: Mapping[str, Any] = field(default_factory=dict)
    latent_volume: tuple[int, int, int] = (224, 224, 190)
