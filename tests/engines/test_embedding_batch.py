"""Pairs for contrast: of one slice, two different versions, the same whatever the number of processes."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from common.engines import embedding_batch as module
from common.engines.embedding_batch import EmbeddingPrepareBatch, Positives
from common.engines.randomness import StepRandomness

SCALE = 0.5


def prepare(batch: dict[str, Tensor], positives: Positives, iteration: int = 1) -> tuple[Tensor, Tensor]:
    randomness = StepRandomness(seed=3)
    randomness.iteration = iteration
    return EmbeddingPrepareBatch(randomness, SCALE, positives)(batch)


def numbered_views(size: int = 6, number: int = 4) -> dict[str, Tensor]:
    """Views whose pixels say slice and view: 10 slice + view."""
    values = 10 * torch.arange(size)[:, None] + torch.arange(number)
    return {"views": values.float().reshape(size, number, 1, 1, 1).expand(-1, -1, 2, 3, 3), "index": torch.arange(size)}


def test_positives_are_two_different_views_of_one_slice() -> None:
    inputs, index = prepare(numbered_views(), "augment")
    assert inputs.shape == (12, 2, 3, 3)
    assert index.tolist() == list(range(6))
    first, second = (inputs / SCALE)[:, 0, 0, 0].long().reshape(2, 6)
    assert (first // 10).tolist() == (second // 10).tolist() == list(range(6))
    assert (first != second).all()


def test_every_pair_of_views_comes_up_equally_often() -> None:
    counts: Counter = Counter()
    for iteration in range(300):
        inputs, _ = prepare(numbered_views(size=8), "augment", iteration)
        first, second = (inputs / SCALE)[:, 0, 0, 0].long().reshape(2, 8) % 10
        counts.update(zip(first.tolist(), second.tolist(), strict=True))
    assert counts.keys() == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert max(abs(count - 200) for count in counts.values()) < 5 * 200**0.5


def test_samples_of_the_posterior_have_its_moments_and_are_independent() -> None:
    mean = torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1).expand(50, 2, 40, 40)
    logvar = torch.tensor([0.5, 2.0]).square().log().reshape(1, 2, 1, 1).expand(50, 2, 40, 40)
    inputs, _ = prepare({"mean": mean, "logvar": logvar, "index": torch.arange(50)}, "posterior")
    first, second = (inputs / SCALE).split(50)
    for sample in (first, second):
        torch.testing.assert_close(sample.mean(dim=(0, 2, 3)), torch.tensor([1.0, -2.0]), atol=0.03, rtol=0)
        torch.testing.assert_close(sample.std(dim=(0, 2, 3)), torch.tensor([0.5, 2.0]), rtol=0.02, atol=0)
    assert torch.corrcoef(torch.stack([first[:, 0].flatten(), second[:, 0].flatten()]))[0, 1].abs() < 0.02


def test_self_gives_the_scaled_mean_once() -> None:
    mean = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    inputs, _ = prepare({"mean": mean, "logvar": mean, "index": torch.arange(5)}, "self")
    assert torch.equal(inputs, SCALE * mean)


@pytest.mark.parametrize("positives", ["augment", "posterior"])
def test_draws_are_a_function_of_the_iteration(positives: Positives) -> None:
    batch = numbered_views() | {"mean": torch.zeros(6, 1, 2, 2), "logvar": torch.zeros(6, 1, 2, 2)}
    assert torch.equal(prepare(batch, positives, 7)[0], prepare(batch, positives, 7)[0])
    assert not torch.equal(prepare(batch, positives, 7)[0], prepare(batch, positives, 8)[0])


@pytest.mark.parametrize("positives", ["augment", "posterior"])
def test_processes_together_draw_what_one_process_draws(positives: Positives, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = numbered_views() | {"mean": torch.zeros(6, 1, 2, 2), "logvar": torch.zeros(6, 1, 2, 2)}
    whole = prepare(batch, positives)[0].reshape(2, 6, -1)
    monkeypatch.setattr(module, "process_count", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
        part = prepare({name: rows[rank::2] for name, rows in batch.items()}, positives)[0]
        assert torch.equal(part.reshape(2, 3, -1), whole[:, rank::2])


def test_what_positives_are_made_from_must_be_there() -> None:
    with pytest.raises(
        ValueError, match=r"'augment' is made from views, .*holds mean, index: ask .* two or more views"
    ):
        prepare({"mean": torch.zeros(2, 1, 2, 2), "index": torch.arange(2)}, "augment")
    with pytest.raises(ValueError, match=r"'posterior' is made from mean and logvar, .*ask LatentViews for 0 views"):
        prepare(numbered_views(), "posterior")
    with pytest.raises(ValueError, match=r"positives='mirror' is unknown; choose one of augment, posterior, self"):
        EmbeddingPrepareBatch(StepRandomness(0), 1.0, "mirror")  # type: ignore[arg-type]
