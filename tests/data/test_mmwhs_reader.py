"""The MM-WHS layout: pairs of one modality, and one clear message where a partner is missing."""

from pathlib import Path

import pytest

from common.data.cases import find_cases
from common.data.readers.mmwhs import LABELS, mmwhs_problems, read_mmwhs
from common.data.splits import SECTIONS, require_disjoint


def archive(root: Path, modality: str = "ct", numbers: range = range(1001, 1021)) -> Path:
    """Empty files with the archive's names."""
    home = root / f"{modality}_train"
    home.mkdir(parents=True)
    for number in numbers:
        for part in ("image", "label"):
            (home / f"{modality}_train_{number}_{part}.nii.gz").touch()
    return root


def test_a_modality_is_a_data_set_of_pairs(tmp_path: Path) -> None:
    archive(archive(tmp_path), "mr", range(1001, 1004))
    (tmp_path / "ct_test").mkdir()
    (tmp_path / "ct_test" / "ct_test_2001_image.nii.gz").touch()  # has no label map
    found = find_cases("mmwhs_ct", tmp_path)
    assert [case["case"] for case in found] == [f"ct_train_{number}" for number in range(1001, 1021)]
    for case in found:
        assert case["patient"] == case["case"]
        assert Path(case["image"]).name == f"{case['case']}_image.nii.gz"
        assert Path(case["label"]).name == f"{case['case']}_label.nii.gz"
        assert Path(case["label"]).is_file()
    assert len(find_cases("mmwhs_mr", tmp_path)) == 3
    assert find_cases("mmwhs_ct", tmp_path / "ct_train") == found
    assert find_cases("mmwhs_ct", tmp_path, frames="labelled") == found


def test_fourteen_four_and_two_volumes_of_a_modality(tmp_path: Path) -> None:
    archive(tmp_path)
    sections = {section: find_cases("mmwhs_ct", tmp_path, section, split="stratified") for section in SECTIONS}
    assert [len(cases) for cases in sections.values()] == [14, 4, 2]
    require_disjoint(sections)


def test_files_without_a_partner_are_all_named(tmp_path: Path) -> None:
    archive(tmp_path)
    (tmp_path / "ct_train" / "ct_train_1003_label.nii.gz").unlink()
    (tmp_path / "ct_train" / "ct_train_1007_image.nii.gz").unlink()
    with pytest.raises(
        ValueError,
        match=r"2 file\(s\) have no partner\. ct_train_1003_image\.nii\.gz has no label map; .*"
        r"ct_train_1007_label\.nii\.gz has no image",
    ):
        read_mmwhs(tmp_path, "ct")


def test_strange_names_are_listed(tmp_path: Path) -> None:
    archive(tmp_path, numbers=range(1001, 1003))
    assert mmwhs_problems(tmp_path, "ct") == []
    for name in ("ct_train_1001_seg.nii.gz", "notes.txt", ".DS_Store"):
        (tmp_path / "ct_train" / name).touch()
    problems = mmwhs_problems(tmp_path, "ct")
    assert len(problems) == 2
    assert "ct_train_1001_seg.nii.gz: not a file of the MM-WHS layout" in problems[0]


def test_the_other_modality_alone_is_not_taken_for_this_one(tmp_path: Path) -> None:
    archive(tmp_path, "mr")
    with pytest.raises(FileNotFoundError, match=r"expected ct_train/ct_train_10NN_image.*found mr_train/"):
        read_mmwhs(tmp_path, "ct")


def test_values_are_those_of_the_publication() -> None:
    assert sorted(LABELS) == [0, 205, 420, 421, 500, 550, 600, 820, 850]
