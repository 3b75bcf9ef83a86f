"""Images of the head: pure voxels, mixtures, noise, Hounsfield units, contrast between tissues."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from common.data.phantoms.brain_contrasts import CONTRASTS
from common.data.phantoms.brain_ct import noisy
from common.data.phantoms.brain_image import BrainCase
from common.data.phantoms.brain_lesions import Shown
from common.data.phantoms.brain_parameters import noise_stream
from common.data.phantoms.brain_space import Grid
from common.data.phantoms.brain_tissues import NAMES
from common.data.phantoms.streams import Stream

EVERYTHING = Shown(glioma=True, stroke=True, chronic=True)


def brain_case(case: int, shown: Shown = EVERYTHING, *, size: int = 96, ideal: bool = False) -> BrainCase:
    return BrainCase(0, case, Grid(size, 224.0, 32), shown, ideal=ideal)


def fractions_of(head: BrainCase) -> dict[str, NDArray[np.floating]]:
    return dict(zip(NAMES, np.moveaxis(head.scene.fractions(), -1, 0), strict=True))


@pytest.fixture(scope="module")
def ideal() -> BrainCase:
    return brain_case(0, size=192, ideal=True)  # fine enough for pure voxels of dura


@pytest.fixture(scope="module")
def shares(ideal: BrainCase) -> dict[str, NDArray[np.floating]]:
    return fractions_of(ideal)


def test_every_tissue_is_painted(shares: dict[str, NDArray[np.floating]]) -> None:
    assert {name for name, share in shares.items() if (share > 0.999).sum() >= 5} == set(NAMES)
    np.testing.assert_allclose(sum(shares.values()), 1, atol=1e-5)


@pytest.mark.parametrize("contrast", CONTRASTS[:-1])
def test_pure_voxels_show_gain_times_the_signal_equation(
    ideal: BrainCase, shares: dict[str, NDArray[np.floating]], contrast: str
) -> None:
    """Within 1 grey level for each tissue; every other voxel is the mixture of the signed signals."""
    image, values = ideal.magnetic_resonance(contrast), ideal.signals(contrast)
    gain = ideal.scanner.contrasts[contrast].gain / values["white"]
    mixture = np.zeros(image.shape)
    for name, share in shares.items():
        pure = share > 1 - 1e-6
        assert pure.any()
        assert np.abs(image[pure] - abs(gain * values[name])).max() <= 1, name
        mixture += share * values[name]
    assert np.abs(image - np.abs(gain * mixture)).max() <= 1


def test_water_reads_zero_and_air_minus_thousand() -> None:
    """A tissue turned to water for the test; noise off. The head rest reads 120 and lies outside of the head."""
    head = brain_case(0, ideal=True)
    head.scanner.tissues["white"] = replace(head.scanner.tissues["white"], hu=0.0)
    image, shares = head.computed_tomography(), fractions_of(head)
    assert (image[shares["white"] > 1 - 1e-6] == 0).all()
    air = shares["air"] == 1
    rest = air & (image != -1000)
    assert 0.002 < rest.mean() < 0.05
    assert image[rest].max() <= 120
    assert (head.cranium.outline[rest] > 0).all()


def test_noise_of_computed_tomography_leaves_the_mean() -> None:
    """Mean of white matter within 3 standard errors; neighbors are correlated, as if 4.07 times fewer."""
    head = brain_case(1, Shown())
    exact = brain_case(1, Shown(), ideal=True).computed_tomography().astype(float)
    noise = head.computed_tomography() - exact
    white = fractions_of(head)["white"] > 1 - 1e-6
    sigma = head.scanner.ct_noise_hu
    assert noise[white].std() == pytest.approx(sigma, rel=0.05)
    assert abs(noise[white].mean()) < 3 * sigma * np.sqrt(4.07 / white.sum())
    outside = head.cranium.outline > 10
    assert noise[outside & (exact == -1000)].std() == pytest.approx(0.6 * sigma, rel=0.08)


def test_noise_of_computed_tomography_is_correlated_within_a_slice_only() -> None:
    """Neighbors of white noise blurred by 0.6 px correlate by .445 (sampled kernel); slices do not."""
    flat = np.zeros((200, 200, 12))
    noise = noisy(flat, flat - 1, 7.0, Stream(0, "brain", 0, 2))
    assert noise.std() == pytest.approx(7, rel=0.01)
    for axis, expected in ((0, 0.445), (1, 0.445), (2, 0.0)):
        a, b = np.moveaxis(noise, axis, 0)[:-1], np.moveaxis(noise, axis, 0)[1:]
        assert np.mean(a * b) / 49 == pytest.approx(expected, abs=0.015)


def test_air_of_the_magnetic_resonance_image_follows_rayleigh() -> None:
    """sqrt(mean(x^2) / 2) = sigma = gain / SNR before rounding, and the whole distribution."""
    head = brain_case(0, Shown())
    air = head.magnitude("t1n")[fractions_of(head)["air"] == 1]
    scanner = head.scanner.contrasts["t1n"]
    sigma = scanner.gain / scanner.snr
    assert air.size > 10_000
    assert np.sqrt(np.mean(air**2) / 2) == pytest.approx(sigma, rel=0.02)
    assert stats.kstest(air, stats.rayleigh(scale=sigma).cdf).statistic < 0.02


def test_noise_is_renewed_in_every_contrast_visit_and_copy() -> None:
    streams = [noise_stream(0, 0, name) for name in CONTRASTS]
    streams += [noise_stream(0, 0, "t1n", visit=1), noise_stream(0, 0, "t1n", copy=1), noise_stream(0, 1, "t1n")]
    correlation = np.corrcoef([stream.normals(10_000) for stream in streams]) - np.eye(len(streams))
    assert np.abs(correlation).max() < 0.06


def ratios(head: BrainCase, contrast: str) -> dict[str, float]:
    """Median of every tissue of the brain over that of white matter."""
    image, mask = head.magnetic_resonance(contrast), head.brain_mask()
    pure = {name: (share > 0.9) & mask for name, share in fractions_of(head).items()}
    medians = {name: float(np.median(image[where])) for name, where in pure.items() if where.any()}
    return {name: value / medians["white"] for name, value in medians.items()}


@pytest.mark.parametrize("case", [0, 1, *(pytest.param(k, marks=pytest.mark.slow) for k in range(2, 12))])
def test_tissues_stand_out_as_they_should(case: int) -> None:
    """Medians in the noisy, biased image, over that of white matter."""
    head = brain_case(case, Shown(glioma=True))
    t1n, t1c, t2w, t2f = (ratios(head, contrast) for contrast in ("t1n", "t1c", "t2w", "t2f"))
    assert 1 > t1n["cortex"] > t1n["csf"]
    assert t2w["csf"] > t2w["cortex"] > 1
    assert t2f["edema"] > t2f["cortex"] > 1 > t2f["csf"]
    assert t1c["enhancing"] > 1.3 * t1n["enhancing"]
    dwi = ratios(brain_case(case, Shown(stroke=True, chronic=True)), "dwi")
    assert dwi["stroke"] > 1.3 * dwi["cortex"]


def test_bias_and_gain_differ_between_contrasts_and_visits() -> None:
    """The same tissue has other grey levels in every scan: nobody may rely on absolute values."""
    visits = [BrainCase(0, 0, Grid(64, 224.0, 32), Shown(), visit=visit) for visit in (0, 1)]
    gains = {scan.gain for case in visits for scan in case.scanner.contrasts.values()}
    assert len(gains) == 2 * (len(CONTRASTS) - 1)
    assert max(gains) / min(gains) > 2
    assert visits[0].parameters == visits[1].parameters


def test_an_unknown_contrast_is_refused() -> None:
    with pytest.raises(ValueError, match="contrast 'swi' is not one of t1n, t1c"):
        brain_case(0, Shown(), size=64).magnetic_resonance("swi")


def test_the_bias_field_is_all_that_a_corrected_image_lacks() -> None:
    """The two images differ by exp(strength times field), where noise is small; without it white matter is even."""
    options = {"seed": 0, "case": 3, "grid": Grid(64, 224.0, 32), "shown": Shown()}
    biased, corrected = BrainCase(**options), BrainCase(**options, bias_field=False)
    images = [head.magnitude("t2f") for head in (biased, corrected)]
    white = fractions_of(biased)["white"] > 0.999
    field = biased.head.whole.field(biased._bias["t2f"])[white]
    strength = biased.scanner.contrasts["t2f"].bias
    log_ratio = np.log(images[0][white] / images[1][white])
    assert np.corrcoef(log_ratio, field)[0, 1] > 0.98
    assert np.polyfit(field, log_ratio, 1)[0] == pytest.approx(strength, rel=0.05)
    spread = [np.std(np.log(image[white])) for image in images]
    assert spread[1] < 0.05 < spread[0]
