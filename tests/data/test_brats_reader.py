"""Reader of the BraTS layout: patients without their time point, any contrast missing, clear errors."""

from pathlib import Path

import pytest

from common.data.readers.brats import MODALITIES, brats_problems, read_brats
from common.data.splits import require_disjoint, split_of


def make(root: Path, scan: str, modalities: tuple[str, ...] = MODALITIES, extension: str = ".nii.gz") -> None:
    (root / scan).mkdir(parents=True, exist_ok=True)
    for name in modalities:
        (root / scan / f"{scan}-{name}{extension}").touch()


def test_one_item_per_time_point_with_all_contrasts(tmp_path: Path) -> None:
    for scan in ("BraTS-GLI-00007-000", "BraTS-GLI-00007-001", "BraTS-GLI-00003-000"):
        make(tmp_path, scan)
    items = read_brats(tmp_path)
    assert [(item["patient"], item["case"]) for item in items] == [
        ("BraTS-GLI-00003", "BraTS-GLI-00003-000"),
        ("BraTS-GLI-00007", "BraTS-GLI-00007-000"),
        ("BraTS-GLI-00007", "BraTS-GLI-00007-001"),
    ]
    for item in items:
        assert item.keys() == {"patient", "case", *MODALITIES}
        assert all(Path(item[name]).name == f"{item['case']}-{name}.nii.gz" for name in MODALITIES)
    assert brats_problems(tmp_path) == []


def test_splitting_by_patient_keeps_time_points_together(tmp_path: Path) -> None:
    for number in range(40):
        for visit in (0, 1):
            make(tmp_path, f"BraTS-GLI-{number:05d}-{visit:03d}", ("t1n",))
    sections: dict[str, list] = {}
    for item in read_brats(tmp_path):
        sections.setdefault(split_of("brats", item["patient"]), []).append(item)
    assert len(sections) == 3
    require_disjoint(sections)


def test_missing_contrasts_are_left_out(tmp_path: Path) -> None:
    """As in the folder with FLAIR and post-contrast T1 only; a validation scan has no labels."""
    make(tmp_path, "BraTS-GLI-00001-000", ("t2f", "t1c", "seg"))
    make(tmp_path, "BraTS-GLI-00002-000", ("t1n",), ".nii")
    make(tmp_path, "BraTS-GLI-00004-000", ("seg",))
    first, second = read_brats(tmp_path)
    assert first.keys() == {"patient", "case", "t2f", "t1c", "seg"}
    assert second.keys() == {"patient", "case", "t1n"}
    (problem,) = brats_problems(tmp_path)
    assert "BraTS-GLI-00004-000: holds no contrast" in problem


def test_archives_are_read_as_they_unpack(tmp_path: Path) -> None:
    make(tmp_path / "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData", "BraTS-GLI-00001-000")
    make(tmp_path / "ASNR-MICCAI-BraTS2023-GLI-Challenge-ValidationData", "BraTS-GLI-00009-000", MODALITIES[:4])
    assert [item["case"] for item in read_brats(tmp_path)] == ["BraTS-GLI-00001-000", "BraTS-GLI-00009-000"]


def test_strange_names_are_reported_and_not_read(tmp_path: Path) -> None:
    make(tmp_path, "BraTS-GLI-00001-000")
    (tmp_path / "BraTS-GLI-00001-000" / "BraTS-GLI-00002-000-t1n.nii.gz").touch()
    (tmp_path / "notes").mkdir()
    assert len(read_brats(tmp_path)) == 1
    (problem,) = brats_problems(tmp_path)
    assert "BraTS-GLI-00002-000-t1n.nii.gz: not a file of the BraTS layout" in problem


def test_missing_and_empty_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gli does not exist .* Set dataset_dir .*BraTS-GLI-NNNNN-TTT"):
        read_brats(tmp_path / "gli")
    (tmp_path / "patient001").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No case in .*expected BraTS-GLI-.*found patient001/"):
        read_brats(tmp_path)
