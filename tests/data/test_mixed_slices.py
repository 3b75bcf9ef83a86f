"""Mixed training sets: numbers that were asked for, draws within draws, strata in proportion, errors that help."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from common.data.mixed_slices import MixedSlices, nested_order
from common.data.slices import SliceDataset

GROUPS = ("NOR", "DCM", "HCM")


def volumes(item: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Four slices of a brightness that names the item; z labeled pixels in slice z."""
    brightness, side = int(item["image"]), int(item["label"])
    image = np.full((1, side, 8, 4), brightness, np.float32)
    image[..., 0, :] = 0  # some background
    label = np.zeros_like(image)
    for z in range(4):
        label[0, 1, :z, z] = 1
    return {"image": image, "label": label}


def slices(items: int, first: int = 2, groups: bool = True, side: int = 6) -> SliceDataset:
    """4 slices of each of ``items`` patients."""
    data: list[dict[str, Any]] = []
    for number in range(first, first + items):
        data.append({"image": str(number), "label": str(side), "patient": f"p{number}", "case": f"c{number}"})
        if groups:
            data[-1]["group"] = GROUPS[number % 3]
    return SliceDataset(data, volumes, keys=("image", "label"), progress=False)


def brightness(mixed: MixedSlices) -> list[tuple[int, int]]:
    """What identifies each slice: its item's brightness and its number of labeled pixels."""
    batch = mixed.__getitems__(range(len(mixed)))
    return [(int(image.max()), int(label.sum())) for image, label in zip(batch["image"], batch["label"], strict=True)]


def test_shorter_draws_are_the_beginnings_of_longer_ones_and_strata_keep_their_shares() -> None:
    strata = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    order = nested_order(strata, seed=1)
    assert sorted(order.tolist()) == list(range(100))
    for number in range(1, 101):
        count = Counter(strata[index] for index in order[:number])
        assert all(abs(count[name] - number * strata.count(name) / 100) < 2 for name in "abc")


def test_equal_strata_come_in_rounds() -> None:
    strata = ["a", "b", "c", "d", "e"] * 20
    order = nested_order(strata, seed=2)
    for number in range(5, 101, 5):
        assert set(Counter(strata[index] for index in order[:number]).values()) == {number // 5}


def test_within_a_stratum_every_item_is_drawn_equally_often() -> None:
    counts = np.zeros(12)
    for seed in range(400):
        counts[nested_order(["a"] * 12, seed)[:3]] += 1
    assert (abs(counts - 100) < 45).all()  # five standard deviations


def test_draws_are_nested_and_depend_on_the_seed() -> None:
    data = slices(12)
    few, many, other = (
        brightness(MixedSlices(data, None, num_real=number, seed=seed)) for number, seed in ((8, 0), (20, 0), (20, 1))
    )
    assert many[:8] == few
    assert len(set(many)) == 20
    assert set(many) != set(other)


def test_real_slices_come_first_then_synthetic_ones() -> None:
    mixed = MixedSlices(slices(3), slices(5, first=101), num_real=6, num_synthetic=9)
    values = [value for value, _ in brightness(mixed)]
    assert (mixed.num_real, mixed.num_synthetic, len(mixed)) == (6, 9, 15)
    assert all(value < 100 for value in values[:6])
    assert all(value > 100 for value in values[6:])
    assert mixed.patients == [f"p{value}" for value in values]
    assert mixed.describe(0).startswith(f"real: {values[0]}, slice")
    assert mixed.describe(14).startswith(f"synthetic: {values[14]}, slice")


def test_a_batch_holds_its_entries_in_order() -> None:
    mixed = MixedSlices(slices(3), slices(3, first=101))
    chosen = [20, 1, 13, 0, 23, 20]
    batch = mixed.__getitems__(chosen)
    assert batch["index"].tolist() == chosen
    for row, index in enumerate(chosen):
        one = mixed[index]
        assert one["index"] == index
        assert torch.equal(batch["image"][row], one["image"])
        assert torch.equal(batch["label"][row], one["label"])


def test_draws_are_stratified_by_group_where_all_are_known_else_by_patient() -> None:
    grouped = [value % 3 for value, _ in brightness(MixedSlices(slices(12), None, num_real=9))]
    assert Counter(grouped) == {0: 3, 1: 3, 2: 3}
    by_patient = [value for value, _ in brightness(MixedSlices(slices(12, groups=False), None, num_real=12))]
    assert len(set(by_patient)) == 12


def test_numbers_left_open_mean_all() -> None:
    assert len(MixedSlices(slices(2), slices(3), num_synthetic=None)) == 8 + 12
    only = MixedSlices(None, slices(3), num_synthetic=5)
    assert (only.num_real, only.num_synthetic) == (0, 5)
    assert MixedSlices(slices(2), slices(3), num_synthetic=0).num_synthetic == 0
    assert MixedSlices(slices(2), None, num_synthetic=0).num_real == 8


def test_slices_with_few_labeled_pixels_can_be_left_out() -> None:
    mixed = MixedSlices(slices(4), None, min_label_pixels=2)
    assert sorted(pixels for _, pixels in brightness(mixed)) == [2] * 4 + [3] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_synthetic": 13}, "13 synthetic slices are asked for, but there are 12; make more by synthesize.json"),
        ({"num_real": 9}, "9 real slices are asked for, but there are 8"),
        ({"num_real": 5, "min_label_pixels": 2}, "there are 4 with at least 2 labeled pixels"),
        ({"num_real": -1}, "must not be negative"),
        ({"num_real": 0, "num_synthetic": 0}, "no slices at all"),
    ],
)
def test_what_there_is_not_is_asked_for_in_vain(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixedSlices(slices(2), slices(3), **settings)


def test_a_set_that_is_not_given_cannot_be_drawn_from() -> None:
    with pytest.raises(ValueError, match="no synthetic set is given"):
        MixedSlices(slices(2), None, num_synthetic=3)
    with pytest.raises(ValueError, match="no slices at all"):
        MixedSlices(None, None)


def test_slices_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(6, 8\), \(7, 8\)"):
        MixedSlices(slices(2), slices(2, side=7))


def test_there_is_nothing_behind_the_end() -> None:
    with pytest.raises(IndexError, match="there are 8"):
        MixedSlices(slices(2), None)[8]
