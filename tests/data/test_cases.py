"""find_cases: data sets by name, sections by patient, and one clear message for everything that can be wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.cases import DATASETS, find_cases
from common.data.readers.acdc import acdc_problems, read_info
from common.data.readers.image_folder import image_folder_problems
from common.data.splits import SECTIONS, require_disjoint, split_of

MakeACDC = Callable[..., Path]


def test_sections_share_no_patient_and_lose_none(acdc: MakeACDC) -> None:
    root = acdc(30)
    sections = {section: find_cases("acdc", root, section) for section in SECTIONS}
    require_disjoint(sections)
    everything = [case["case"] for case in find_cases("acdc", root)]
    assert sorted(case["case"] for cases in sections.values() for case in cases) == everything
    assert len(everything) == 60


def test_all_frames_take_the_cine_and_labelled_frames_their_labels(acdc: MakeACDC) -> None:
    root = acdc(2, cine=True)
    assert [case["case"] for case in find_cases("acdc", root)] == ["patient001_4d", "patient002_4d"]
    labelled = find_cases("acdc", root, frames="labelled")
    assert [case["case"] for case in labelled] == [f"patient00{n}_frame0{f}" for n in (1, 2) for f in (1, 5)]
    for case in labelled:
        assert case["label"] == case["image"].replace(".nii.gz", "_gt.nii.gz")
        assert Path(case["label"]).is_file()
        assert case["patient"] == case["case"][:10]


def test_without_a_cine_all_frames_are_the_single_ones(acdc: MakeACDC) -> None:
    assert len(find_cases("acdc", acdc(3), frames="all")) == 6


def test_the_archive_is_read_as_it_unpacks(acdc: MakeACDC) -> None:
    root = acdc(6)
    for part, numbers in {"training": (1, 2, 3, 4), "testing": (5, 6)}.items():
        (root / "database" / part).mkdir(parents=True)
        for number in numbers:
            (root / f"patient{number:03d}").rename(root / "database" / part / f"patient{number:03d}")
    assert len(find_cases("acdc", root)) == 12
    assert len(find_cases("acdc", root / "database")) == 12


def test_info_is_read(acdc: MakeACDC) -> None:
    assert read_info(acdc(1) / "patient001") == {"ED": "1", "ES": "5", "Group": "NOR", "NbFrame": "5"}


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Unknown dataset 'cardiac_fantom'. Did you mean cardiac_phantom"):
        find_cases("cardiac_fantom", tmp_path)


def test_an_unknown_section_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unknown section 'train'; choose one of training, validation, test"):
        find_cases("acdc", tmp_path, "train")
    with pytest.raises(ValueError, match="Unknown frames 'ed'"):
        find_cases("acdc", tmp_path, frames="ed")


def first_image(dataset: str) -> dict[str, str] | None:
    """Something to ask for, where a case has several images."""
    names = DATASETS[dataset].images
    return {"source": names[0]} if names else None


@pytest.mark.parametrize("dataset", sorted(name for name in DATASETS if DATASETS[name].write is None))
def test_a_missing_folder_says_what_is_there_instead(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "ACDC-2017").mkdir()
    with pytest.raises(FileNotFoundError, match=r"acdc/x does not exist .*holds ACDC-2017/.* Set dataset_dir"):
        find_cases(dataset, tmp_path / "acdc" / "x", images=first_image(dataset))


@pytest.mark.parametrize("dataset", sorted(name for name in DATASETS if DATASETS[name].write is None))
def test_a_folder_without_cases_says_what_was_expected_and_seen(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"No case in .*: expected .*, found an empty folder"):
        find_cases(dataset, tmp_path, images=first_image(dataset))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"expected .*, found notes\.txt"):
        find_cases(dataset, tmp_path, images=first_image(dataset))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "acdc.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"acdc\.zip is a file; dataset_dir must be a folder"):
        find_cases("acdc", tmp_path / "acdc.zip")


def test_an_empty_section_explains_the_split(acdc: MakeACDC) -> None:
    with pytest.raises(
        ValueError, match=r"test section of acdc .* empty.*rule on the patient ids.*training 1 \(patient001\)"
    ):
        find_cases("acdc", acdc(1), "test")


def test_a_patient_in_two_parts_of_the_archive_is_refused(acdc: MakeACDC) -> None:
    root = acdc(2)
    shutil.copytree(root / "patient001", root / "training" / "patient001")
    with pytest.raises(ValueError, match=r"occur twice \(patient001_frame01, patient001_frame05\)"):
        find_cases("acdc", root)


def test_names_that_do_not_fit_the_layout_are_listed(acdc: MakeACDC) -> None:
    root = acdc(3)
    assert acdc_problems(root) == []
    (root / "patient001" / "patient002_frame01.nii.gz").touch()
    (root / "patient002" / "patient002_frame05_gt.nii.gz").unlink()
    (root / "patient003" / "Info.cfg").write_text("ED: 1\nES: 7\n")
    problems = acdc_problems(root)
    assert len(problems) == 3
    assert "patient002_frame01.nii.gz: not a file of the ACDC layout" in problems[0]
    assert "frame05 has no label map" in problems[1]
    assert "frame07 (ES in Info.cfg) is missing" in problems[2]


def echonet(root: Path, splits: dict[str, str]) -> Path:
    (root / "Videos").mkdir(parents=True)
    lines = ["FileName,EF,Split"] + [f"{name},55.0,{split}" for name, split in splits.items()]
    (root / "FileList.csv").write_text("\n".join(lines) + "\n")
    for name in splits:
        (root / "Videos" / f"{name}.avi").touch()
    return root


def test_echonet_keeps_the_sections_of_its_split_column(tmp_path: Path) -> None:
    root = echonet(tmp_path / "EchoNet-Dynamic", {"0XA": "TRAIN", "0XB": "VAL", "0XC": "TEST", "0XD": "TRAIN"})
    for folder in (root, tmp_path):
        assert [case["case"] for case in find_cases("echonet", folder, "training")] == ["0XA", "0XD"]
        assert find_cases("echonet", folder, "test") == [
            {"image": str(root / "Videos" / "0XC.avi"), "patient": "0XC", "case": "0XC"}
        ]


def test_echonet_errors_name_the_line(tmp_path: Path) -> None:
    root = echonet(tmp_path / "a", {"0XA": "TRAIN", "0XB": "TRAINING"})
    with pytest.raises(ValueError, match="Split of 0XB is 'TRAINING'; expected TRAIN, VAL or TEST"):
        find_cases("echonet", root)
    root = echonet(tmp_path / "b", {"0XA": "TRAIN", "0XB": "TEST"})
    with pytest.raises(ValueError, match=r"validation section .* own parts.*training 1 \(0XA\), validation 0"):
        find_cases("echonet", root, "validation")
    (root / "Videos" / "0XB.avi").unlink()
    with pytest.raises(FileNotFoundError, match=r"lists 1 video\(s\) that are not in .*first 0XB\.avi"):
        find_cases("echonet", root)
    (root / "FileList.csv").write_text("Name,EF\nx,1\n")
    with pytest.raises(ValueError, match="no column FileName, Split; found Name, EF"):
        find_cases("echonet", root)
    with pytest.raises(ValueError, match="no label maps"):
        find_cases("echonet", root, frames="labelled")


def image_folder(root: Path) -> Path:
    for name in ("nevus/a.png", "nevus/b.jpg", "melanoma/c.PNG", "masks/a.png", "scan/1.dcm", "scan/2.dcm", "v.nii.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_an_image_folder_lists_files_and_dicom_folders(tmp_path: Path) -> None:
    cases = find_cases("image_folder", image_folder(tmp_path))
    assert [case["case"] for case in cases] == ["melanoma/c.PNG", "nevus/a.png", "nevus/b.jpg", "scan", "v.nii.gz"]
    assert all(case["patient"] == case["case"] for case in cases)


def test_metadata_says_which_images_are_one_patient(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    table = root / "metadata.csv"
    table.write_text("file,patient\nnevus/a.png,p1\nnevus/b.jpg,p1\nmelanoma/c.PNG,p2\nscan,p3\nv.nii.gz,p3\n")
    cases = find_cases("image_folder", root)
    assert [case["patient"] for case in cases] == ["p2", "p1", "p1", "p3", "p3"]
    table.write_text("file,patient\nnevus/a.png,p1\n")
    with pytest.raises(ValueError, match=r"4 image\(s\) have no line, first melanoma/c\.PNG"):
        find_cases("image_folder", root)
    table.write_text("name,who\n")
    with pytest.raises(ValueError, match="needs the columns file and patient"):
        find_cases("image_folder", root)


def test_an_image_folder_names_what_it_leaves_out(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "nevus" / "notes.docx").touch()
    (root / ".DS_Store").touch()
    assert image_folder_problems(root) == [f"{root / 'nevus' / 'notes.docx'}: not an image file; left out"]


def test_a_phantom_is_written_once_and_read_like_acdc(tmp_path: Path) -> None:
    options = {"cases": 2, "size": 64, "cine": False, "seed": 3}
    found = find_cases("cardiac_phantom", tmp_path / "phantoms", frames="labelled", **options)
    assert [case["patient"] for case in found] == ["patient001"] * 2 + ["patient002"] * 2
    assert all(Path(case["label"]).is_file() for case in found)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert find_cases("cardiac_phantom", tmp_path / "phantoms", frames="labelled", **options) == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == written


@pytest.mark.slow
def test_the_echo_phantom_carries_the_split_that_its_patients_hash_to(tmp_path: Path) -> None:
    for section in ("training", "test"):
        found = find_cases("echo_phantom", tmp_path, section, cases=5)
        assert {split_of("echo_phantom", case["patient"]) for case in found} == {section}
