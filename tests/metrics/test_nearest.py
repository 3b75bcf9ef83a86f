"""Nearest-neighbor distances of sets whose neighbors are known."""

import pytest
import torch
from torch import Tensor

from common.metrics.frechet import grid_features
from common.metrics.multiscale_ssim import multiscale_ssim, profile_for
from common.metrics.nearest import NearestNeighborDistance, most_similar, nearest_neighbors


def _images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_copies_have_distance_zero_exactly() -> None:
    references = _images(20, 0)
    assert nearest_neighbors(references.flip(0), references)[0].eq(0).all()


def test_distance_to_a_brighter_copy_is_the_offset_times_the_side_of_the_grid() -> None:
    references = _images(20, 0)
    distances = nearest_neighbors(references[:5] + 1e-3, references)[0]
    torch.testing.assert_close(distances, torch.full((5,), 16e-3, dtype=torch.float64), rtol=1e-3, atol=0)


def test_distance_is_that_of_the_closest_of_all_references() -> None:
    queries, references = _images(300, 0), _images(7, 1)  # more queries than one chunk holds
    means = [images.double().view(-1, 16, 2, 16, 2).mean((2, 4)).flatten(1) for images in (queries, references)]
    expected = (means[0][:, None] - means[1]).square().sum(2).sqrt().min(1)
    distances, indices = nearest_neighbors(queries, references)
    torch.testing.assert_close(distances, expected.values)
    assert torch.equal(indices, expected.indices)


def test_metric_over_batches_sees_the_references_of_all_batches() -> None:
    queries, references = _images(10, 0), _images(8, 1)
    expected = nearest_neighbors(queries, references)[0].mean().item()
    metric = NearestNeighborDistance()
    metric(y_pred=queries[:6], y=references[:3])
    metric(y_pred=queries[6:], y=references[3:])
    assert metric.aggregate().item() == pytest.approx(expected, rel=1e-12)
    fixed = NearestNeighborDistance(references=grid_features(references, 16))
    fixed(y_pred=queries[:6])
    fixed(y_pred=queries[6:], y=queries[6:])
    assert fixed.aggregate().item() == pytest.approx(expected, rel=1e-12)


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match="training images as `y`"):
        NearestNeighborDistance()(y_pred=_images(1, 0))
    with pytest.raises(ValueError, match="no images were given"):
        NearestNeighborDistance().aggregate()


def test_similarity_of_a_noisy_copy_is_that_to_its_original() -> None:
    references = _images(40, 0)
    noise = 0.02 * torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    queries = torch.cat([references[[30, 7, 12]] + noise, references[5:6]])
    profile = profile_for((32, 32))
    found = most_similar(queries, references, profile)
    torch.testing.assert_close(found, multiscale_ssim(queries, references[[30, 7, 12, 5]], profile))
    assert found[3] == pytest.approx(1)


def test_similarity_is_the_largest_of_all_where_all_are_compared() -> None:
    queries, references = _images(3, 1), _images(5, 0)
    profile = profile_for((32, 32))
    pairs = multiscale_ssim(queries.repeat_interleave(5, 0), references.repeat(3, 1, 1, 1), profile).reshape(3, 5)
    torch.testing.assert_close(most_similar(queries, references, profile), pairs.amax(1))
