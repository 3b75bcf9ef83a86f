"""Reader of the ISLES layout: names instead of places, one file per contrast, clear errors."""

from pathlib import Path

import pytest

from common.data.readers.isles import MODALITIES, isles_problems, read_isles

NAMES = ("O.MR_DWI", "O.MR_Flair", "O.MR_T1", "O.MR_T2", "XX.OT")


def make(root: Path, part: str, number: int, names: tuple[str, ...] = NAMES, extension: str = ".nii") -> Path:
    home = root / f"SISS2015_{part}" / str(number)
    for index, name in enumerate(names):
        stem = f"VSD.Brain.XX.{name}.{70000 + 10 * number + index}"
        (home / stem).mkdir(parents=True)
        (home / stem / (stem + extension)).touch()
    return home


def test_one_item_per_patient_with_all_contrasts_and_the_mask(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        make(tmp_path, "Training", number)
    items = read_isles(tmp_path)
    assert [item["patient"] for item in items] == ["training_1", "training_2", "training_10"]
    for item in items:
        assert item.keys() == {"patient", "case", "section", *MODALITIES}
        assert item["case"] == item["patient"]
        for name in MODALITIES[:4]:
            assert f"MR_{name}." in Path(item[name]).name
        assert ".OT." in Path(item["label"]).name
    assert isles_problems(tmp_path) == []
    assert read_isles(tmp_path / "SISS2015_Training") == items


def test_patients_of_both_parts_differ_though_their_numbers_do_not(tmp_path: Path) -> None:
    make(tmp_path, "Training", 1)
    make(tmp_path, "Testing", 1, NAMES[:4])
    training, testing = read_isles(tmp_path)
    assert (training["patient"], testing["patient"]) == ("training_1", "testing_1")
    assert (training["section"], testing["section"]) == ("training", "test")
    assert "label" not in testing
    assert isles_problems(tmp_path) == []  # nothing is missing


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".mha"])
def test_formats_and_names_of_other_releases(tmp_path: Path, extension: str) -> None:
    home = tmp_path / "SISS2015_Training" / "3"
    home.mkdir(parents=True)
    for name in ("sub-3_dwi", "sub-3_FLAIR", "sub-3_t1", "sub-3_T2", "sub-3_lesion"):
        (home / (name + extension)).touch()
    (item,) = read_isles(tmp_path)
    assert {name: Path(item[name]).name.split(".")[0] for name in MODALITIES} == {
        "DWI": "sub-3_dwi",
        "Flair": "sub-3_FLAIR",
        "T1": "sub-3_t1",
        "T2": "sub-3_T2",
        "label": "sub-3_lesion",
    }


def test_two_files_for_one_contrast_are_refused(tmp_path: Path) -> None:
    home = make(tmp_path, "Training", 4)
    (home / "VSD.Brain.XX.O.MR_T1.9.nii").touch()
    with pytest.raises(ValueError, match=r"4 has 2 files for T1 .*keep one"):
        read_isles(tmp_path)
    assert "2 files for T1" in isles_problems(tmp_path)[0]


def test_missing_contrasts_are_left_out_and_reported(tmp_path: Path) -> None:
    home = make(tmp_path, "Training", 5, ("O.MR_DWI", "O.MR_T2", "O.MR_ADC"))
    (item,) = read_isles(tmp_path)
    assert item.keys() == {"patient", "case", "section", "DWI", "T2"}
    problems = isles_problems(tmp_path)
    assert [line.removeprefix(f"{home}: ") for line in problems[:3]] == [
        f"{name} is missing" for name in ("Flair", "T1", "label")
    ]
    assert "MR_ADC.70052.nii: not a file of the ISLES layout" in problems[3]


def test_missing_and_empty_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"isles does not exist .* Set dataset_dir .*SISS2015_Training"):
        read_isles(tmp_path / "isles")
    (tmp_path / "SISS2015_Training" / "notes").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"No case in .*expected SISS2015_Training.*found SISS2015_Training/"):
        read_isles(tmp_path)
