"""Targets come from anywhere in the data set, by seed and iteration."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from common.engines import unpaired_batch as module
from common.engines.randomness import StepRandomness
from common.engines.unpaired_batch import UnpairedPrepareBatch


class Numbered:
    """Ten pairs, whose images are their numbers; targets are larger by 100."""

    def __len__(self) -> int:
        return 10

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        source = torch.tensor(list(indices), dtype=torch.float64).reshape(-1, 1, 1, 1)
        return {"source": source, "target": source + 100}


def prepared(size: int, iteration: int = 1, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
    randomness = StepRandomness(seed=3)
    randomness.start(iteration)
    batch = Numbered().__getitems__([number % 10 for number in range(size)][rows])
    source, target = UnpairedPrepareBatch(Numbered(), randomness)(batch, "cpu")
    assert source.dtype == target.dtype == torch.float32
    assert torch.equal(source, batch["source"].float())
    return source, target


def test_targets_are_drawn_evenly_from_the_whole_data_set_whatever_the_source() -> None:
    source, target = prepared(5000)
    drawn = (target - 100).flatten()
    counts = [int((drawn == number).sum()) for number in range(10)]
    assert sum(counts) == 5000
    assert counts == pytest.approx([500] * 10, abs=90)
    assert abs(torch.corrcoef(torch.stack([source.flatten(), drawn]))[0, 1].item()) < 0.06


def test_targets_are_a_function_of_seed_and_iteration() -> None:
    assert torch.equal(prepared(20)[1], prepared(20)[1])
    assert not torch.equal(prepared(20)[1], prepared(20, iteration=2)[1])


def test_processes_draw_the_rows_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = prepared(8)
    monkeypatch.setattr(module, "process_count", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
        assert torch.equal(prepared(8, rows=slice(rank, None, 2))[1], whole[rank::2])
