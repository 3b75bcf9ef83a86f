"""Batches for contrastive training, in which no two slices look alike because they are neighbors in one patient."""

import logging
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..seeds import Stream, derive_seed
from .sampler import EpochSampler

logger = logging.getLogger(__name__)


class PatientSlices(Protocol):
    """Slices that know where they come from, as ``SliceDataset`` does."""

    def __len__(self) -> int: ...

    @property
    def patients(self) -> list[str]:
        """Whom each slice shows."""

    @property
    def positions_mm(self) -> NDArray[np.float64]:
        """Where each slice lies along the normal of the slices."""


class PatientSampler(EpochSampler):
    """Indices of one epoch whose batches hold slices of different patients, or far apart ones of the same.

    Each batch (of all processes together) is drawn anew: patients in random order give one slice each. If the batch has
    more slices than there are patients, they go on giving in turn, as many as they have room for at
    ``min_distance_mm`` from each other; which of its slices a patient gives is uniform over all such choices. Only when
    nobody has room left, the rest is drawn from all slices without regard to distance, which is logged. Patients, not
    slices, come up equally often, where they have room for it.

    A batch is a function of (seed, its number). Processes and epochs are dealt with as in `EpochSampler`.

    Args:
        dataset: slices with patients and positions.
        batch_size: items a process takes in an iteration.
        epoch_length: iterations of an epoch; ``None``: about as many items as there are slices.
        seed: seed of the draws.
        min_distance_mm: distance of two slices of one patient.
    """

    def __init__(
        self,
        dataset: PatientSlices,
        batch_size: int,
        epoch_length: int | None = None,
        seed: int = 0,
        min_distance_mm: float = 10.0,
    ) -> None:
        super().__init__(dataset, batch_size, epoch_length, seed)
        self.batch = batch_size * self.num_replicas
        members: dict[str, list[int]] = {}
        for number, patient in enumerate(dataset.patients):
            members.setdefault(patient, []).append(number)
        positions = np.asarray(dataset.positions_mm, dtype=np.float64)
        self.stacks = [SpacedSlices(np.array(own), positions[own], min_distance_mm) for own in members.values()]
        self.room = np.array([stack.room for stack in self.stacks])
        if self.room.sum() < self.batch:
            logger.warning(
                "A batch of %d slices has room for %d that are of different patients or %g mm apart (%d patients): the "
                "rest are nearer neighbors. Use smaller batches or more patients.",
                *(self.batch, self.room.sum(), min_distance_mm, len(self.stacks)),
            )

    def __iter__(self) -> Iterator[int]:
        first = max(0, self.epoch - 1) * (self.total_size // self.batch)  # ignite counts epochs from 1
        for number in range(first, first + self.total_size // self.batch):
            yield from self._batch(number)[self.rank :: self.num_replicas].tolist()

    def _batch(self, number: int) -> NDArray[np.int64]:
        """Slices of batch ``number``, of all processes."""
        random = np.random.default_rng(derive_seed(Stream.ORDER, self.seed, number))
        counts = self._shares(random.permutation(len(self.stacks)))
        chosen = [stack.draw(int(count), random) for stack, count in zip(self.stacks, counts, strict=True) if count]
        batch = np.concatenate(chosen)
        if len(batch) < self.batch:  # no room: any others, and when there are none left, from the start again
            rest = random.permutation(np.setdiff1d(np.arange(self.dataset_length), batch))
            while len(batch) + len(rest) < self.batch:
                rest = np.concatenate([rest, random.permutation(self.dataset_length)])
            batch = np.concatenate([batch, rest[: self.batch - len(batch)]])
        return random.permutation(batch)

    def _shares(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many slices each patient gives: in turn, in this order, while they have room."""
        counts = np.zeros_like(self.room)
        while counts.sum() < self.batch and (counts < self.room).any():
            giving = order[(counts < self.room)[order]][: self.batch - counts.sum()]
            counts[giving] += 1
        return counts


class SpacedSlices:
    """Slices of one patient, from which sets are drawn whose members lie far enough from each other.

    Args:
        numbers: (n,) of the slices.
        positions_mm: (n,) where they lie.
        min_distance_mm: of two members of a set.

    Attributes:
        room: how many members a set can have.
    """

    def __init__(self, numbers: NDArray[np.int64], positions_mm: NDArray[np.float64], min_distance_mm: float) -> None:
        order = np.argsort(positions_mm, kind="stable")
        self.numbers, places = numbers[order], positions_mm[order]
        slack = 1e-6 * max(1.0, min_distance_mm)  # of the affines; 4 steps of 2.5 mm are 10 mm
        self.following = np.searchsorted(places, places + min_distance_mm - slack)  # (n,) next slice that is far enough
        self.following = np.maximum(self.following, np.arange(len(places)) + 1)
        # [m - 1][j]: how many sets of m members are there whose lowest is among the upper j slices, (n + 1,)
        self._sums: list[NDArray[np.float64]] = []
        ways = np.ones(len(places))  # (n,) sets whose lowest is k, of one member, then of two, ...
        while ways.any():
            self._sums.append(np.append(0.0, ways[::-1].cumsum()))
            ways = self._sums[-1][len(places) - self.following]
        self.room = len(self._sums)

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """A set of ``count`` slices, all such sets being equally likely; ``count`` is at most `room`."""
        chosen = []
        start, size = 0, len(self.numbers)
        for sums in reversed(self._sums[:count]):
            level = sums[size - start] * (1 - random.random())  # above 0
            place = size - int(np.searchsorted(sums, level))
            chosen.append(place)
            start = int(self.following[place])
        return self.numbers[chosen]
