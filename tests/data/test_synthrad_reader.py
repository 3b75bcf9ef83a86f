"""Reader of the SynthRAD layout: pairs wherever the archive put them, no overview, clear errors."""

from pathlib import Path

import pytest

from common.data.readers.synthrad import MODALITIES, read_synthrad, synthrad_problems


def make(root: Path, patient: str, names: tuple[str, ...] = MODALITIES, extension: str = ".nii.gz") -> None:
    (root / patient).mkdir(parents=True)
    for name in names:
        (root / patient / (name + extension)).touch()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    brain = tmp_path / "Task1" / "brain"
    for patient in ("1BC011", "1BA002", "1BB005"):
        make(brain, patient)
    (brain / "overview").mkdir()
    (brain / "overview" / "1BA002_train.png").touch()
    (brain / "1BA.xlsx").touch()
    return tmp_path


def test_one_item_per_patient_and_no_overview(archive: Path) -> None:
    items = read_synthrad(archive)
    assert [item["patient"] for item in items] == ["1BA002", "1BB005", "1BC011"]
    for item in items:
        assert item.keys() == {"patient", "case", *MODALITIES}
        assert item["case"] == item["patient"]
        assert all(Path(item[name]).name == f"{name}.nii.gz" for name in MODALITIES)
    assert synthrad_problems(archive) == []


def test_any_level_of_the_archive_may_be_given(archive: Path) -> None:
    items = read_synthrad(archive)
    assert read_synthrad(archive / "Task1") == items
    assert read_synthrad(archive / "Task1" / "brain") == items


def test_other_names_and_formats_are_taken(tmp_path: Path) -> None:
    """Such as a folder with a pair of templates."""
    make(tmp_path / "brain", "TPL001", extension=".mha")
    (item,) = read_synthrad(tmp_path)
    assert (item["patient"], Path(item["ct"]).name) == ("TPL001", "ct.mha")


def test_missing_volumes_are_left_out_and_reported(tmp_path: Path) -> None:
    """A validation case has no CT."""
    make(tmp_path, "1BA010", ("mr", "mask"))
    make(tmp_path, "1BA099", ("mask",))
    (item,) = read_synthrad(tmp_path)
    assert item.keys() == {"patient", "case", "mr", "mask"}
    assert synthrad_problems(tmp_path) == [f"{tmp_path / '1BA010'}: ct is missing"]


def test_missing_and_empty_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"rad does not exist .* Set dataset_dir .*1B{A,B,C}NNN"):
        read_synthrad(tmp_path / "rad")
    (tmp_path / "overview").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No case in .*expected Task1/brain/.*found overview/"):
        read_synthrad(tmp_path)


def test_each_site_is_a_data_set_of_its_own(archive: Path) -> None:
    """Same archive, other folder: nobody of the brain among the pelves, also where the site's folder is given."""
    pelvis = archive / "Task1" / "pelvis"
    for patient in ("1PC000", "1PA001"):
        make(pelvis, patient)
    (pelvis / "overview").mkdir()
    for folder in (archive, archive / "Task1", pelvis):
        assert [item["patient"] for item in read_synthrad(folder, "pelvis")] == ["1PA001", "1PC000"]
    assert [item["patient"] for item in read_synthrad(archive)] == ["1BA002", "1BB005", "1BC011"]
    (pelvis / "1PA001" / "ct.nii.gz").unlink()
    assert synthrad_problems(archive, "pelvis") == [f"{pelvis / '1PA001'}: ct is missing"]
    assert synthrad_problems(archive) == []


def test_the_other_site_s_folder_is_refused(archive: Path) -> None:
    with pytest.raises(ValueError, match=r"3 patient\(s\) of the brain \(1BA002, 1BB005, 1BC011\), but the pelvis is"):
        read_synthrad(archive / "Task1" / "brain", "pelvis")
    with pytest.raises(FileNotFoundError, match=r"expected Task1/pelvis/1P{A,B,C}NNN/.*found Task1/"):
        read_synthrad(archive, "pelvis")
