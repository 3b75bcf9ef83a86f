"""The picture of translated slices shows the right slices, each image in its place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from PIL import Image
from torch import Tensor

from common.handlers.translation_grid import TranslationGrid

GAP, WIDTH, HEIGHT = 2, 6, 4


def level(values: Tensor) -> Tensor:
    """One flat image in [-1, 1] a value in [0, 1]."""
    return (2 * values - 1).reshape(-1, 1, 1, 1).expand(-1, 1, WIDTH, HEIGHT)


def evaluate(grid: TranslationGrid, images: dict[str, Tensor], batches: list[list[int]]) -> None:
    def step(engine: Engine, index: list[int]) -> None:
        engine.state.batch = {"index": torch.tensor(index)}
        engine.state.output = {key: image[index] for key, image in images.items()}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    grid.attach(engine)
    engine.run(batches, max_epochs=1)


def tiles(path: Path, rows: int) -> np.ndarray:
    """Color in the middle of each tile, (rows, 4, 3)."""
    picture = np.asarray(Image.open(path))
    assert picture.shape == (rows * (HEIGHT + GAP) + GAP, 4 * (WIDTH + GAP) + GAP, 3)
    return picture[GAP + 1 :: HEIGHT + GAP, GAP + 1 :: WIDTH + GAP][:rows, :4]


@pytest.fixture
def images() -> dict[str, Tensor]:
    """Ten slices; the error of slice i is i / 10 of the range."""
    number = torch.arange(10) / 10
    return {"image": level(number), "pred": level(1 - number), "label": level(torch.ones(10))}


def test_each_row_is_source_prediction_target_and_error(tmp_path: Path, images: dict[str, Tensor]) -> None:
    grid = TranslationGrid(tmp_path, total=10, name="grid_{epoch}.png", number=4)
    evaluate(grid, images, [[9, 1, 0, 5], [6, 3, 2], [7, 8, 4]])  # in any order
    shown = tiles(tmp_path / "grid_1.png", rows=4)
    for row, number in zip(shown, (0, 3, 6, 9), strict=True):
        greys = [round(255 * value) for value in (number / 10, 1 - number / 10, 1.0)]
        assert [row[column].tolist() for column in range(3)] == [pytest.approx([grey] * 3, abs=1) for grey in greys]
    # errors of 0, 0.3, 0.6 and 0.9 on a scale that ends at 0.5: black, three fifths of the way, white, white
    errors = [[0, 0, 0], [255, round(255 * 0.8), 0], [255] * 3, [255] * 3]
    assert [row[3].tolist() for row in shown] == [pytest.approx(color, abs=1) for color in errors]


def test_values_beyond_the_range_count_as_its_ends(tmp_path: Path) -> None:
    far = {
        "image": level(torch.tensor([-3.0])),
        "pred": level(torch.tensor([4.0])),
        "label": level(torch.tensor([1.0])),
    }
    evaluate(TranslationGrid(tmp_path, total=1, name="grid.png"), far, [[0]])
    assert tiles(tmp_path / "grid.png", rows=1)[0].tolist() == [[0] * 3, [255] * 3, [255] * 3, [0] * 3]


def test_small_sets_are_shown_whole_and_batches_without_a_chosen_slice_are_no_trouble(
    tmp_path: Path, images: dict[str, Tensor]
) -> None:
    evaluate(TranslationGrid(tmp_path, total=3, name="all.png"), images, [[0, 1], [2]])
    assert tiles(tmp_path / "all.png", rows=3)[:, 1, 0].tolist() == [255, 230, 204]
    evaluate(TranslationGrid(tmp_path, total=10, name="ends.png", number=2), images, [[0, 1], [2, 3, 4], [9]])
    assert tiles(tmp_path / "ends.png", rows=2)[:, 1, 0].tolist() == [255, 26]


def test_tensorboard_gets_the_picture(tmp_path: Path, images: dict[str, Tensor]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    evaluate(TranslationGrid(tmp_path, 10, log_dir=tmp_path / "log"), images, [list(range(10))])
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    (event,) = events.Images("translations")
    assert (event.width, event.height) == (4 * (WIDTH + GAP) + GAP, 8 * (HEIGHT + GAP) + GAP)
    assert (tmp_path / "translations_000001.png").exists()


def test_a_grid_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="total=0"):
        TranslationGrid(tmp_path, total=0)


def test_the_nose_is_up_and_the_patients_left_at_the_right(tmp_path: Path) -> None:
    marked = torch.full((1, 1, WIDTH, HEIGHT), -1.0)
    marked[0, 0, 0, -1] = 1.0  # of a volume in RAS: the patient's left end, front
    evaluate(
        TranslationGrid(tmp_path, total=1, name="grid.png"), dict.fromkeys(("image", "pred", "label"), marked), [[0]]
    )
    picture = np.asarray(Image.open(tmp_path / "grid.png"))[..., 0]
    assert picture[GAP, GAP + WIDTH - 1] == 255
    assert (picture[GAP : GAP + HEIGHT, GAP : GAP + WIDTH] == 255).sum() == 1
