"""The pointwise map recovers maps that are pointwise, and is the conditional mean of those that are not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.metrics.pointwise import PointwiseMap

CENTERS = (torch.arange(256).double() + 0.5) / 128 - 1


def fitted(source: Tensor, target: Tensor, mask: Tensor | None = None, bins: int = 256) -> PointwiseMap:
    pointwise = PointwiseMap(bins)
    pointwise.update(source, target, mask)
    return pointwise


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize(
    ("function", "tolerance"),
    [(lambda x: torch.tanh(2 * x), 0.01), (lambda x: torch.cos(5 * x), 0.03), (lambda x: -x, 0.005)],
    ids=["monotone", "not monotone", "inverted"],
)
def test_smooth_map_is_recovered(function: Callable[[Tensor], Tensor], tolerance: float) -> None:
    source = uniform(4, 1, 200, 200)
    unseen = uniform(2, 1, 50, 50, seed=1)
    predicted = fitted(source, function(source)).apply(unseen)
    assert predicted.shape == unseen.shape
    assert predicted.dtype == unseen.dtype
    assert (predicted - function(unseen)).abs().max() < tolerance


def test_noise_averages_out_to_the_conditional_mean() -> None:
    """On sources at bin centers the map is exactly the mean target of each."""
    place = torch.randint(0, 256, (20_000,), generator=torch.Generator().manual_seed(0))
    target = uniform(20_000, seed=1)
    predicted = fitted(CENTERS[place], target).apply(CENTERS)
    expected = torch.stack([target[place == i].double().mean() for i in range(256)])
    torch.testing.assert_close(predicted, expected, rtol=0, atol=1e-12)


def test_no_shift_of_a_bin_lowers_the_squared_error() -> None:
    place = torch.randint(0, 256, (20_000,), generator=torch.Generator().manual_seed(0))
    source, target = CENTERS[place], uniform(20_000, seed=1).double()
    predicted = fitted(source, target).apply(source)
    best = (predicted - target).square().mean()
    for shift in (-0.01, 0.01):
        moved = torch.where(place == 100, predicted + shift, predicted)
        assert (moved - target).square().mean() > best


def test_map_beats_the_source_itself() -> None:
    source = uniform(2, 1, 64, 64)
    target = 0.4 - 0.5 * source + 0.05 * torch.randn(source.shape, generator=torch.Generator().manual_seed(2))
    predicted = fitted(source, target).apply(source)
    assert (predicted - target).square().mean() < 0.05**2 < (source - target).square().mean()


def test_batches_add_up() -> None:
    source, target = uniform(6, 1, 16, 16), uniform(6, 1, 16, 16, seed=1)
    streamed = PointwiseMap()
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        streamed.update(source[part], target[part])
    torch.testing.assert_close(streamed.apply(source), fitted(source, target).apply(source))


def test_empty_bins_are_bridged_by_a_straight_line_and_ends_are_constant() -> None:
    """Two filled bins of four, centers -0.75 and 0.75."""
    pointwise = fitted(torch.tensor([-0.9, -0.6, 0.75]), torch.tensor([0.1, 0.3, 0.8]), bins=4)
    predicted = pointwise.apply(torch.tensor([-1.0, -0.75, 0.0, 0.375, 0.75, 1.0]))
    torch.testing.assert_close(predicted, torch.tensor([0.2, 0.2, 0.5, 0.65, 0.8, 0.8]))


def test_single_intensity_gives_a_constant_map() -> None:
    assert (
        fitted(torch.full((3,), 0.2), torch.tensor([0.0, 0.5, 1.0])).apply(torch.tensor([-1.0, 0.2, 1.0])).tolist()
        == [0.5] * 3
    )


def test_masked_pixels_do_not_count() -> None:
    source, target = torch.tensor([0.2, 0.2, 0.2]), torch.tensor([0.5, 0.7, -1.0])
    assert fitted(source, target, torch.tensor([1, 1, 0])).apply(source[:1]).item() == pytest.approx(0.6)


def test_ends_of_the_range_have_their_bins() -> None:
    """Values of exactly -1 and 1, and beyond, fall into the outermost bins."""
    pointwise = fitted(torch.tensor([-1.0, -1.5, 1.0, 1.5]), torch.tensor([-0.2, -0.4, 0.1, 0.3]))
    torch.testing.assert_close(pointwise.apply(torch.tensor([-1.0, 1.0])), torch.tensor([-0.3, 0.2]))


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no pixel was given"):
        PointwiseMap().apply(torch.zeros(1))
    with pytest.raises(ValueError, match=r"source \(2,\), target \(1,\) differ in shape"):
        PointwiseMap().update(torch.zeros(2), torch.zeros(1))
    with pytest.raises(ValueError, match="bins=0"):
        PointwiseMap(0)
