"""Frechet distance against closed forms and SciPy's matrix square root."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from common.metrics.frechet import (
    FrechetDistance,
    GridFeatures,
    distance_of_features,
    frechet_distance,
    grid_features,
)
from common.metrics.moments import Moments, feature_moments


def _features(count: int, seed: int, dimension: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64) @ mixing + seed


def _images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_distance_equals_the_formula_with_scipys_matrix_root() -> None:
    first, second = _features(50, 1), _features(40, 2)
    c1, c2 = np.cov(first.numpy(), rowvar=False), np.cov(second.numpy(), rowvar=False)
    shift = first.numpy().mean(0) - second.numpy().mean(0)
    expected = shift @ shift + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    actual = frechet_distance(feature_moments(first), feature_moments(second))
    assert actual.item() == pytest.approx(expected, rel=1e-9)


def test_distance_is_that_of_torch_fidelity() -> None:
    """The package's own FID formula, from features to the number."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    first, second = _features(60, 1, dimension=12), _features(45, 2, dimension=12)
    statistics = [fid_features_to_statistics(features) for features in (first, second)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]
    assert frechet_distance(feature_moments(first), feature_moments(second)).item() == pytest.approx(expected, rel=1e-9)
    assert distance_of_features(first, feature_moments(second)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [2, 9, 20, 21, 50], ids=lambda count: f"{count} vectors")
def test_few_vectors_take_the_short_way_to_the_same_distance(count: int) -> None:
    """Vectors of 20 numbers: fewer than that, as many, more."""
    features, reference = _features(count, 1, dimension=20), feature_moments(_features(80, 2, dimension=20))
    expected = frechet_distance(feature_moments(features), reference)
    assert distance_of_features(features, reference).item() == pytest.approx(expected.item(), rel=1e-6)


def test_commuting_covariances_add_the_squared_differences_of_standard_deviations() -> None:
    first = Moments(torch.tensor([0.0, 1.0]), torch.diag(torch.tensor([4.0, 9.0])))
    second = Moments(torch.tensor([2.0, 1.0]), torch.diag(torch.tensor([1.0, 25.0])))
    assert frechet_distance(first, second).item() == pytest.approx(2**2 + (2 - 1) ** 2 + (3 - 5) ** 2)


def test_distance_of_equal_sets_is_zero_even_with_fewer_images_than_features() -> None:
    moments = feature_moments(_features(3, 1, dimension=20))
    assert frechet_distance(moments, moments).item() == pytest.approx(0, abs=1e-9)


def test_singular_covariances_equal_the_closed_form_of_rank_one() -> None:
    """For covariances a a^T and b b^T the trace of the root is |a . b|."""
    a, b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([2.0, -1.0, 3.0])
    zero = torch.zeros(3)
    distance = frechet_distance(Moments(zero, torch.outer(a, a)), Moments(zero, torch.outer(b, b)))
    assert distance.item() == pytest.approx(5 + 14 - 2 * abs(float(a @ b)), abs=1e-6)
    c = torch.tensor([1.0, 1.0, 1.0])
    distance = frechet_distance(Moments(zero, torch.outer(a, a)), Moments(zero, torch.outer(c, c)))
    assert distance.item() == pytest.approx(5 + 3 - 2 * 3, abs=1e-6)


def test_grid_features_are_the_means_of_equal_areas() -> None:
    image = torch.zeros(2, 1, 16, 24)
    image[1, 0, 2:4, 3:6] = 1  # the cell in row 1, column 1 of an 8x8 grid
    features = grid_features(image)
    assert features.shape == (2, 64)
    assert features.dtype == torch.float64
    assert features[0].eq(0).all()
    assert features[1].nonzero().flatten().tolist() == [9]
    assert features[1, 9] == 1


def test_metric_over_batches_is_the_distance_of_the_whole_sets() -> None:
    pred, reference = _images(30, 0), _images(20, 1)
    metric = FrechetDistance()
    metric(y_pred=pred[:20], y=reference[:5])
    metric(y_pred=pred[20:], y=reference[5:])
    expected = frechet_distance(feature_moments(grid_features(pred)), feature_moments(grid_features(reference)))
    assert metric.aggregate().item() == pytest.approx(expected.item(), rel=1e-8)  # roots of zero eigenvalues round
    metric.reset()
    metric(y_pred=list(reference), y=list(reference))  # decollated, as MONAI's engines hand them over
    assert metric.aggregate().item() == pytest.approx(0, abs=1e-9)


def test_metric_takes_any_function_of_images_and_forgets_on_reset() -> None:
    pred, reference = _images(30, 0), _images(20, 1)

    def corners(images: Tensor) -> Tensor:
        return images[:, 0, :2, :2].flatten(1)

    metric = FrechetDistance(features=corners)
    metric(y_pred=reference, y=pred)
    metric.reset()
    metric(y_pred=pred, y=reference)
    expected = frechet_distance(feature_moments(corners(pred)), feature_moments(corners(reference)))
    assert metric.aggregate().item() == pytest.approx(expected.item(), rel=1e-9)


def test_spaces_of_features_say_what_they_are() -> None:
    space = GridFeatures(4)
    assert torch.equal(space(_images(3, 0)), grid_features(_images(3, 0), 4))
    assert (space.name, space.identity) == ("frechet_distance", "grid-4x4")


def test_fixed_reference_moments_replace_the_reference_images() -> None:
    pred, reference = _images(30, 0), _images(20, 1)
    free, fixed = FrechetDistance(), FrechetDistance(reference=feature_moments(grid_features(reference)))
    free(y_pred=pred, y=reference)
    fixed(y_pred=pred, y=pred)
    assert fixed.aggregate().item() == pytest.approx(free.aggregate().item(), rel=1e-12)


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 image\(s\) on one side"):
        feature_moments(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="at least 8x8 px"):
        grid_features(torch.zeros(1, 1, 4, 16))
    with pytest.raises(ValueError, match="reference images as `y`"):
        FrechetDistance()(y_pred=_images(2, 0))
    with pytest.raises(ValueError, match="no images were given"):
        FrechetDistance().aggregate()
