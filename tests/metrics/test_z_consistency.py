"""Steps between slices of volumes in which they are known."""

import math

import pytest
import torch
from torch import Tensor

from common.metrics.z_consistency import z_consistency


def ramp(slope: float = 1.0, slices: int = 12) -> Tensor:
    """Every step between neighboring slices is ``slope``."""
    return slope * torch.arange(float(slices)).expand(1, 5, 6, -1)


def test_right_prediction_has_ratio_one_and_no_flicker() -> None:
    volume = torch.rand(1, 5, 6, 12, generator=torch.Generator().manual_seed(0))
    result = z_consistency(volume, volume)
    assert (result.ratio.item(), result.error_ratio.item()) == (1, 0)


def test_ratio_is_that_of_the_slopes() -> None:
    result = z_consistency(ramp(0.5), ramp(2.0))
    assert result.ratio.item() == pytest.approx(0.25)
    assert result.error_ratio.item() == pytest.approx(0.75)


def test_error_that_stays_from_slice_to_slice_is_no_flicker() -> None:
    offset = torch.rand(1, 5, 6, 1, generator=torch.Generator().manual_seed(0))
    result = z_consistency(ramp() + offset, ramp())
    assert result.ratio.item() == pytest.approx(1)
    assert result.error_ratio.item() == pytest.approx(0, abs=1e-6)


def test_alternating_error_has_steps_of_twice_its_size() -> None:
    """Steps of the prediction are 1 + 0.6 and 1 - 0.6, so its mean step is right; the flicker shows in the error."""
    alternating = 0.3 * (-1.0) ** torch.arange(13)
    result = z_consistency(ramp(slices=13) + alternating, ramp(slices=13))
    assert result.ratio.item() == pytest.approx(1)
    assert result.error_ratio.item() == pytest.approx(0.6)


def test_independent_noise_steps_by_its_normal_difference() -> None:
    """Mean |difference| of independent normals of deviation s is 2 s / sqrt(pi)."""
    noise = 0.1 * torch.randn(1, 40, 40, 60, generator=torch.Generator().manual_seed(0))
    target = ramp(slices=60)[:, :1, :1].expand(1, 40, 40, 60)
    assert z_consistency(target + noise, target).error_ratio.item() == pytest.approx(0.2 / math.sqrt(math.pi), rel=0.02)


def test_steps_along_the_slices_do_not_count() -> None:
    in_plane = torch.rand(1, 5, 6, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, -1, 12)
    assert z_consistency(in_plane, ramp()).ratio.item() == 0


def test_steps_across_the_edge_of_the_mask_do_not_count() -> None:
    mask = torch.zeros(1, 5, 6, 12, dtype=torch.bool)
    mask[..., 3:9] = True
    pred = torch.where(mask, ramp(0.5), 1000.0)
    result = z_consistency(pred, ramp(), mask)
    assert result.ratio.item() == pytest.approx(0.5)
    assert result.error_ratio.item() == pytest.approx(0.5)


def test_unusable_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction \(1, 5, 6, 12\), target \(1, 5, 6, 11\)"):
        z_consistency(ramp(), ramp(slices=11))
    with pytest.raises(ValueError, match="no two consecutive slices"):
        z_consistency(ramp(slices=1), ramp(slices=1))
    every_other = (torch.arange(12) % 2).expand(1, 5, 6, 12)
    with pytest.raises(ValueError, match="no two voxels"):
        z_consistency(ramp(), ramp(), every_other)
