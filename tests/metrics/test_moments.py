"""Streamed moments are those of all vectors at once."""

import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.metrics.moments import RunningMoments, feature_moments


def vectors(count: int, offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    return torch.randn(count, 5, generator=generator, dtype=torch.float64) @ mixing + offset


def test_moments_are_those_of_numpy() -> None:
    features = vectors(40)
    moments = feature_moments(features.float())
    assert moments.mean.dtype == moments.covariance.dtype == torch.float64
    np.testing.assert_allclose(moments.mean, features.float().double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        moments.covariance, np.cov(features.float().double().numpy(), rowvar=False), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [3, 0, 20, 17]], ids=["whole", "one by one", "uneven"])
def test_batches_add_up_to_the_whole(sizes: list[int]) -> None:
    features = vectors(40, offset=3.0)
    streamed = RunningMoments()
    for batch in features.split(sizes):
        streamed.update(batch)
    assert streamed.count == 40
    for found, expected in zip(streamed.result(), feature_moments(features), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_large_mean_does_not_swallow_the_covariance() -> None:
    """Sums of squares would: the square of the mean, 1e16, has no digits left for a variance of 1."""
    features = vectors(64)
    streamed = RunningMoments()
    for batch in (features + 1e8).split(7):
        streamed.update(batch)
    torch.testing.assert_close(streamed.result().covariance, feature_moments(features).covariance, rtol=1e-6, atol=1e-6)


def test_merging_leaves_the_other_part_as_it_is() -> None:
    first, second = RunningMoments().update(vectors(8)), RunningMoments().update(vectors(9))
    before = second.result()
    first.merge(second).update(vectors(10))
    assert second.count == 9
    for now, then in zip(second.result(), before, strict=True):
        assert torch.equal(now, then)


def test_too_few_and_unequal_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 image\(s\) on one side"):
        RunningMoments().update(vectors(1)).result()
    with pytest.raises(ValueError, match=r"0 image\(s\) on one side"):
        RunningMoments().result()
    with pytest.raises(ValueError, match="features of 3 numbers after features of 5"):
        RunningMoments().update(vectors(4)).update(vectors(4)[:, :3])
    with pytest.raises(ValueError, match=r"expected \(B, D\)"):
        RunningMoments().update(torch.zeros(2, 3, 4))


def _one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    own = RunningMoments()
    if rank == 1:  # the other one has seen nothing
        own.update(vectors(12))
    torch.save(tuple(own.over_processes().result()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_every_process_gets_the_moments_of_all(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        for found, expected in zip(torch.load(tmp_path / f"{rank}.pt"), feature_moments(vectors(12)), strict=True):
            torch.testing.assert_close(found, expected)
