"""Embeddings of time and of position."""

import math

import pytest
import torch

from common.networks.blocks.positions import fixed_positions, sincos_positions
from common.networks.blocks.timestep_embedding import TimestepEmbedding, sinusoidal_embedding


def test_sinusoids_are_those_of_ddpm_at_999_t() -> None:
    t = torch.tensor([0.0, 0.25, 1.0])
    embedding = sinusoidal_embedding(t, 8)
    for row, time in zip(embedding.tolist(), t.tolist(), strict=True):
        angles = [999 * time * 10000 ** (-i / 4) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row == pytest.approx(expected, abs=2e-4)  # float32 angles up to 999


def test_time_embedding_without_mlp_is_the_sinusoid_itself() -> None:
    t = torch.rand(3)
    layer = TimestepEmbedding(16, mlp=False)
    assert not list(layer.parameters())
    torch.testing.assert_close(layer(t), sinusoidal_embedding(t, 16))


def test_odd_width_of_sinusoids_is_refused() -> None:
    with pytest.raises(ValueError, match="dim=7 must be even"):
        sinusoidal_embedding(torch.rand(1), 7)


def test_positions_follow_their_formula_on_an_oblong_grid() -> None:
    grid, dim = (2, 3), 8
    positions = sincos_positions(grid, dim).view(*grid, dim)
    y, x = 1, 2
    w = [1.5 * 12.0 ** (-i / 2) for i in range(2)]  # G = 3, dim / 4 = 2
    expected = [f(p * w_i) * math.sqrt(2) for p in (y, x) for f in (math.sin, math.cos) for w_i in w]
    assert positions[y, x].tolist() == pytest.approx(expected, abs=1e-6)


def test_every_position_has_root_mean_square_one() -> None:
    positions = sincos_positions((6, 6), 128)
    torch.testing.assert_close(positions.square().mean(dim=1), torch.ones(36))


def test_positions_are_distinct_and_neighbors_alike() -> None:
    grid = sincos_positions((6, 6), 128).view(6, 6, 128)
    neighbor, far = (grid[0, 0] * grid[0, 1]).mean(), (grid[0, 0] * grid[5, 5]).mean()
    assert neighbor > 0.8
    assert far < neighbor - 0.2
    distances = torch.cdist(grid.flatten(0, 1), grid.flatten(0, 1)) + 99 * torch.eye(36)
    assert distances.min() > 1


def test_positions_need_a_width_of_whole_quarters() -> None:
    with pytest.raises(ValueError, match="dim=10 must be a multiple of 4"):
        sincos_positions((2, 2), 10)


def test_fixed_positions_follow_their_formula_on_an_oblong_grid() -> None:
    """Column before row, wave lengths from 2 pi to 10000 times as much."""
    grid, dim = (2, 3), 512
    positions = fixed_positions(grid, dim)
    assert positions.shape == (6, 512)
    i, j = 1, 2
    w = [10000 ** (-k / 128) for k in range(128)]
    expected = [f(p * w_k) for p in (j, i) for f in (math.sin, math.cos) for w_k in w]
    assert positions[i * 3 + j].tolist() == pytest.approx(expected, abs=1e-6)


def test_fixed_positions_need_a_width_of_whole_quarters() -> None:
    with pytest.raises(ValueError, match="dim=10 must be a multiple of 4"):
        fixed_positions((2, 2), 10)
