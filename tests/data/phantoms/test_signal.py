"""Signal equations and noise against closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from common.data.phantoms.signal import TISSUES_1T5, Tissue, bssfp, bssfp_on_resonance, coil_sensitivity, rician
from common.data.phantoms.streams import Stream


@pytest.mark.parametrize("name", sorted(TISSUES_1T5))
def test_bssfp_general_form_equals_the_short_form_on_resonance(name: str) -> None:
    tissue = TISSUES_1T5[name]
    assert float(bssfp(tissue, 0.0)) == pytest.approx(bssfp_on_resonance(tissue), abs=1e-10)


def test_bssfp_is_the_fixed_point_of_the_bloch_equations() -> None:
    """Independent oracle: iterate rotation, precession and relaxation to the steady state."""
    tissue = Tissue(t1=300.0, t2=60.0, pd=0.8)
    e1, e2 = math.exp(-3.2 / tissue.t1), math.exp(-3.2 / tissue.t2)
    a = math.radians(60)
    pulse = np.array([[1, 0, 0], [0, math.cos(a), math.sin(a)], [0, -math.sin(a), math.cos(a)]])
    for off in (0.0, 40.0, 120.0):
        p = math.pi + 2 * math.pi * off * 3.2e-3  # alternating pulses: half a turn per repetition
        turn = np.array([[math.cos(p), math.sin(p), 0], [-math.sin(p), math.cos(p), 0], [0, 0, 1]])
        relax = np.diag([e2, e2, e1])
        step = relax @ turn @ pulse
        after = pulse @ np.linalg.solve(np.eye(3) - step, np.array([0, 0, 1 - e1]))  # steady state after the pulse
        expected = tissue.pd * math.hypot(after[0], after[1]) * math.exp(-1.6 / tissue.t2)
        assert float(bssfp(tissue, off)) == pytest.approx(expected, rel=1e-9)


def test_bssfp_limit_of_short_repetition_time() -> None:
    """For TR << T2: ``PD sin a / ((T1/T2)(1 - cos a) + 1 + cos a)``."""
    tissue = Tissue(t1=1e6, t2=2e5, pd=1.0)
    expected = math.sin(math.radians(60)) / (5 * 0.5 + 1.5)
    assert bssfp_on_resonance(tissue) == pytest.approx(expected, rel=1e-4)


def test_first_dark_band_lies_at_half_the_inverse_repetition_time() -> None:
    off = np.linspace(0, 200, 2001)
    dark = off[np.argmin(bssfp(TISSUES_1T5["blood"], off))]
    assert dark == pytest.approx(1000 / (2 * 3.2), abs=0.1)


def test_tissue_contrast_of_the_heart() -> None:
    """Blood : myocardium 4.3, fat bright, lung and pericardium dark."""
    relative = {k: bssfp_on_resonance(t) / bssfp_on_resonance(TISSUES_1T5["blood"]) for k, t in TISSUES_1T5.items()}
    table = {"myocardium": 0.23, "muscle": 0.26, "fat": 0.85, "liver": 0.40, "spleen": 0.44, "marrow": 0.21}
    for name, value in {**table, "stomach": 0.35, "lung": 0.03}.items():
        assert relative[name] == pytest.approx(value, abs=0.01), name
    assert relative["fibrous"] < 0.02


def test_coil_falls_off_from_the_anterior_chest_wall() -> None:
    x, y = np.array([-110.0, -80.0, 60.0]), np.array([-70.0, -20.0, -90.0])
    at_coil, near, far = coil_sensitivity(x, y)
    assert at_coil == pytest.approx(0.62 + 0.95 + 0.25 * np.exp(-3.800), abs=1e-3)
    assert near > 1.5 * far


def test_noise_of_air_follows_rayleigh() -> None:
    """``E[x^2] = 2 sigma^2`` and the whole distribution."""
    noise = Stream(0, "cardiac", 0, 2).normals(2, 200_000)
    air = rician(np.zeros(200_000), 3.0, noise)
    assert np.sqrt(np.mean(air**2) / 2) == pytest.approx(3.0, rel=0.01)
    assert stats.kstest(air, stats.rayleigh(scale=3.0).cdf).statistic < 0.005


def test_noise_of_bright_tissue_is_gaussian() -> None:
    """Far above sigma: mean ``s + sigma^2 / (2 s)``, standard deviation sigma."""
    noise = Stream(0, "cardiac", 1, 2).normals(2, 200_000)
    bright = rician(np.full(200_000, 100.0), 3.0, noise)
    assert bright.mean() == pytest.approx(100 + 9 / 200, abs=0.03)
    assert bright.std() == pytest.approx(3.0, rel=0.01)
