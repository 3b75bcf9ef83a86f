"""Volumes to translate: everything in a folder once, under a name that can be a file's, with its mask."""

from pathlib import Path
from typing import Any

import pytest

from common.data.volumes import volumes_to_translate


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def cases(items: list[dict[str, str]]) -> dict[str, str]:
    return {item["case"]: item["image"] for item in items}


def test_a_file_is_one_volume(tmp_path: Path) -> None:
    path = touch(tmp_path, "p1.scan.nii.gz", "other.nii.gz") / "p1.scan.nii.gz"
    assert volumes_to_translate(path, source="t1n") == [{"image": str(path), "case": "p1.scan"}]


def test_a_folder_gives_all_volumes_at_any_depth(tmp_path: Path) -> None:
    names = ["b.nii", "a/1/t1.nii.gz", "a/2/t1.nii.gz", "c.MHA", "series/001.dcm", "series/002.dcm"]
    touch(tmp_path, *names, "notes.txt", "a/.hidden.nii.gz")
    assert cases(volumes_to_translate(tmp_path, source="t1n")) == {
        "a_1_t1": str(tmp_path / "a/1/t1.nii.gz"),
        "a_2_t1": str(tmp_path / "a/2/t1.nii.gz"),
        "b": str(tmp_path / "b.nii"),
        "c": str(tmp_path / "c.MHA"),
        "series": str(tmp_path / "series"),
    }


def test_a_folder_of_slices_is_one_volume(tmp_path: Path) -> None:
    series = touch(tmp_path / "head.v2", "001.dcm", "002.dcm")
    assert volumes_to_translate(series, source="t1n") == [{"image": str(series), "case": "head.v2"}]


def test_names_that_would_overwrite_each_other_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.nii.gz", "a_b.nii.gz", "c.nii", "c.mha", "d.nii")
    with pytest.raises(ValueError, match=r"several volumes would be written as a_b, c; .*Rename them"):
        volumes_to_translate(tmp_path, source="t1n")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        volumes_to_translate(tmp_path / "missing", source="t1n")
    with pytest.raises(FileNotFoundError, match=r"No case in .*expected image files .*found notes\.txt"):
        volumes_to_translate(touch(tmp_path, "notes.txt"), source="t1n")


def test_masks_are_found_by_name_whatever_their_format(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "a.nii.gz", "sub/b.mha")
    masks = touch(tmp_path / "masks", "a.mha", "sub/b.nii.gz", "c.nii.gz")
    items = volumes_to_translate(images, source="mr", mask_dir=masks)
    assert {item["case"]: item["mask"] for item in items} == {
        "a": str(masks / "a.mha"),
        "sub_b": str(masks / "sub/b.nii.gz"),
    }


def test_a_volume_without_a_mask_is_named(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "a.nii.gz", "b.nii.gz", "c.nii.gz")
    masks = touch(tmp_path / "masks", "b.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"masks has no mask for a, c \(2 of 3 volumes\)"):
        volumes_to_translate(images, source="mr", mask_dir=masks)


def test_without_a_folder_the_phantom_s_test_cases_are_translated(tmp_path: Path) -> None:
    items = volumes_to_translate(None, source="t1n", dataset_dir=tmp_path, cases=5, size=48)
    (item,) = items  # the only test patient among the first five
    assert item["case"] == "BraTS-GLI-00004-000"
    assert Path(item["image"]).name == "BraTS-GLI-00004-000-t1n.nii.gz"
    assert Path(item["image"]).is_file()
    assert item.keys() == {"image", "case"}


def test_masks_of_the_data_set_come_with_its_volumes_where_there_are_any(tmp_path: Path) -> None:
    """Elsewhere the body is found in the image, as for volumes of a folder."""
    ids = [f"1BA{number:03d}" for number in range(20)]
    touch(tmp_path, *(f"Task1/brain/{name}/{kind}.nii.gz" for name in ids for kind in ("mr", "ct", "mask")))
    options: dict[str, Any] = {"source": "mr", "dataset": "synthrad", "dataset_dir": tmp_path}
    plain = volumes_to_translate(None, **options)
    masked = volumes_to_translate(None, **options, mask="mask")
    assert len(plain) == 4
    assert all(item == {"image": item["image"], "case": item["case"]} for item in plain)
    assert [Path(item["image"]).name for item in plain] == ["mr.nii.gz"] * 4
    assert masked == [{**item, "mask": str(Path(item["image"]).with_name("mask.nii.gz"))} for item in plain]
    Path(masked[0]["mask"]).unlink()
    assert volumes_to_translate(None, **options, mask="mask") == [plain[0], *masked[1:]]


def test_a_mask_that_the_data_set_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="body"):
        volumes_to_translate(None, source="mr", dataset="synthrad", dataset_dir=tmp_path, mask="body")


def test_masks_without_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belongs to the volumes in input_dir"):
        volumes_to_translate(None, source="mr", mask_dir=tmp_path)
