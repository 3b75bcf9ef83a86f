"""Order of the training data: a function of seed and epoch, evenly used, split over processes without overlap."""

from collections import Counter

import pytest

from common.engines import sampler as module
from common.engines.sampler import EpochSampler


def epochs(number: int, **options: int | None) -> list[list[int]]:
    sampler = EpochSampler(range(10), **options)  # type: ignore[arg-type]
    result = []
    for epoch in range(1, number + 1):
        sampler.set_epoch(epoch)
        result.append(list(sampler))
    return result


def test_every_item_comes_up_equally_often() -> None:
    """Epochs of 3 batches of 4 over 10 items: 5 epochs are 60 draws, 6 of each."""
    drawn = Counter(index for epoch in epochs(5, batch_size=4, epoch_length=3) for index in epoch)
    assert drawn == dict.fromkeys(range(10), 6)


def test_an_epoch_is_the_same_whatever_came_before() -> None:
    sampler = EpochSampler(range(10), batch_size=4, epoch_length=3)
    sampler.set_epoch(4)
    assert list(sampler) == epochs(4, batch_size=4, epoch_length=3)[3]
    assert epochs(1, batch_size=4, seed=1) != epochs(1, batch_size=4, seed=2)


def test_one_pass_without_epoch_length() -> None:
    (epoch,) = epochs(1, batch_size=3, epoch_length=None)
    assert len(epoch) == len(set(epoch)) == 9


def test_data_smaller_than_a_batch_is_repeated() -> None:
    (epoch,) = epochs(1, batch_size=25, epoch_length=1)
    assert len(epoch) == 25
    assert max(Counter(epoch).values()) - min(Counter(epoch).values()) <= 1


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_see_the_batch_of_one_process(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (single,) = epochs(1, batch_size=2 * processes, epoch_length=4)
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(module, "process_count", lambda: processes)
        monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
        parts += epochs(1, batch_size=2, epoch_length=4)
    for step in range(4):
        together = {index for part in parts for index in part[2 * step : 2 * step + 2]}
        assert together == set(single[2 * processes * step : 2 * processes * (step + 1)])


def test_empty_data_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        EpochSampler([], batch_size=1)
