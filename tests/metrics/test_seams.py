"""Seam ratio of images whose steps are known."""

import pytest
import torch

from common.metrics.seams import SeamRatio, seam_ratio


def _ramp(size: int = 24) -> torch.Tensor:
    """Every horizontal and vertical neighbor differs by 1."""
    x = torch.arange(float(size))
    return (x[:, None] + x)[None, None]


def test_ramp_has_no_seams() -> None:
    assert seam_ratio(_ramp(), 8).item() == pytest.approx(1)


@pytest.mark.parametrize("axis", [-1, -2])
def test_step_at_every_token_border_along_one_axis_raises_the_ratio_to_its_mean(axis: int) -> None:
    """Steps of 1 + 3 on the borders across one axis and of 1 on those across the other: 2.5 on average."""
    stairs = 3 * (torch.arange(24) // 8).float()
    image = _ramp() + (stairs if axis == -1 else stairs[:, None])
    assert seam_ratio(image, 8).item() == pytest.approx(2.5)


def test_steps_inside_tokens_do_not_count_as_seams() -> None:
    shifted = _ramp() + 3 * ((torch.arange(24) + 4) // 8).float()  # steps in the middle of tokens
    assert seam_ratio(shifted, 8).item() < 1


def test_noise_knows_nothing_of_tokens() -> None:
    noise = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert seam_ratio(noise, 8).item() == pytest.approx(1, abs=0.01)


def test_metric_over_batches_is_the_ratio_of_all_images() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(9, 1, 16, 24, generator=generator) * torch.arange(9.0).view(9, 1, 1, 1)
    metric = SeamRatio(8)
    metric(y_pred=images[:4])
    metric(y_pred=images[4:], y=images[4:])
    assert metric.aggregate().item() == pytest.approx(seam_ratio(images, 8).item(), rel=1e-12)


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than one token"):
        seam_ratio(torch.zeros(1, 1, 8, 8), 8)
    with pytest.raises(ValueError, match=r"images of shape \(16, 16\)"):
        seam_ratio(torch.zeros(16, 16), 8)
    with pytest.raises(ValueError, match="no images were given"):
        SeamRatio(8).aggregate()
