"""Batches without look-alikes: one slice per patient, or far apart ones; the same on any number of processes."""

import itertools
import logging
from collections import Counter

import numpy as np
import pytest

from common.engines import sampler as base
from common.engines.patient_sampler import PatientSampler, SpacedSlices


class Slices:
    """``depths[p]`` slices of patient p, ``step_mm`` apart."""

    def __init__(self, depths: list[int], step_mm: float = 4.0) -> None:
        self.patients = [f"p{patient}" for patient, depth in enumerate(depths) for _ in range(depth)]
        self.positions_mm = np.concatenate([50 * patient + step_mm * np.arange(n) for patient, n in enumerate(depths)])

    def __len__(self) -> int:
        return len(self.patients)


def epoch(slices: Slices, batch_size: int, length: int = 20, number: int = 1, seed: int = 0) -> np.ndarray:
    """(length, batch_size) indices."""
    sampler = PatientSampler(slices, batch_size, length, seed)
    sampler.set_epoch(number)
    return np.array(list(sampler)).reshape(length, batch_size)


def smallest_distance(slices: Slices, batch: np.ndarray) -> float:
    """Of two slices of one patient, by comparing all pairs."""
    pairs = [
        abs(slices.positions_mm[one] - slices.positions_mm[two])
        for one, two in itertools.combinations(batch.tolist(), 2)
        if slices.patients[one] == slices.patients[two]
    ]
    return min(pairs, default=np.inf)


def test_with_enough_patients_no_batch_holds_one_twice() -> None:
    slices = Slices([10, 3, 7, 1, 12, 5])
    for batch in epoch(slices, 6, 50):
        assert len({slices.patients[index] for index in batch}) == 6
    drawn = Counter(slices.patients[index] for index in epoch(slices, 3, 400).ravel())
    assert max(abs(count - 200) for count in drawn.values()) < 5 * 200**0.5  # patients, not slices, equally often
    assert len(set(epoch(slices, 6, 400).ravel().tolist())) == len(slices)  # and every slice


def test_with_fewer_patients_their_slices_are_far_apart(caplog: pytest.LogCaptureFixture) -> None:
    """Slices 4 mm apart: every third is far enough. 12, 6 and 20 of them have room for 4, 2 and 7."""
    slices = Slices([12, 6, 20])
    for batch in epoch(slices, 8, 50):
        assert smallest_distance(slices, batch) >= 10
        counts = Counter(slices.patients[index] for index in batch)
        assert counts == {"p0": 3, "p1": 2, "p2": 3}
    for batch in epoch(slices, 13, 50):
        assert smallest_distance(slices, batch) >= 10
    assert not caplog.records


def test_no_room_is_logged_and_only_the_rest_is_near(caplog: pytest.LogCaptureFixture) -> None:
    slices = Slices([12, 6])
    with caplog.at_level(logging.WARNING):
        batches = epoch(slices, 9, 50)
    assert [record.message for record in caplog.records] == [
        "A batch of 9 slices has room for 6 that are of different patients or 10 mm apart (2 patients): the rest are "
        "nearer neighbors. Use smaller batches or more patients."
    ]
    for batch in batches:
        assert len(set(batch.tolist())) == 9
        assert any(smallest_distance(slices, np.array(six)) >= 10 for six in itertools.combinations(batch, 6))


def test_data_smaller_than_a_batch_is_repeated_evenly() -> None:
    (batch,) = epoch(Slices([3, 2]), 12, 1)
    counts = Counter(batch.tolist())
    assert len(counts) == 5
    assert max(counts.values()) - min(counts.values()) <= 1


def test_an_epoch_is_the_same_whatever_came_before() -> None:
    slices = Slices([10, 3, 7, 1, 12, 5])
    sampler = PatientSampler(slices, 4, 5)
    for number in (1, 3, 2, 3):
        sampler.set_epoch(number)
        assert list(sampler) == epoch(slices, 4, 5, number).ravel().tolist()
    assert epoch(slices, 4, 5, 1).tolist() != epoch(slices, 4, 5, 2).tolist()
    assert epoch(slices, 4, 5).tolist() != epoch(slices, 4, 5, seed=1).tolist()
    # batches are numbered through: two epochs of 5 are one of 10
    both = np.concatenate([epoch(slices, 4, 5, 1), epoch(slices, 4, 5, 2)])
    assert both.tolist() == epoch(slices, 4, 10).tolist()


def test_about_one_pass_without_epoch_length() -> None:
    sampler = PatientSampler(Slices([10, 9, 4]), 3)
    assert len(sampler) == len(list(sampler)) == 21


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_see_the_batch_of_one_process(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = Slices([10, 3, 7, 1, 12, 5])
    single = epoch(slices, 2 * processes, 4)
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(base, "process_count", lambda: processes)
        monkeypatch.setattr(base, "process_rank", lambda rank=rank: rank)
        parts.append(epoch(slices, 2, 4))
    for together, step in zip(single, range(4), strict=True):
        assert sorted(together.tolist()) == sorted(index for part in parts for index in part[step].tolist())


POSITIONS = np.array([3.0, 0.0, 21.0, 12.0, 9.9, 30.0, 12.0, 13.1, 40.1])  # unordered, one place twice


def valid_sets(count: int) -> set[tuple[int, ...]]:
    """By trying all subsets."""
    return {
        chosen
        for chosen in itertools.combinations(range(len(POSITIONS)), count)
        if all(abs(POSITIONS[one] - POSITIONS[two]) >= 10 for one, two in itertools.combinations(chosen, 2))
    }


def test_room_is_the_size_of_the_largest_set() -> None:
    room = SpacedSlices(np.arange(9), POSITIONS, 10.0).room
    assert valid_sets(room)
    assert not valid_sets(room + 1)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_all_sets_of_spaced_slices_are_equally_likely(count: int) -> None:
    stack, random = SpacedSlices(np.arange(9), POSITIONS, 10.0), np.random.default_rng(0)
    expected = valid_sets(count)
    number = 60 * len(expected)
    drawn = Counter(tuple(sorted(stack.draw(count, random).tolist())) for _ in range(number))
    assert drawn.keys() == expected
    assert max(abs(seen - 60) for seen in drawn.values()) < 5 * 60**0.5


def test_steps_that_add_up_to_the_distance_are_far_enough() -> None:
    """4 x 2.5 mm, from an affine in float32."""
    positions = (np.float32(0.1) + np.arange(9, dtype=np.float32) * np.float32(2.5)).astype(np.float64)
    assert SpacedSlices(np.arange(9), positions, 10.0).room == 3


def test_empty_data_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        PatientSampler(Slices([0]), 2)
