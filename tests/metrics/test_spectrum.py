"""Radial power spectrum of known fields and the distance of spectra."""

import math

import pytest
import torch
from torch import Tensor

from common.metrics.spectrum import SpectrumDistance, radial_power_spectrum, spectrum_distance


def _noise(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("cycles", [1, 5, 15])
def test_wave_has_power_in_its_own_ring_only(axis: int, cycles: int) -> None:
    x = torch.arange(32, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * cycles * x / 32)
    image = wave[:, None].expand(32, 32) if axis == 0 else wave.expand(32, 32)
    spectrum = radial_power_spectrum(image)
    assert spectrum.shape == (16,)
    assert (spectrum > 1e-9).nonzero().flatten().tolist() == [cycles - 1]


def test_white_noise_has_a_flat_spectrum_of_its_variance() -> None:
    spectrum = radial_power_spectrum(3 * _noise(400, 0)).mean((0, 1))
    torch.testing.assert_close(spectrum, torch.full((16,), 9.0, dtype=torch.float64), rtol=0.06, atol=0)


def test_mean_of_the_image_does_not_count() -> None:
    image = _noise(1, 0)
    torch.testing.assert_close(radial_power_spectrum(image + 7), radial_power_spectrum(image))


def test_rings_of_a_rectangle_are_at_equal_frequencies_along_both_axes() -> None:
    """A wave of 1/8 cycles per pixel lies in ring 16/8 = 2 of a 16 x 32 image, whichever axis it runs along."""
    along_rows = torch.cos(2 * math.pi * torch.arange(16.0) / 8)[:, None].expand(16, 32)
    along_columns = torch.cos(2 * math.pi * torch.arange(32.0) / 8).expand(16, 32)
    for image in (along_rows, along_columns):
        assert radial_power_spectrum(image).argmax().item() == 1


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_distance_of_scaled_images_is_twice_the_log_of_the_factor(factor: float) -> None:
    images = _noise(8, 0)
    metric = SpectrumDistance()
    metric(y_pred=factor * images[:3], y=images[:3])
    metric(y_pred=factor * images[3:], y=images[3:])
    assert metric.aggregate().item() == pytest.approx(2 * math.log(2))


def test_constant_images_have_a_large_but_finite_distance() -> None:
    constant, noise = torch.zeros(16), torch.ones(16)
    assert spectrum_distance(constant, constant).item() == 0
    assert spectrum_distance(constant, noise).item() == pytest.approx(12 * math.log(10), rel=1e-5)


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no frequency besides the mean"):
        radial_power_spectrum(torch.zeros(1, 8))
    with pytest.raises(ValueError, match="give reference images"):
        SpectrumDistance()(y_pred=_noise(1, 0))
    with pytest.raises(ValueError, match=r"\(32, 32\) px, reference images \(16, 16\)"):
        SpectrumDistance()(y_pred=_noise(1, 0), y=torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="no images were given"):
        SpectrumDistance().aggregate()
