"""The picture of reconstructions: the right images, each beside what became of it and by how much it is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from PIL import Image
from torch import Tensor

from common.handlers.reconstruction_grid import ReconstructionGrid

GAP, WIDTH, HEIGHT = 2, 6, 4


def level(values: Tensor) -> Tensor:
    """One flat image a value."""
    return values.reshape(-1, 1, 1, 1).expand(-1, 1, WIDTH, HEIGHT)


def evaluate(grid: ReconstructionGrid, output: dict[str, Tensor], batches: list[list[int]]) -> None:
    def step(engine: Engine, index: list[int]) -> None:
        engine.state.batch = {"index": torch.tensor(index)}
        engine.state.output = {key: image[index] for key, image in output.items()}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    grid.attach(engine)
    engine.run(batches, max_epochs=1)


def tiles(path: Path, rows: int, columns: int) -> np.ndarray:
    """Color in the middle of each tile, (rows, columns, 3)."""
    picture = np.asarray(Image.open(path))
    assert picture.shape == (rows * (HEIGHT + GAP) + GAP, columns * (WIDTH + GAP) + GAP, 3)
    return picture[GAP + 1 :: HEIGHT + GAP, GAP + 1 :: WIDTH + GAP][:rows, :columns]


@pytest.fixture
def output() -> dict[str, Tensor]:
    """Ten images, the darkest first; the error of number i is i / 36."""
    number = torch.arange(10.0)
    return {"label": level(number / 10), "pred": level(number / 10 - number / 36)}


def test_each_image_stands_before_its_reconstruction_and_their_difference(
    tmp_path: Path, output: dict[str, Tensor]
) -> None:
    grid = ReconstructionGrid(tmp_path, total=10, name="grid_{epoch}.png", number=4, scale=1)
    evaluate(grid, output, [[9, 1, 0, 5], [6, 3, 2], [7, 8, 4]])  # in any order
    shown = tiles(tmp_path / "grid_1.png", rows=2, columns=9)
    triples = [*np.split(shown[0], 3), shown[1, :3]]
    # errors of 0, 1/3, 2/3 and 1 of a quarter: black, red, yellow, white
    heat = [(0, 0, 0), (255, 0, 0), (255, 255, 0), (255, 255, 255)]
    for triple, number, color in zip(triples, (0, 3, 6, 9), heat, strict=True):
        greys = [255 * number / 10, 255 * (number / 10 - number / 36)]
        np.testing.assert_allclose(triple, [[greys[0]] * 3, [greys[1]] * 3, color], atol=1)
    assert (shown[1, 3:] == 96).all()  # nothing there


def test_errors_have_no_sign(tmp_path: Path) -> None:
    output = {"label": level(torch.tensor([0.5, 0.5])), "pred": level(torch.tensor([0.5 - 1 / 12, 0.5 + 1 / 12]))}
    evaluate(ReconstructionGrid(tmp_path, total=2, name="grid.png", scale=1), output, [[0, 1]])
    np.testing.assert_allclose(tiles(tmp_path / "grid.png", 1, 6)[0, [2, 5]], [[255, 0, 0]] * 2, atol=1)


def test_a_reconstruction_beyond_the_range_counts_as_its_end(tmp_path: Path) -> None:
    """What an autoencoder gives while it trains is not clipped."""
    output = {"label": level(torch.tensor([0.0, 1.0])), "pred": level(torch.tensor([-0.4, 1.3]))}
    evaluate(ReconstructionGrid(tmp_path, total=2, name="grid.png", scale=1), output, [[0, 1]])
    assert tiles(tmp_path / "grid.png", 1, 6)[0, :, 0].tolist() == [0, 0, 0, 255, 255, 0]


def test_the_first_axis_runs_to_the_right_in_all_three(tmp_path: Path) -> None:
    label = level(torch.tensor([0.0])).clone()
    pred = label.clone()
    label[..., 4, 1], pred[..., 5, 3] = 1.0, 1.0
    evaluate(ReconstructionGrid(tmp_path, total=1, name="grid.png"), {"label": label, "pred": pred}, [[0]])
    picture = np.asarray(Image.open(tmp_path / "grid.png"))[::2, ::2, 2]  # drawn at twice the size
    panels = [picture[GAP : GAP + HEIGHT, GAP + n * (WIDTH + GAP) :][:, :WIDTH] for n in range(3)]
    white = [[(x, y) for y, x in np.argwhere(panel == 255).tolist()] for panel in panels]
    assert white == [[(4, 1)], [(5, 3)], [(4, 1), (5, 3)]]


def test_a_small_set_is_shown_whole(tmp_path: Path, output: dict[str, Tensor]) -> None:
    evaluate(ReconstructionGrid(tmp_path, total=2, name="all.png", scale=1), output, [[1], [0]])
    assert tiles(tmp_path / "all.png", 1, 6)[0, ::3, 0].tolist() == [0, 26]


@pytest.mark.parametrize("sizes", [{"total": 0}, {"total": 3, "number": 0}])
def test_a_grid_of_nothing_is_refused(tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        ReconstructionGrid(tmp_path, **sizes)
