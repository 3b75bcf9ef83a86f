"""Label values become indices; everything else is an error with the file's name."""

from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.label_sets import label_values
from common.transforms.labels import LabelMap, LabelMapd, file_values
from common.transforms.loading import LoadVolumed

WHOLE_HEART = label_values("mmwhs_ct")


def loaded(folder: Path, voxels: np.ndarray) -> dict:
    path = folder / "mr_train_1010_label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return LoadVolumed("label")({"label": path})


def test_all_eight_values_and_the_slip_421_get_their_index(tmp_path: Path) -> None:
    values = np.array([0, 500, 600, 420, 550, 205, 820, 850, 421], dtype=np.int16).reshape(3, 3, 1)
    item = LabelMapd("label", WHOLE_HEART)(loaded(tmp_path, values))
    assert item["label"].flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 3]
    assert item["label"].shape == (1, 3, 3, 1)
    assert item["label"].dtype == torch.float32
    np.testing.assert_array_equal(item["label"].affine, np.diag([1.0, 2.0, 3.0, 1.0]))
    assert item["label"].meta["filename_or_obj"].endswith("mr_train_1010_label.nii.gz")


@pytest.mark.parametrize(
    ("strange", "named"),
    [([7, 7, 500, 0], r"7 \(2 voxels\)"), ([0.5, 500, 0, 0], r"0\.5 \(1 voxels\)"), ([-1, 500, 0, 0], r"-1 \(1 vox")],
    ids=["unknown", "between", "negative"],
)
def test_a_value_out_of_the_map_is_named_with_its_file_and_count(
    tmp_path: Path, strange: list[float], named: str
) -> None:
    item = loaded(tmp_path, np.array(strange, dtype=np.float32).reshape(2, 2, 1))
    with pytest.raises(ValueError, match=rf"mr_train_1010_label\.nii\.gz holds .*not of this data set: {named}"):
        LabelMapd("label", WHOLE_HEART)(item)


def test_of_many_strange_values_the_first_are_named() -> None:
    with pytest.raises(ValueError, match=r"1 \(1 voxels\), .*5 \(1 voxels\) and 15 more"):
        LabelMap(WHOLE_HEART)(torch.arange(21.0))


def test_an_empty_label_map_is_refused_unless_it_may_be(tmp_path: Path) -> None:
    item = loaded(tmp_path, np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"mr_train_1010_label\.nii\.gz is empty"):
        LabelMapd("label", WHOLE_HEART)(item)
    assert not LabelMapd("label", WHOLE_HEART, allow_empty=True)(item)["label"].any()


def test_a_map_that_joins_classes_to_background_only_leaves_it_empty() -> None:
    """Background is what becomes 0, not what was 0."""
    with pytest.raises(ValueError, match="is empty"):
        LabelMap({0: 0, 1: 0, 2: 1})(torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("values", [{1: 1, 2: 2}, {0: -1, 1: 0}, {}], ids=["no background", "negative", "nothing"])
def test_a_map_without_background_is_refused(values: Mapping[int, int]) -> None:
    with pytest.raises(ValueError, match="must map to 0"):
        LabelMap(values)


def test_integer_maps_and_plain_tensors_keep_their_type() -> None:
    mapped = LabelMap(WHOLE_HEART)(torch.tensor([[500, 0]], dtype=torch.int16))
    assert mapped.dtype == torch.int16
    assert not isinstance(mapped, MetaTensor)
    assert mapped.tolist() == [[1, 0]]


def test_values_to_write_map_back_to_their_index() -> None:
    written = file_values(WHOLE_HEART)
    assert written == (0, 500, 600, 420, 550, 205, 820, 850)
    assert [WHOLE_HEART[value] for value in written] == list(range(8))
    with pytest.raises(ValueError, match=r"class indices \[0, 2\] must be 0\.\.1"):
        file_values({0: 0, 5: 2})
