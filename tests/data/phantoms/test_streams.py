"""Random streams: reproducible, separate, and distributed as they say."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.phantoms.cardiac_parameters import anatomy_stream, draw_parameters, draw_scanner, scanner_stream
from common.data.phantoms.echo_anatomy import draw_parameters as draw_echo_parameters
from common.data.phantoms.streams import ANATOMY, NOISE, SCANNER, Stream

DRAWN = json.loads((Path(__file__).parent / "drawn_scalars.json").read_text())


def same_draws(found: dict[str, Any], stored: dict[str, Any], rel: float) -> None:
    assert found.keys() == stored.keys()
    for key, value in stored.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=rel, abs=0)), key


@pytest.mark.parametrize("case", [0, 1, 2])
def test_drawn_scalars_of_the_recipe_never_change(case: int) -> None:
    """Every drawn number equals the stored one to 15 digits (libm's cos, exp may differ in the last bit)."""
    stored = DRAWN["cardiac"][case]
    same_draws(asdict(draw_parameters(anatomy_stream(0, case), case)), stored["parameters"], rel=1e-15)
    same_draws(asdict(draw_scanner(scanner_stream(0, case))), stored["scanner"], rel=1e-14)
    echo = asdict(draw_echo_parameters(Stream(0, "echo", case, ANATOMY)))
    same_draws(echo, DRAWN["echo"][case]["parameters"], rel=1e-15)


def test_uniform_doubles_are_those_of_pcg64() -> None:
    """The stream is numpy's PCG64 seeded by [seed, kind, case, child], of which only random() is called."""
    oracle = np.random.Generator(np.random.PCG64(np.random.SeedSequence([7, 1, 3, SCANNER])))
    np.testing.assert_array_equal(Stream(7, "cardiac", 3, SCANNER).uniforms(5, 2), oracle.random((5, 2)))


def test_streams_of_other_seed_kind_case_or_child_are_unrelated() -> None:
    """No two of them share a draw, and their correlation is that of independent numbers."""
    keys = [(0, "cardiac", 0, NOISE), (1, "cardiac", 0, NOISE), (0, "echo", 0, NOISE), (0, "cardiac", 1, NOISE)]
    draws = [Stream(*key).normals(20_000) for key in keys]
    draws += [Stream(0, "cardiac", 0, NOISE, frame).normals(20_000) for frame in (0, 1)]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_distributions() -> None:
    """Uniform, log-uniform and integer draws cover their range; normal draws have the moments of N(0, 1)."""
    stream = Stream(0, "cardiac", 0, ANATOMY)
    uniform = np.array([stream.uniform(-3, 5) for _ in range(4000)])
    logarithm = np.log([stream.log_uniform(100, 900) for _ in range(4000)])
    integer = np.array([stream.integer(4) for _ in range(4000)])
    assert uniform.min() >= -3
    assert uniform.max() < 5
    assert uniform.mean() == pytest.approx(1, abs=4 * 8 / np.sqrt(12 * 4000))
    assert logarithm.mean() == pytest.approx(0.5 * (np.log(100) + np.log(900)), abs=4 * np.log(9) / np.sqrt(12 * 4000))
    assert np.bincount(integer).tolist() == pytest.approx([1000] * 4, abs=4 * np.sqrt(750))
    normal = stream.normals(100_000)
    moments = [np.mean(normal**k) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.12)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        Stream(seed, "cardiac", 0, ANATOMY)
