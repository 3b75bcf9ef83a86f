"""The cardiac cycle."""

import numpy as np
import pytest

from common.data.phantoms.cycle import contraction


@pytest.mark.parametrize("es_phase", [0.33, 0.42])
@pytest.mark.parametrize("num_frames", [12, 50])
def test_cycle_starts_relaxed_and_is_fully_contracted_once(es_phase: float, num_frames: int) -> None:
    """0 at end-diastole, 1 at the frame nearest to end-systole, monotone in between and after, closed at the end."""
    s = contraction(np.arange(num_frames) / num_frames, es_phase)
    es = int(s.argmax())
    assert s[0] == 0
    assert s[es] == 1
    assert abs(es / num_frames - es_phase) <= 0.5 / num_frames + 0.02
    assert (np.diff(s[: es + 1]) > 0).all()
    assert (np.diff(s[es:]) <= 1e-12).all()


def test_filling_happens_in_two_waves() -> None:
    """72 % early, a plateau until phase .72, then the atrial kick."""
    s = contraction(np.linspace(0, 0.999, 1000), 0.35)
    assert s[720] == pytest.approx(0.28, abs=0.005)
    assert s[650] == pytest.approx(0.28, abs=0.005)
    assert s[985] == pytest.approx(0, abs=1e-9)
