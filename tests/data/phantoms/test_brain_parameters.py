"""Drawn scalars of heads: the stored ones, their ranges, and what depends on what."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.phantoms.brain_image import BrainCase
from common.data.phantoms.brain_lesions import Shown
from common.data.phantoms.brain_parameters import anatomy_stream, draw_parameters, draw_scanner, scanner_stream
from common.data.phantoms.brain_space import Grid
from common.data.phantoms.brain_tissues import NAMES, TISSUES_3T

STORED = json.loads((Path(__file__).parent / "drawn_brain_scalars.json").read_text())


def leaves(value: Any, name: str = "") -> dict[str, float]:
    """All numbers in nested dictionaries and sequences by their path."""
    if isinstance(value, dict):
        parts = [leaves(item, f"{name}.{key}") for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [leaves(item, f"{name}[{index}]") for index, item in enumerate(value)]
    else:
        return {name: value}
    return {key: number for part in parts for key, number in part.items()}


@pytest.mark.parametrize("case", [0, 1, 2])
def test_drawn_scalars_of_the_recipe_never_change(case: int) -> None:
    """Anatomy, scanner of the first and of the second visit; libm's exp may differ in the last bit."""
    parameters = draw_parameters(anatomy_stream(0, case))
    found = [asdict(parameters)]
    found += [asdict(draw_scanner(scanner_stream(0, case, visit), parameters.stroke_adc)) for visit in (0, 1)]
    for mine, stored in zip(found, STORED["brain"][case], strict=True):
        mine, stored = leaves(mine), leaves(stored)
        assert mine.keys() == stored.keys()
        for key, value in stored.items():
            assert mine[key] == pytest.approx(value, rel=1e-14, abs=0), key


def test_label_volumes_of_the_first_case_never_change() -> None:
    labels = BrainCase(0, 0, Grid(96, 224.0, 32), Shown(glioma=True)).labels()
    counts = {name: int((labels == index).sum()) for index, name in enumerate(NAMES)}
    assert counts == {name: pytest.approx(value, rel=1e-3, abs=2) for name, value in STORED["label_voxels"].items()}


def test_draws_stay_in_their_ranges_and_fill_them() -> None:
    heads = [draw_parameters(anatomy_stream(0, case)) for case in range(300)]
    for name, low, high in (("pitch", -5, 5), ("ventricles", 0.75, 1.6), ("fat_mm", 2, 6), ("stroke_adc", 0.55, 0.75)):
        values = np.array([getattr(head, name) for head in heads])
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    sides = np.array([np.sign(head.glioma.center[0]) for head in heads])
    assert 0.4 < (sides > 0).mean() < 0.6
    assert 0.18 < np.mean([len(head.wedges) == 2 for head in heads]) < 0.32


def test_patients_have_tissues_of_their_own() -> None:
    """T1 and T2 within 4 %, ADC within 5 %; of an acute stroke 25-45 % lower still."""
    for case in range(40):
        tissues = draw_scanner(scanner_stream(0, case), 0.6).tissues
        for name, tissue in tissues.items():
            table = TISSUES_3T[name]
            assert abs(tissue.t1 / table.t1 - 1) <= 0.04
            assert abs(tissue.t2 / table.t2 - 1) <= 0.04
            assert tissue.pd == table.pd
            assert tissue.hu == table.hu
        assert abs(tissues["stroke"].adc / (0.6 * TISSUES_3T["stroke"].adc) - 1) <= 0.05


def test_visits_share_the_anatomy_stream_and_nothing_else() -> None:
    draws = [draw_scanner(scanner_stream(0, 0, visit), 0.6) for visit in (0, 1)]
    assert draws[0].agent_mm != draws[1].agent_mm
    assert draws[0].contrasts["t1n"] != draws[1].contrasts["t1n"]
