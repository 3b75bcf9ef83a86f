"""The picture of painted slices: label map, painting and real slice of the first samples, in this order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from PIL import Image
from torch import Tensor

from common.handlers.label_overlay import class_color
from common.handlers.synthesis_grid import SynthesisGrid

GAP, WIDTH, HEIGHT = 2, 7, 5


def evaluate(grid: SynthesisGrid, output: dict[str, Tensor], batches: list[list[int]]) -> None:
    def step(engine: Engine, index: list[int]) -> None:
        engine.state.batch = {"index": torch.tensor(index)}
        engine.state.output = {key: image[index] for key, image in output.items()}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    grid.attach(engine)
    engine.run(batches, max_epochs=1)


def tiles(path: Path, rows: int, columns: int) -> np.ndarray:
    """The tiles, (rows, columns, HEIGHT, WIDTH, 3)."""
    picture = np.asarray(Image.open(path))
    assert picture.shape == (rows * (HEIGHT + GAP) + GAP, columns * (WIDTH + GAP) + GAP, 3)
    tops, lefts = (range(GAP, count * (side + GAP), side + GAP) for count, side in ((rows, HEIGHT), (columns, WIDTH)))
    return np.array([[picture[top : top + HEIGHT, left : left + WIDTH] for left in lefts] for top in tops])


def level(values: Tensor) -> Tensor:
    """One flat image a value."""
    return values.reshape(-1, 1, 1, 1).expand(-1, 1, WIDTH, HEIGHT)


@pytest.fixture
def output() -> dict[str, Tensor]:
    """Ten samples; the label map of sample i is of class i mod 4 all over."""
    number = torch.arange(10)
    return {"image": level(number % 4).float(), "pred": level(number / 10), "label": level(1 - number / 10)}


def test_the_first_samples_are_shown_in_the_order_of_their_numbers(tmp_path: Path, output: dict[str, Tensor]) -> None:
    grid = SynthesisGrid(tmp_path, name="grid_{epoch}.png", number=6, scale=1)
    evaluate(grid, output, [[9, 1, 0, 5], [6, 3, 2], [7, 8, 4]])
    shown = tiles(tmp_path / "grid_1.png", rows=2, columns=12)
    assert (shown == shown[:, :, :1, :1]).all()  # each of one color
    triples = [*np.split(shown[0, :, 0, 0], 4), *np.split(shown[1, :6, 0, 0], 2)]
    for number, triple in enumerate(triples):
        label = 0.8 * np.array(class_color(number % 4)) if number % 4 else np.zeros(3)
        greys = [[number / 10] * 3, [1 - number / 10] * 3]
        np.testing.assert_allclose(triple, 255 * np.array([label, *greys]), atol=1)
    assert (shown[1, 6:] == 96).all()  # nothing there


def test_a_structure_has_a_bright_outline_and_lies_where_it_is_in_the_images(tmp_path: Path) -> None:
    label = torch.zeros(1, 1, WIDTH, HEIGHT)
    label[..., 2:5, 1:4] = 2  # of x = 2..4, y = 1..3; the middle is inside
    image = label / 2
    evaluate(SynthesisGrid(tmp_path, name="a.png", scale=1), {"image": label, "pred": image, "label": image}, [[0]])
    drawn, painted, real = tiles(tmp_path / "a.png", 1, 3)[0]
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    inside[1:4, 2:5] = True
    color = 255 * np.array(class_color(2))
    expected = np.where(inside[..., None], color, 0)
    expected[2, 3] = 0.8 * color
    np.testing.assert_allclose(drawn, expected, atol=1)
    assert np.array_equal(painted, 255 * inside[..., None].repeat(3, axis=2))
    assert np.array_equal(real, painted)


def test_values_beyond_the_range_count_as_its_ends(tmp_path: Path) -> None:
    output = {"image": level(torch.zeros(1)), "pred": level(torch.tensor([-2.0])), "label": level(torch.tensor([3.0]))}
    evaluate(SynthesisGrid(tmp_path, name="a.png", scale=1), output, [[0]])
    assert tiles(tmp_path / "a.png", 1, 3)[0, :, 0, 0].tolist() == [[0] * 3, [0] * 3, [255] * 3]


def test_an_evaluation_of_fewer_samples_shows_them_all(tmp_path: Path, output: dict[str, Tensor]) -> None:
    """Also if a batch has none of the first ones; at twice the size by default."""
    evaluate(SynthesisGrid(tmp_path), output, [[0, 1], [2]])
    shape = np.asarray(Image.open(tmp_path / "samples_000001.png")).shape
    assert shape == (2 * (HEIGHT + 2 * GAP), 2 * (9 * (WIDTH + GAP) + GAP), 3)
    evaluate(SynthesisGrid(tmp_path, name="one.png", number=1, scale=1), output, [[3, 2], [1, 0]])
    assert tiles(tmp_path / "one.png", 1, 3)[0, 1, 0, 0].tolist() == [0] * 3
