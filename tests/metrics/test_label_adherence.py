"""Dice between label maps and what a segmenter answers."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from common.metrics.label_adherence import Segmenter, adherence_counts, mean_dice, pooled_dice


def answering(index: Tensor, num_classes: int = 3) -> Segmenter:
    """A segmenter whose answer for any images is ``index`` (B, 1, X, Y)."""
    return lambda images: one_hot(index[:, 0].long(), num_classes).movedim(-1, 1).float()


def square(left: int, value: int = 1) -> Tensor:
    """A 32x32 square in a 64x64 map."""
    label = torch.zeros(1, 1, 64, 64)
    label[..., left : left + 32, 16:48] = value
    return label


def test_shifted_square_has_the_dice_of_its_overlap() -> None:
    """Shifted by 8 of 32 pixels, 24 of 32 columns are shared."""
    images = torch.zeros(1, 1, 64, 64)
    counts = adherence_counts(answering(square(8)), images, square(16), 3)
    assert counts.tolist() == [[[24 * 32, 32 * 32, 32 * 32], [0, 0, 0]]]
    dice = pooled_dice(counts)
    assert dice[0].item() == pytest.approx(0.75)
    assert math.isnan(dice[1])
    assert mean_dice(counts).item() == pytest.approx(0.75)


def test_pixels_of_all_slices_count_alike() -> None:
    """A class of 1024 pixels that is found and one of 1024 that is not: 2 * 1024 / (2048 + 1024), whatever the mean."""
    labels = torch.cat([square(0), square(16)])
    answers = torch.cat([square(0), square(16, value=2)])
    counts = adherence_counts(answering(answers), torch.zeros(2, 1, 64, 64), labels, 3)
    dice = pooled_dice(counts)
    assert dice[0].item() == pytest.approx(2 * 1024 / (2048 + 1024))
    assert math.isnan(dice[1]), "no map has it"
    assert mean_dice(counts).item() == pytest.approx(2 / 3)


def test_segmenter_sees_the_images() -> None:
    images = square(4) * 0.8
    counts = adherence_counts(lambda x: torch.cat([0.5 - x, x - 0.5], 1), images, square(4), 2)
    assert pooled_dice(counts).tolist() == [1]


def test_other_classes_are_refused() -> None:
    images = torch.zeros(1, 1, 64, 64)
    with pytest.raises(ValueError, match=r"answers \(1, 3, 64, 64\) .* with 4 classes"):
        adherence_counts(answering(square(0)), images, square(0), 4)
    with pytest.raises(ValueError, match="labels from 0 to 205; expected are indices of 3 classes, 0 to 2"):
        adherence_counts(answering(square(0)), images, square(0, value=205), 3)
