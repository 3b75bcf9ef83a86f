"""PSNR and SSIM against scikit-image and against images whose values are known on paper."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler, from_engine
from skimage.metrics import peak_signal_noise_ratio
from skimage.metrics import structural_similarity as skimage_similarity
from torch import Tensor

from common.metrics.image_quality import (
    PSNR,
    SSIM,
    crop_border,
    psnr,
    structural_similarity,
    structural_similarity_map,
    unit_range,
)

SIZES = [(2, 1, 20, 13), (2, 1, 12, 9, 8)]
each_dimension = pytest.mark.parametrize("size", SIZES, ids=["image", "volume"])


def pair(size: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth images in [0, 1] and the same with noise."""
    generator = torch.Generator().manual_seed(seed)
    ramps = [torch.linspace(0, 3 + axis, length) for axis, length in enumerate(size[2:])]
    smooth = sum(torch.meshgrid(*ramps, indexing="ij")).sin() / 3 + 0.5  # type: ignore[union-attr]
    target = smooth.expand(size) + 0.05 * torch.rand(size, generator=generator)
    return target + 0.1 * torch.randn(size, generator=generator), target


def test_mean_squared_error_of_a_hundredth_is_twenty_decibels() -> None:
    target = torch.zeros(3, 1, 5, 4)
    pred = torch.full_like(target, 0.1)
    pred[1] = 0.01
    pred[2, :, 0] = 0.1 * 5**0.5  # a fifth of the pixels carries all of the error
    pred[2, :, 1:] = 0
    torch.testing.assert_close(psnr(pred, target), torch.tensor([20.0, 40.0, 20.0]).double(), rtol=0, atol=1e-5)


@each_dimension
def test_psnr_agrees_with_scikit_image(size: tuple[int, ...]) -> None:
    pred, target = pair(size)
    expected = [
        peak_signal_noise_ratio(y.double().numpy(), x.double().numpy(), data_range=3)
        for x, y in zip(pred, target, strict=True)
    ]
    assert psnr(pred, target, data_range=3).tolist() == pytest.approx(expected, rel=1e-12)


def test_psnr_is_infinite_where_images_are_equal() -> None:
    assert psnr(torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4)).tolist() == [float("inf")] * 2


def test_psnr_looks_inside_the_mask_only() -> None:
    target, mask = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    pred = torch.full_like(target, 0.1)
    mask[0, :, :2] = 1
    pred[0, :, 2:] = torch.nan
    values = psnr(pred, target, mask=mask)
    assert values[0].item() == pytest.approx(20, abs=1e-5)
    assert values[1].isnan()  # nothing to look at


@each_dimension
@pytest.mark.parametrize("window", [3, 7])
def test_similarity_agrees_with_scikit_image(size: tuple[int, ...], window: int) -> None:
    pred, target = pair(size)
    similarity = structural_similarity(pred, target, data_range=1.5, window=window)
    full = structural_similarity_map(pred, target, data_range=1.5, window=window)
    border = slice(window // 2, -(window // 2))
    for i in range(len(pred)):
        x, y = pred[i, 0].double().numpy(), target[i, 0].double().numpy()
        mean, field = skimage_similarity(x, y, win_size=window, data_range=1.5, full=True)
        assert similarity[i].item() == pytest.approx(mean, abs=1e-12)
        np.testing.assert_allclose(full[i, 0], field[(border,) * x.ndim], rtol=0, atol=1e-12)


def test_window_of_seven_is_the_default_of_both() -> None:
    pred, target = pair((1, 1, 20, 13))
    expected = skimage_similarity(pred[0, 0].double().numpy(), target[0, 0].double().numpy(), data_range=1.0)
    assert structural_similarity(pred, target).item() == pytest.approx(expected, abs=1e-12)


@each_dimension
def test_similarity_of_an_image_with_itself_is_one(size: tuple[int, ...]) -> None:
    _, target = pair(size)
    torch.testing.assert_close(structural_similarity(target, target), torch.ones(2).double(), rtol=0, atol=1e-12)


def test_similarity_of_constant_images_compares_their_means() -> None:
    """Without variance only the luminance term is left: (2 a b + c1) / (a^2 + b^2 + c1) with c1 = 1e-4."""
    first, second = torch.full((1, 1, 8, 8), 0.5), torch.full((1, 1, 8, 8), 0.25)
    expected = (2 * 0.125 + 1e-4) / (0.25 + 0.0625 + 1e-4)
    assert structural_similarity(first, second).item() == pytest.approx(expected, rel=1e-12)


def test_masked_similarity_is_the_mean_of_the_map_at_masked_centers() -> None:
    pred, target = pair((1, 1, 20, 13))
    mask = torch.zeros_like(target)
    mask[0, 0, 4, 5] = mask[0, 0, 10, 9] = 1
    mask[0, 0, 0, 0] = 1  # no whole window there
    _, field = skimage_similarity(pred[0, 0].double().numpy(), target[0, 0].double().numpy(), data_range=1.0, full=True)
    expected = (field[4, 5] + field[10, 9]) / 2
    assert structural_similarity(pred, target, mask=mask).item() == pytest.approx(expected, abs=1e-12)


def test_crop_drops_the_centers_without_a_whole_window() -> None:
    images = torch.arange(9 * 8.0).reshape(1, 1, 9, 8)
    assert torch.equal(crop_border(images, 7), images[..., 3:6, 3:5])


@pytest.mark.parametrize("size", [(1, 1, 6, 20), (1, 1, 20, 20, 6)])
def test_image_thinner_than_the_window_is_refused(size: tuple[int, ...]) -> None:
    spelled = "x".join(map(str, size[2:]))
    with pytest.raises(ValueError, match=f"an image of {spelled} with a window of 7"):
        structural_similarity(torch.zeros(size), torch.zeros(size))


def test_even_window_is_refused() -> None:
    with pytest.raises(ValueError, match="window of 4"):
        structural_similarity(torch.zeros(1, 1, 9, 9), torch.zeros(1, 1, 9, 9), window=4)


@pytest.mark.parametrize("metric", [psnr, structural_similarity])
def test_shapes_that_would_broadcast_are_refused(metric: object) -> None:
    with pytest.raises(ValueError, match=r"prediction \(2, 1, 9, 9\), target \(1, 1, 9, 9\)"):
        metric(torch.zeros(2, 1, 9, 9), torch.zeros(1, 1, 9, 9))  # type: ignore[operator]


def test_unit_range_maps_and_clamps() -> None:
    assert unit_range(torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 0.5, 0.75, 1, 1]


def test_unit_range_begins_where_black_is() -> None:
    assert unit_range(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0]), low=0.0).tolist() == [0, 0, 0.5, 1, 1]


def test_a_tenth_of_the_range_is_twenty_decibels_wherever_black_is() -> None:
    """Between 0 and 1 an error of 0.1, between -1 and 1 one of 0.2."""
    target = 0.9 * torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for metric, y_pred, y in (
        (PSNR(low=0.0), target + 0.1, target),
        (PSNR(), 2 * (target + 0.1) - 1, 2 * target - 1),
    ):
        metric(y_pred=y_pred, y=y)
        assert metric.aggregate().item() == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize("kind", [PSNR, SSIM])
def test_images_from_0_and_the_same_from_minus_1_have_one_value(kind: type[PSNR] | type[SSIM]) -> None:
    """Some of these go beyond the range, where both are clamped."""
    pred, target = pair((3, 1, 12, 9))
    pred = pred + 0.3
    assert (pred > 1).any()
    from_zero, from_minus_one = kind(low=0.0), kind()
    from_zero(y_pred=pred, y=target)
    from_minus_one(y_pred=2 * pred - 1, y=2 * target - 1)
    assert from_zero.aggregate().item() == pytest.approx(from_minus_one.aggregate().item(), rel=1e-6)
    clamped = pred.clamp(0, 1)
    exact = psnr(clamped, target) if kind is PSNR else structural_similarity(clamped, target)
    assert from_zero.aggregate().item() == pytest.approx(exact.mean().item(), rel=1e-6)


def test_metrics_are_means_over_images_of_any_batching() -> None:
    pred, target = pair((5, 1, 12, 9))
    metrics = {"psnr": PSNR(), "ssim": SSIM()}
    engine = Engine(lambda engine, batch: batch)
    engine.state.metric_details = {}
    for name, metric in metrics.items():
        IgniteMetricHandler(metric_fn=metric, output_transform=from_engine(["pred", "label"])).attach(engine, name)
    batches = [{"pred": 2 * pred[part] - 1, "label": 2 * target[part] - 1} for part in (slice(0, 3), slice(3, 5))]
    batches[1] = [{key: batches[1][key][i] for key in ("pred", "label")} for i in range(2)]  # type: ignore[call-overload]
    engine.run(batches, max_epochs=1)
    clamped = pred.double().clamp(0, 1), target.double().clamp(0, 1)
    assert engine.state.metrics["psnr"] == pytest.approx(psnr(*clamped).mean().item(), rel=1e-6)
    assert engine.state.metrics["ssim"] == pytest.approx(structural_similarity(*clamped).mean().item(), rel=1e-6)


def test_exact_images_are_left_out_of_the_mean_psnr_and_counted() -> None:
    metric, target = PSNR(), torch.zeros(4, 1, 8, 8)
    pred = target.clone()
    pred[0], pred[2] = 0.2, 0.02  # errors of 0.1 and 0.01 in [0, 1]
    metric(y_pred=pred, y=target)
    assert metric.aggregate().item() == pytest.approx(30, abs=1e-5)
    assert metric.num_exact == 2
    metric.reset()
    metric(y_pred=target, y=target)
    assert metric.aggregate().item() == float("inf")
    assert metric.num_exact == 4


@pytest.mark.parametrize("metric", [PSNR(), SSIM()], ids=["PSNR", "SSIM"])
def test_metric_without_images_or_targets_is_refused(metric: PSNR | SSIM) -> None:
    with pytest.raises(ValueError, match="no images were given"):
        metric.aggregate()
    with pytest.raises(ValueError, match="target images as `y`"):
        metric(y_pred=torch.zeros(1, 1, 8, 8))
