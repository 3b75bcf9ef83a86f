"""The cardiac image: pure voxels, partial volume, noise, bounding box, appearance."""

import numpy as np
import pytest
from scipy import stats

from common.data.phantoms import cardiac_image
from common.data.phantoms.cardiac import CardiacCase
from common.data.phantoms.cardiac_image import noise_stream
from common.data.phantoms.signal import TISSUES_1T5, bssfp_on_resonance

COMMON_TISSUES = ("blood", "myocardium", "muscle", "fat", "liver", "lung")


@pytest.mark.parametrize("case", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))])
def test_pure_voxels_show_gain_times_the_signal_equation(case: int) -> None:
    """Ideal image, within 1 grey level; a tissue's coverage is the painting with it at 1 and all others at 0."""
    heart = CardiacCase(0, case, 128, 240.0, ideal=True)
    gain = heart.scanner_parameters.gain / bssfp_on_resonance(TISSUES_1T5["blood"])
    image = heart.images([0])[0]
    mixture = np.zeros(image.shape)
    for name, tissue in TISSUES_1T5.items():
        only = {key: np.asarray(key == name, dtype=np.float32) for key in TISSUES_1T5}
        share = heart.painter(only).paint(0.0)
        mixture += share * gain * bssfp_on_resonance(tissue)
        pure = share > 1 - 1e-6
        assert np.abs(image[pure] - gain * bssfp_on_resonance(tissue)).max(initial=0) <= 1, name
        assert pure.sum() > 100 or name not in COMMON_TISSUES, name
    assert np.abs(image - mixture).max() <= 1  # and every other voxel is the mixture


def test_label_interiors_hold_blood_and_muscle() -> None:
    """Away from borders and papillary muscles, label 3 is blood and label 2 muscle in the ideal image."""
    heart = CardiacCase(0, 0, 192, 160.0, ideal=True)
    image, labels = heart.images([0])[0], heart.labels(0)
    levels = {name: heart.scanner_parameters.gain * bssfp_on_resonance(TISSUES_1T5[name]) for name in COMMON_TISSUES}
    unit = bssfp_on_resonance(TISSUES_1T5["blood"])
    middle = slice(3, len(labels) // 2)
    assert np.median(image[middle][labels[middle] == 3]) == pytest.approx(levels["blood"] / unit, abs=1)
    assert np.median(image[middle][labels[middle] == 1]) == pytest.approx(levels["blood"] / unit, abs=1)
    assert np.median(image[middle][labels[middle] == 2]) == pytest.approx(levels["myocardium"] / unit, abs=1)


def test_air_of_the_image_follows_rayleigh_with_the_stated_sigma() -> None:
    """sqrt(mean(x^2) / 2) = sigma = gain / SNR before rounding, and the whole distribution."""
    heart = CardiacCase(0, 0, 192, 300.0)
    scanner = heart.scanner()
    signal = heart.painter(heart.signals()).paint(0.0)
    air = scanner.magnitude(signal, noise_stream(0, 0, 0))[signal == 0]
    sigma = heart.scanner_parameters.gain / heart.scanner_parameters.snr
    assert air.size > 10_000
    assert np.sqrt(np.mean(air**2) / 2) == pytest.approx(sigma, rel=0.02)
    assert stats.kstest(air, stats.rayleigh(scale=sigma).cdf).statistic < 0.02


def test_noise_is_renewed_in_every_frame_and_scan() -> None:
    streams = [noise_stream(0, 0, 0), noise_stream(0, 0, 1), noise_stream(0, 0, 0, scan=1), noise_stream(0, 1, 0)]
    correlation = np.corrcoef([stream.normals(10_000) for stream in streams]) - np.eye(4)
    assert np.abs(correlation).max() < 0.05


@pytest.mark.parametrize("case", [0, 4, *(pytest.param(k, marks=pytest.mark.slow) for k in range(5, 40))])
def test_box_of_the_heart_cuts_nothing_off(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Painting inside the box equals painting on the whole picture, at both ends of the contraction."""
    heart = CardiacCase(0, case, 96, 220.0)
    signals = heart.signals()
    boxed = heart.painter(signals)
    monkeypatch.setattr(cardiac_image, "_MARGIN_MM", 1000.0)
    whole = heart.painter(signals)
    assert boxed.background.size < 0.9 * whole.background.size
    for s in (0.0, 1.0):
        np.testing.assert_array_equal(boxed.paint(s), whole.paint(s))


def test_heart_is_the_same_at_any_resolution() -> None:
    """The noiseless picture at 192 pixels, averaged 3 x 3, is the picture at 64 up to partial volume."""
    coarse, fine = (CardiacCase(0, 1, size, 160.0, ideal=True) for size in (64, 192))
    low = coarse.painter(coarse.signals()).paint(0.5)
    high = fine.painter(fine.signals()).paint(0.5)
    mean = high.reshape(len(high), 64, 3, 64, 3).mean(axis=(2, 4))
    assert np.corrcoef(low.ravel(), mean.ravel())[0, 1] > 0.98


def test_banding_brings_dark_bands() -> None:
    """Three times the off-resonance reaches 156 Hz within the body; without it blood near the heart stays bright."""
    plain, banded = (CardiacCase(0, 0, 96, 300.0, banding=flag).signals()["blood"] for flag in (False, True))
    near = plain[:, 28:-28, 28:-28]  # 125 mm around the center
    assert near.min() > 0.7 * np.median(near)
    assert banded.min() < 0.3 * np.median(banded)


def test_papillary_muscles_are_dark_and_inside_the_cavity_label() -> None:
    """ACDC's contouring rule: they belong to the label of the cavity."""
    heart = CardiacCase(0, 1, 192, 160.0, ideal=True)
    image, labels = heart.images([0])[0], heart.labels(0)
    blood = heart.scanner_parameters.gain
    middle = np.abs(heart.heart.slices_mm / heart.parameters.length_mm - 0.5) < 0.15
    cavity = image[middle][labels[middle] == 3]
    assert 0.03 < (cavity < 0.5 * blood).mean() < 0.35


def test_slice_is_the_mean_of_its_two_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through-plane averaging: a slice lies halfway between what its upper and its lower plane show."""
    heart = CardiacCase(0, 1, 64)
    signals = heart.signals()
    image = heart.painter(signals).paint(0.7)
    planes = []
    for offset in (-0.3, 0.3):
        monkeypatch.setattr(cardiac_image, "_SUB_SLICES", (offset, offset))
        planes.append(heart.painter(signals).paint(0.7))
    assert np.abs(planes[0] - planes[1]).max() > 0.1
    np.testing.assert_allclose(image, 0.5 * (planes[0] + planes[1]), atol=1e-6)
