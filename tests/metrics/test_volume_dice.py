"""Dice of volumes: known overlaps, MONAI's numbers, and slices that come in any order."""

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from torch import Tensor

from common.metrics.volume_dice import VolumeDice, class_means, dice, overlap_counts, volume_dice


def labels(seed: int, *shape: int, classes: int = 4) -> Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed)).float()


def one_hot(indices: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(indices[:, 0].long(), classes).movedim(-1, 1)


def test_a_square_shifted_by_a_quarter_of_its_side_scores_three_quarters() -> None:
    square, shifted = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    square[:, :, 10:42, 10:42] = 1
    shifted[:, :, 18:50, 10:42] = 1
    assert volume_dice(shifted, square, 2).tolist() == [[0.75]]


def test_a_class_that_the_reference_lacks_has_no_score() -> None:
    label, pred = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    label[..., :4], pred[..., :4, :] = 1, 2
    scores = volume_dice(pred, label, 4)[0]
    assert scores[0] == 0  # there, but missed
    assert scores[1:].isnan().all()  # class 2 was predicted, class 3 was not; neither is in the reference


@pytest.mark.parametrize("shape", [(3, 1, 9, 7), (2, 1, 6, 5, 4)], ids=["slices", "volumes"])
def test_it_agrees_with_monai(shape: tuple[int, ...]) -> None:
    pred, label = labels(0, *shape), labels(1, *shape)
    label[0][label[0] == 2] = 0  # absent from the first
    theirs = DiceMetric(include_background=False, reduction="none")(one_hot(pred, 4), one_hot(label, 4))
    torch.testing.assert_close(volume_dice(pred, label, 4).float(), theirs, equal_nan=True)
    assert volume_dice(pred, label, 4)[0, 1].isnan()


def test_counts_are_intersection_prediction_and_reference() -> None:
    pred, label = torch.tensor([[[1.0, 1, 2, 0, 2]]]), torch.tensor([[[1.0, 2, 2, 0, 0]]])
    assert overlap_counts(pred, label, 3).tolist() == [[[1, 2, 1], [1, 2, 2]]]
    assert dice(torch.tensor([1, 2, 1])).item() == pytest.approx(2 / 3)


def test_class_means_leave_out_volumes_without_the_class() -> None:
    nan = torch.nan
    means = class_means(torch.tensor([[0.5, nan, nan], [0.7, 0.2, nan]]))
    assert means[:2].tolist() == pytest.approx([0.6, 0.2])
    assert means[2].isnan()


ORIGIN = np.array([[item, frame, z] for item in range(2) for frame in range(2) for z in range(5)])  # four volumes


def volumes() -> tuple[Tensor, Tensor]:
    """(20, 1, 6, 6) slices."""
    return labels(2, len(ORIGIN), 1, 6, 6), labels(3, len(ORIGIN), 1, 6, 6)


def stacked(slices: Tensor) -> Tensor:
    """(20, 1, X, Y) -> (4, 1, X, Y, 5)."""
    return slices.reshape(4, 5, 1, 6, 6).permute(0, 2, 3, 4, 1)


def test_slices_in_any_order_score_as_the_volumes_they_are_cut_from() -> None:
    pred, label = volumes()
    metric = VolumeDice(ORIGIN, 4)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    for part in order.split(7):
        metric.update(pred[part], label[part], part)
    whole = volume_dice(stacked(pred), stacked(label), 4)
    torch.testing.assert_close(metric.compute(), whole)
    slicewise = volume_dice(pred, label, 4).reshape(4, 5, 3).nanmean(1)
    assert (slicewise - whole).abs().max() > 1e-3  # it is not the mean over slices


def test_a_slice_that_comes_twice_counts_once() -> None:
    pred, label = volumes()
    metric = VolumeDice(ORIGIN, 4)
    metric.update(pred, label, torch.arange(20))
    expected = metric.compute()
    metric.update(pred[3:9], label[3:9], torch.arange(3, 9))
    assert torch.equal(metric.compute(), expected)


def test_only_volumes_that_were_seen_are_scored_and_reset_forgets_them() -> None:
    pred, label = volumes()
    metric = VolumeDice(ORIGIN, 4)
    metric.update(pred[5:10], label[5:10], torch.arange(5, 10))
    torch.testing.assert_close(metric.compute(), volume_dice(stacked(pred), stacked(label), 4)[1:2])
    metric.reset()
    with pytest.raises(ValueError, match="no slices were given"):
        metric.compute()


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        volume_dice(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5), 2)
    with pytest.raises(ValueError, match="num_classes=1"):
        VolumeDice(ORIGIN, 1)
