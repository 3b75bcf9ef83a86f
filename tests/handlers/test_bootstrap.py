"""The entry of a score: its value, its spread, and what is not defined."""

import pytest
import torch

from common.handlers.bootstrap import Score, mean


def test_spread_is_the_standard_error_of_the_mean() -> None:
    rows = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    entry = Score("name", "what it is", {"samples": rows}, mean, rounds=400).entry(0)
    assert entry["meaning"] == "what it is"
    assert entry["samples"]["value"] == pytest.approx(rows.mean().item())
    assert entry["samples"]["n"] == 400
    assert entry["samples"]["bootstrap_sd"] == pytest.approx(rows.std().item() / 20, rel=0.1)


def test_rows_are_drawn_whole() -> None:
    """A score of pairs of numbers that always add up to 1 has no spread."""
    first = torch.rand(20, 1, dtype=torch.float64)
    rows = torch.cat([first, 1 - first], 1)
    entry = Score("name", "", {"samples": rows}, lambda x: x.sum(1).mean()).entry(0)
    assert entry["samples"]["bootstrap_sd"] == pytest.approx(0, abs=1e-12)


def test_the_same_rows_give_the_same_entry_and_another_number_another_spread() -> None:
    score = Score("name", "", {"samples": torch.rand(9), "held_out": torch.rand(9)}, mean)
    assert score.entry(0) == score.entry(0)
    assert score.entry(0)["samples"]["value"] == score.entry(1)["samples"]["value"]
    assert score.entry(0)["samples"]["bootstrap_sd"] != score.entry(1)["samples"]["bootstrap_sd"]


def test_what_is_not_defined_is_none() -> None:
    groups = {"one": torch.tensor([2.0]), "nan": torch.full((3,), torch.nan), "infinite": torch.full((3,), torch.inf)}
    entry = Score("name", "", groups, mean, details={"unit": "mm"}, details_of={"one": {"biased": True}}).entry(0)
    assert entry["one"] == {"value": 2.0, "bootstrap_sd": None, "n": 1, "biased": True}
    for group in ("nan", "infinite"):
        assert entry[group] == {"value": None, "bootstrap_sd": None, "n": 3}
    assert entry["unit"] == "mm"
