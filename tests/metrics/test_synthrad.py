"""The challenge's metrics against values on paper and against a second implementation with scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as skimage_similarity
from torch import Tensor

from common.metrics.synthrad import masked_mae, masked_psnr, masked_ssim, tissue_mae

METRICS = [masked_mae, masked_psnr, masked_ssim]


def row(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, truth and a mask that leaves a border of 2 voxels out; some values lie beyond the HU window."""
    generator = torch.Generator().manual_seed(0)
    target = -1200 + 4500 * torch.rand(14, 13, 12, generator=generator)
    pred = target + 150 * torch.randn(14, 13, 12, generator=generator)
    mask = torch.zeros(14, 13, 12, dtype=torch.uint8)
    mask[2:-2, 2:-2, 2:-2] = 1
    mask[6, 6, 5:7] = 0  # a hole
    return pred, target, mask


def test_error_and_psnr_of_three_masked_voxels() -> None:
    """Absolute errors of 10, 20 and 0 HU: mean 10, mean square 500 / 3; the fourth voxel is not looked at."""
    pred, target, mask = row(10, 80, 200, 1000), row(0, 100, 200, 300), row(1, 1, 1, 0)
    assert masked_mae(pred, target, mask).item() == pytest.approx(10)
    assert masked_psnr(pred, target, mask).item() == pytest.approx(10 * math.log10(4024**2 / (500 / 3)))
    assert masked_psnr(pred, target, mask).item() == pytest.approx(49.8747, abs=5e-5)


def test_mean_absolute_error_is_not_clipped_and_psnr_is() -> None:
    pred, target, mask = row(3500, 0), row(3000, 40), row(1, 1)
    assert masked_mae(pred, target, mask).item() == pytest.approx((500 + 40) / 2)
    assert masked_psnr(pred, target, mask).item() == pytest.approx(10 * math.log10(4024**2 / (40**2 / 2)))


def test_psnr_of_a_constant_offset() -> None:
    target = torch.zeros(1, 8, 8, 8)
    assert masked_psnr(target + 100, target, torch.ones_like(target)).item() == pytest.approx(32.0932, abs=5e-5)


def test_similarity_of_constant_volumes() -> None:
    """Shifted by 1024 and with c1 = (0.01 * 4024)^2 they have (2 a b + c1) / (a^2 + b^2 + c1)."""
    a, b, c1 = 1024.0, 1124.0, 40.24**2
    first = torch.zeros(1, 8, 8, 8)
    value = masked_ssim(first + 100, first, torch.ones_like(first)).item()
    assert value == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-12)
    assert value == pytest.approx(0.99567768, abs=5e-9)


def test_similarity_follows_the_definition(case: tuple[Tensor, Tensor, Tensor]) -> None:
    pred, target, mask = (volume.double().numpy() for volume in case)
    shifted = [np.where(mask > 0, np.clip(volume, -1024, 3000), -1024) + 1024 for volume in (pred, target)]
    _, field = skimage_similarity(*shifted, data_range=4024, full=True)
    inner = (slice(3, -3),) * 3
    expected = field[inner][mask[inner] > 0].mean()
    assert masked_ssim(*case).item() == pytest.approx(expected, abs=1e-12)


def test_similarity_leaves_out_the_three_voxels_at_each_border() -> None:
    """A wrong corner voxel is seen by one of the 10^3 windows inside 16^3 voxels, whose similarity is known: an outlier
    of d among n equal voxels shifts the mean by d / n and makes a sample variance of d^2 / n."""
    target, mask = torch.full((16, 16, 16), 100.0), torch.ones(16, 16, 16)
    pred = target.clone()
    pred[0, 0, 0] += 800
    y, x, c1, c2 = 1124.0, 1124.0 + 800 / 343, 40.24**2, 120.72**2
    similarity = (2 * x * y + c1) / (x * x + y * y + c1) * c2 / (800**2 / 343 + c2)
    assert masked_ssim(pred, target, mask).item() == pytest.approx(1 - (1 - similarity) / 1000, abs=1e-9)
    mask[3, 3, 3] = 0
    assert masked_ssim(pred, target, mask).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_voxels_outside_the_mask_never_matter(metric: object, case: tuple[Tensor, Tensor, Tensor]) -> None:
    pred, target, mask = case
    changed_pred, changed_target = torch.where(mask > 0, pred, 2000.0), torch.where(mask > 0, target, -1000.0)
    assert torch.equal(metric(changed_pred, changed_target, mask), metric(pred, target, mask))  # type: ignore[operator]


def test_perfect_prediction(case: tuple[Tensor, Tensor, Tensor]) -> None:
    _, target, mask = case
    assert masked_mae(target, target, mask).item() == 0
    assert masked_psnr(target, target, mask).item() == float("inf")
    assert masked_ssim(target, target, mask).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_channel_axis_and_number_type_make_no_difference(metric: object, case: tuple[Tensor, Tensor, Tensor]) -> None:
    pred, target, mask = (volume.round() if volume.is_floating_point() else volume for volume in case)
    value = metric(pred, target, mask)  # type: ignore[operator]
    assert value.dtype == torch.float64
    assert value.ndim == 0
    assert torch.equal(metric(pred[None].short(), target[None].int(), mask[None].bool()), value)  # type: ignore[operator]


def test_tissue_errors_go_by_the_true_intensity() -> None:
    """Thresholds are exclusive: 250 HU and -200 HU are soft tissue."""
    target = row(251, 1000, 250, 0, -200, -201, -1000, 3000)
    pred = target + row(10, -30, 1, 2, 6, 100, 50, 999)
    mask = row(1, 1, 1, 1, 1, 1, 1, 0)
    errors = tissue_mae(pred, target, mask)
    assert [value.item() for value in errors] == pytest.approx([20, 3, 75])
    assert errors._fields == ("bone", "soft_tissue", "air")


def test_tissue_errors_add_up_to_the_masked_error(case: tuple[Tensor, Tensor, Tensor]) -> None:
    _, target, mask = case
    truth = target[mask > 0]
    counts = [(truth > 250).sum(), ((truth <= 250) & (truth >= -200)).sum(), (truth < -200).sum()]
    weighted = sum(error * count for error, count in zip(tissue_mae(*case), counts, strict=True)) / (mask > 0).sum()
    assert float(weighted) == pytest.approx(masked_mae(*case).item(), rel=1e-12)


def test_absent_tissue_has_no_error() -> None:
    errors = tissue_mae(row(1, 2), row(0, 0), row(1, 1))
    assert errors.bone.isnan()
    assert errors.air.isnan()
    assert errors.soft_tissue.item() == pytest.approx(1.5)


@pytest.mark.parametrize("metric", [*METRICS, tissue_mae])
def test_unusable_volumes_are_refused(metric: object) -> None:
    volume = torch.zeros(1, 8, 8, 8)
    with pytest.raises(ValueError, match=r"prediction \(1, 8, 8, 8\), target \(1, 8, 8, 9\)"):
        metric(volume, torch.zeros(1, 8, 8, 9), volume)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 8\); expected one patient"):
        metric(*[torch.zeros(2, 8, 8, 8)] * 3)  # type: ignore[operator]
    with pytest.raises(ValueError, match="mask is empty"):
        metric(volume, volume, volume)  # type: ignore[operator]


def test_volume_that_the_window_does_not_fit_into_is_refused() -> None:
    thin = torch.ones(1, 20, 20, 6)
    with pytest.raises(ValueError, match="20x20x6 with a window of 7"):
        masked_ssim(thin, thin, thin)
    volume, mask = torch.ones(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
    mask[:, :3] = 1
    with pytest.raises(ValueError, match="but for the outer 3 voxels"):
        masked_ssim(volume, volume, mask)
