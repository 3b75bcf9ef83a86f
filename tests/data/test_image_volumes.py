"""Images or label maps to work on: what a user points to, or the labelled frames of a section of a data set."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.cases import find_cases
from common.data.image_volumes import image_volumes
from common.data.splits import SECTIONS

MakeACDC = Callable[..., Path]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("key", ["image", "label"])
def test_what_a_user_points_to_is_called_what_it_is_taken_for(tmp_path: Path, key: str) -> None:
    touch(tmp_path, "b.nii.gz", "a/heart.mha", "notes.txt")
    expected = [
        {key: str(tmp_path / "a/heart.mha"), "case": "a_heart"},
        {key: str(tmp_path / "b.nii.gz"), "case": "b"},
    ]
    assert image_volumes(tmp_path, key=key) == expected  # type: ignore[arg-type]
    assert image_volumes(str(tmp_path / "b.nii.gz"), key=key, dataset="acdc") == expected[1:]  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["image", "label"])
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_a_data_set_gives_one_of_the_two_and_the_name_of_the_case(
    acdc: MakeACDC, section: str, key: str
) -> None:
    """No patient, group or frame: items are all that is read."""
    folder = acdc(10)
    items = image_volumes(None, key=key, dataset="acdc", dataset_dir=folder, section=section, split="stratified")  # type: ignore[arg-type]
    whole = find_cases("acdc", folder, section, split="stratified", frames="labelled")
    assert items == [{key: case[key], "case": case["case"]} for case in whole]
    assert len(items) == 2 * {"training": 7, "validation": 2, "test": 1}[section]
    assert all(Path(item[key]).name == f"{item['case']}{'_gt' if key == 'label' else ''}.nii.gz" for item in items)


def test_only_the_labelled_frames_of_a_cine_are_taken(acdc: MakeACDC) -> None:
    options = {"dataset": "acdc", "dataset_dir": acdc(2, cine=True), "section": "training", "split": "stratified"}
    names = [Path(item["image"]).name for item in image_volumes(None, **options)]  # type: ignore[arg-type]
    assert names
    assert not any(name.endswith("_4d.nii.gz") for name in names)


def test_without_anything_the_test_cases_of_the_phantom_are_taken(tmp_path: Path) -> None:
    items = image_volumes(None, key="label", dataset_dir=tmp_path, cases=5, size=32)
    expected = find_cases("cardiac_phantom", tmp_path, "test", frames="labelled", cases=5, size=32, cine=False)
    assert items == [{"label": case["label"], "case": case["case"]} for case in expected]
    assert all(Path(item["label"]).is_file() for item in items)


@pytest.mark.parametrize(
    ("dataset", "name", "message"),
    [
        ("image_folder", "a.nii.gz", "has no label maps"),
        ("brats", "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1n.nii.gz", "A case of brats has several images"),
    ],
)
@pytest.mark.parametrize("key", ["image", "label"])
def test_a_data_set_of_another_kind_is_refused(tmp_path: Path, dataset: str, name: str, message: str, key: str) -> None:
    touch(tmp_path, name)
    with pytest.raises(ValueError, match=message):
        image_volumes(None, key=key, dataset=dataset, dataset_dir=tmp_path)  # type: ignore[arg-type]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        image_volumes(tmp_path / "missing", key="label")
