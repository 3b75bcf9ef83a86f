"""Volumes on different grids are refused, with what differs and by how much."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms.same_grid import SameGridd

AFFINE = np.array([[-1.0, 0.0, 0.0, 90.0], [0.0, -1.0, 0.0, 126.0], [0.0, 0.0, 2.0, -72.0], [0.0, 0.0, 0.0, 1.0]])


def volume(name: str, shape: tuple[int, ...] = (1, 20, 24, 10), affine: np.ndarray = AFFINE) -> MetaTensor:
    return MetaTensor(torch.zeros(shape), affine=torch.from_numpy(affine), meta={"filename_or_obj": f"{name}.nii.gz"})


def with_spacing(size: float) -> np.ndarray:
    return AFFINE @ np.diag([size, 1, 1, 1])


def moved(x: float) -> np.ndarray:
    return AFFINE + x * np.eye(4)[:, [0]] @ np.eye(4)[[3]]


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return rotation @ AFFINE


def test_one_grid_passes_unchanged_whatever_the_channels() -> None:
    item = {"source": volume("a"), "target": volume("b", (3, 20, 24, 10)), "case": "1"}
    checked = SameGridd(["source", "target"])(item)
    assert checked == item
    assert checked["source"] is item["source"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (volume("b", (1, 20, 24, 9)), r"shapes \(20, 24, 10\) and \(20, 24, 9\)\. "),
        (volume("b", affine=with_spacing(1.1)), r"spacing 1 x 1 x 2 and 1\.1 x 1 x 2 mm.*up to 1\.9 mm apart"),
        (volume("b", affine=moved(3.2)), r"grid: origins 3\.2 mm apart; voxels up to 3\.2 mm apart"),
        (volume("b", affine=np.diag([-1, -1, 1, 1]) @ AFFINE), "orientation LPS and RAS"),
        (volume("b", affine=turned(5)), r"axes 5\.00 degrees apart"),
    ],
    ids=["shape", "spacing", "origin", "orientation", "rotation"],
)
def test_the_message_names_both_files_and_what_differs(other: MetaTensor, message: str) -> None:
    item = {"source": volume("a"), "mask": volume("m"), "target": other}
    with pytest.raises(ValueError, match=message) as error:
        SameGridd(["source", "mask", "target"])(item)
    assert "a.nii.gz (source) and b.nii.gz (target)" in str(error.value)
    assert "resample one onto the other" in str(error.value)


def test_the_tolerance_is_the_displacement_of_the_worst_voxel() -> None:
    """A spacing off by 0.001 mm moves the last of 20 voxels by 0.019 mm, although the origins agree."""
    item = {"source": volume("a"), "target": volume("b", affine=with_spacing(1.001))}
    with pytest.raises(ValueError, match=r"voxels up to 0\.019 mm apart"):
        SameGridd(["source", "target"])(item)
    SameGridd(["source", "target"], tolerance_mm=0.02)(item)


def test_a_missing_volume_is_passed_over_only_on_request() -> None:
    item = {"source": volume("a")}
    SameGridd(["source", "target"], allow_missing_keys=True)(item)
    SameGridd(["target"], allow_missing_keys=True)(item)
    with pytest.raises(KeyError, match="target"):
        SameGridd(["source", "target"])(item)
