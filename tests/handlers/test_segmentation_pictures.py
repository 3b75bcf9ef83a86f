"""Pictures of segmentations: classes in their colors, outlines where classes meet, the right slices in their places."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from PIL import Image
from torch import Tensor

from common.handlers.label_overlay import CLASS_COLORS, class_color, label_overlay, outlines
from common.handlers.segmentation_figure import draw_examples, example_slices
from common.handlers.segmentation_grid import SegmentationGrid

GAP, WIDTH, HEIGHT = 2, 7, 5


def test_outlines_are_both_sides_of_a_border() -> None:
    labels = torch.zeros(1, 1, 6, 6)
    labels[..., 2:5, 2:5] = 1
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[2:5, 1:6] = expected[1:6, 2:5] = True
    expected[3, 3] = False
    assert torch.equal(outlines(labels)[0, 0], expected)


def test_a_class_shows_its_color_whole_on_its_outline_and_partly_inside() -> None:
    image, labels = torch.full((1, 1, 5, 5), 0.5), torch.zeros(1, 1, 5, 5)
    labels[..., 1:4, 1:4] = 2
    picture = label_overlay(image, labels, opacity=0.4)[0]
    color = torch.tensor(CLASS_COLORS[1])
    torch.testing.assert_close(picture[:, 1, 1], color)
    torch.testing.assert_close(picture[:, 2, 2], 0.6 * torch.full((3,), 0.5) + 0.4 * color)
    assert picture[:, 0, 0].tolist() == [0.5] * 3


def test_colors_begin_again_after_the_last_but_never_with_the_background() -> None:
    many = len(CLASS_COLORS)
    assert class_color(many + 1) == class_color(1)
    labels = torch.tensor([many, many + 1]).reshape(2, 1, 1, 1).expand(2, 1, 3, 3)
    colors = label_overlay(torch.zeros(2, 1, 3, 3), labels, opacity=1.0)[:, :, 1, 1]
    torch.testing.assert_close(colors, torch.tensor([class_color(many), class_color(1)]))


def evaluate(grid: SegmentationGrid, images: dict[str, Tensor], batches: list[list[int]]) -> None:
    def step(engine: Engine, index: list[int]) -> None:
        state: Any = engine.state
        state.batch = {"index": torch.tensor(index)}
        state.output = {key: image[index] for key, image in images.items()}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    grid.attach(engine)
    engine.run(batches, max_epochs=1)


def slices(number: int = 10) -> dict[str, Tensor]:
    """Black, with the whole of the reference of class 1, of the prediction of class 2, but for the first: none."""
    label, pred = torch.ones(number, 1, WIDTH, HEIGHT), torch.full((number, 1, WIDTH, HEIGHT), 2)
    label[0], pred[0] = 0, 0
    image = (torch.arange(number) / 10).reshape(-1, 1, 1, 1).expand(-1, 1, WIDTH, HEIGHT)
    return {"image": image, "label": label.long(), "pred": pred.float()}


@pytest.mark.parametrize("axial", [False, True])
def test_each_slice_is_shown_as_it_is_with_its_reference_and_its_prediction(tmp_path: Path, axial: bool) -> None:
    grid = SegmentationGrid(tmp_path, total=10, name="grid_{epoch}.png", number=4, columns=2, axial=axial)
    evaluate(grid, slices(), [[9, 1, 0, 5], [6, 3, 2], [7, 8, 4]])  # in any order
    picture = np.asarray(Image.open(tmp_path / "grid_1.png")) / 255
    assert picture.shape == (2 * (HEIGHT + GAP) + GAP, 6 * (WIDTH + GAP) + GAP, 3)
    middles = picture[GAP + 2 :: HEIGHT + GAP, GAP + 3 :: WIDTH + GAP][:2, :6].reshape(4, 3, 3)
    for panels, number in zip(middles, (0, 3, 6, 9), strict=True):
        grey = np.full(3, number / 10)
        ours = [grey + 0.4 * (np.array(class_color(index)) - grey) * (number > 0) for index in (1, 2)]
        np.testing.assert_allclose(panels, [grey, *ours], atol=0.01)


def test_axial_slices_are_turned_as_radiologists_look_at_them(tmp_path: Path) -> None:
    images = slices(1)
    images["image"] = torch.zeros(1, 1, WIDTH, HEIGHT)
    images["image"][..., 0, 0] = 1.0
    for axial, corner in ((False, (GAP, GAP)), (True, (GAP + HEIGHT - 1, GAP + WIDTH - 1))):
        evaluate(SegmentationGrid(tmp_path, total=1, name="a.png", axial=axial), images, [[0]])
        picture = np.asarray(Image.open(tmp_path / "a.png"))
        assert picture[corner].tolist() == [255] * 3


def test_impossible_grids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        SegmentationGrid(tmp_path, total=0)


def volume(depth: int, labeled: range) -> tuple[Tensor, Tensor]:
    """Image and label map (1, 8, 8, depth): a square of class 1 and a pixel of class 2 in the labeled slices."""
    label = torch.zeros(1, 8, 8, depth)
    for z in labeled:
        label[0, 3:6, 3:6, z] = 1
        label[0, 0, 0, z] = 2
    return torch.rand(1, 8, 8, depth, generator=torch.Generator().manual_seed(0)), label


@pytest.mark.parametrize(
    ("depth", "labeled", "expected"),
    [(12, range(2, 11), [3, 6, 9]), (6, range(1, 5), [1, 3, 4]), (6, range(1, 3), [1, 2]), (5, range(0), [2])],
    ids=["spread", "four", "few", "none"],
)
def test_examples_are_slices_that_have_labels(depth: int, labeled: range, expected: list[int]) -> None:
    image, label = volume(depth, labeled)
    example = example_slices("a", image, label, 2 * label)
    assert list(example.numbers) == expected
    for position, number in enumerate(expected):
        np.testing.assert_allclose(example.image[position], 255 * image[0, :, :, number], atol=0.51)
        assert np.array_equal(example.label[position], label[0, :, :, number])
        assert np.array_equal(example.pred[position], 2 * label[0, :, :, number])


def test_the_figure_outlines_reference_and_prediction_side_by_side() -> None:
    image, label = volume(12, range(2, 11))
    pred = torch.where(label == 1, 0.0, label)  # class 1 missed
    figure = draw_examples([("worst", example_slices("a", image, label, pred))], ("background", "RV", "LV"))
    panels = figure.axes
    assert [panel.get_title() for panel in panels[:2]] == ["slice 3, reference", "slice 3, prediction"]
    assert [len(panel.collections) for panel in panels] == [2, 1] * 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["RV", "LV"]
    shown = panels[0].images[0].get_array()
    assert shown is not None
    np.testing.assert_array_equal(shown, (image[0, :, :, 3].T * 255).round())
