"""Batches of segmentation: units, augmentation on both maps, hidden squares of a known area, processes that agree."""

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from common.engines import prepare_batch, segmentation_batch
from common.engines.randomness import StepRandomness
from common.engines.segmentation_batch import ContextPrepareBatch, SegmentationPrepareBatch
from common.transforms.deformation import Deformation


def at(iteration: int = 3, seed: int = 0) -> StepRandomness:
    randomness = StepRandomness(seed)
    randomness.start(iteration)
    return randomness


def batch_of(number: int = 8, size: tuple[int, ...] = (48, 48)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {
        "image": 255 * torch.rand(number, 1, *size, generator=generator),
        "label": torch.randint(0, 4, (number, 1, *size), generator=generator).float(),
    }


def as_processes(monkeypatch: pytest.MonkeyPatch, count: int, rank: int) -> None:
    for module in (segmentation_batch, prepare_batch):
        monkeypatch.setattr(module, "process_count", lambda: count)
        monkeypatch.setattr(module, "process_rank", lambda: rank)


@pytest.mark.parametrize("size", [(48, 48), (32, 32, 5)], ids=["slices", "volume"])
def test_grey_levels_become_shares_and_labels_whole_numbers(size: tuple[int, ...]) -> None:
    batch = batch_of(2, size)
    image, label = SegmentationPrepareBatch()(batch)
    torch.testing.assert_close(image, batch["image"] / 255)
    assert label.dtype == torch.int64
    assert torch.equal(label.float(), batch["label"])


def test_without_a_label_map_the_image_stands_in_its_place() -> None:
    image, target = SegmentationPrepareBatch()({"image": batch_of()["image"]})
    assert torch.equal(image, target)


def test_augmentation_is_the_deformation_of_both_maps_and_new_in_each_iteration() -> None:
    batch, deform = batch_of(), Deformation(flip_axes=(0,))
    image, label = SegmentationPrepareBatch(at(5), deform)(batch)
    expected = deform(batch["image"] / 255, batch["label"].long(), at(5).shared("cpu"))
    assert torch.equal(image, expected[0])
    assert torch.equal(label, expected[1])
    other = SegmentationPrepareBatch(at(6), deform)(batch)[1]
    assert not torch.equal(label, other)


def test_augmentation_without_random_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs `randomness`"):
        SegmentationPrepareBatch(augment=Deformation())


def test_processes_together_augment_and_hide_as_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of()
    segmentation = SegmentationPrepareBatch(at(), Deformation())
    context = ContextPrepareBatch(at())
    whole, (masked, target) = segmentation(batch), context(batch)
    for rank in range(2):
        as_processes(monkeypatch, 2, rank)
        part = {name: rows[rank::2] for name, rows in batch.items()}
        for ours, theirs in zip(segmentation(part), whole, strict=True):
            assert torch.equal(ours, theirs[rank::2])
        ours, ours_target = context(part)
        assert torch.equal(ours, masked[rank::2])
        assert all(torch.equal(ours_target[name], target[name][rank::2]) for name in ("image", "mask"))


@pytest.mark.parametrize("side", [64, 128])
def test_a_quarter_of_each_image_is_hidden_in_four_to_eight_squares(side: int) -> None:
    """The area is that of n equal squares; had two of them met, it would be smaller."""
    mask = ContextPrepareBatch(at()).hidden(600, (side, side), torch.Generator().manual_seed(0))
    areas = mask.sum(dim=(1, 2, 3))
    possible = {n * round(side * (0.25 / n) ** 0.5) ** 2: n for n in range(4, 9)}
    assert set(areas.tolist()) == set(possible)
    assert [area / side**2 for area in possible] == pytest.approx([0.25] * 5, abs=0.02)
    numbers = torch.tensor([possible[int(area)] for area in areas])
    assert chisquare(numbers.bincount()[4:]).pvalue > 0.01
    anywhere = mask.float().mean(dim=0)
    assert torch.nn.functional.avg_pool2d(anywhere, 4).min() > 0.003  # no place is always seen
    assert anywhere.mean() == pytest.approx(0.25, abs=0.01)


def test_squares_are_squares() -> None:
    """One square in an oblong image: it is as wide as high, and lies inside."""
    mask = ContextPrepareBatch(at(), share=0.05, squares=(1, 1)).hidden(100, (40, 60), torch.Generator().manual_seed(0))
    rows, columns = mask.any(dim=3).sum(dim=(1, 2)), mask.any(dim=2).sum(dim=(1, 2))
    assert torch.equal(rows, columns)
    assert torch.equal(rows * columns, mask.sum(dim=(1, 2, 3)))
    assert rows.unique().tolist() == [round((0.05 * 40 * 60) ** 0.5)]


def test_hidden_pixels_show_the_mean_and_the_others_the_image() -> None:
    batch = batch_of()
    masked, target = ContextPrepareBatch(at(), flip_axes=())(batch)
    image, mask = target["image"], target["mask"]
    torch.testing.assert_close(image, batch["image"] / 255)
    assert set(mask.unique().tolist()) == {0, 1}
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(masked, mask * mean + (1 - mask) * image)


def test_images_are_flipped_before_their_squares_are_hidden() -> None:
    batch = batch_of(16)
    image = ContextPrepareBatch(at(), flip_axes=(1,))(batch)[1]["image"]
    flipped = [torch.equal(one, other.flip(2) / 255) for one, other in zip(image, batch["image"], strict=True)]
    kept = [torch.equal(one, other / 255) for one, other in zip(image, batch["image"], strict=True)]
    assert all(one != other for one, other in zip(flipped, kept, strict=True))
    assert 0 < sum(flipped) < 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"squares": (0, 4)}, "in 1..9"),
        ({"squares": (8, 4)}, "in 1..9"),
        ({"share": 0.6}, "at most 4/9"),
        ({"share": 0.0}, "must be positive"),
    ],
)
def test_impossible_squares_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContextPrepareBatch(at(), **settings)
