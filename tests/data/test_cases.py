"""find_cases: data sets by name, sections by patient, and one clear message for everything that can be wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
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


def brats(root: Path, scans: dict[str, str]) -> Path:
    """BraTS scans of empty files: ``{"00001-000": "t1n t2f seg"}``."""
    for number, names in scans.items():
        scan = root / f"BraTS-GLI-{number}"
        scan.mkdir(parents=True)
        for name in names.split():
            (scan / f"{scan.name}-{name}.nii.gz").touch()
    return root


def test_images_come_under_the_keys_asked_for(tmp_path: Path) -> None:
    root = brats(tmp_path, {"00002-001": "t1n t1c t2f seg", "00001-000": "t1n t2f"})
    first, second = (root / f"BraTS-GLI-{number}" for number in ("00001-000", "00002-001"))
    found = find_cases("brats", root, images={"source": "t2f", "target": "t1n"}, optional={"region": "seg"})
    assert found == [
        {
            "patient": "BraTS-GLI-00001",
            "case": "BraTS-GLI-00001-000",
            "source": str(first / "BraTS-GLI-00001-000-t2f.nii.gz"),
            "target": str(first / "BraTS-GLI-00001-000-t1n.nii.gz"),
        },
        {
            "patient": "BraTS-GLI-00002",
            "case": "BraTS-GLI-00002-001",
            "source": str(second / "BraTS-GLI-00002-001-t2f.nii.gz"),
            "target": str(second / "BraTS-GLI-00002-001-t1n.nii.gz"),
            "region": str(second / "BraTS-GLI-00002-001-seg.nii.gz"),
        },
    ]


def test_a_missing_modality_names_the_cases_that_lack_it(tmp_path: Path) -> None:
    complete = {f"{number:05d}-000": "t1n t2w" for number in range(3)}
    root = brats(tmp_path, {**complete, "00003-000": "t1n seg", "00004-000": "t1n"})
    with pytest.raises(
        ValueError,
        match=r"2 of 5 cases have no t2w \(BraTS-GLI-00003-000, BraTS-GLI-00004-000\)\. Add the files, .*"
        r"BraTS-GLI-00003-000 has seg, t1n\.",
    ):
        find_cases("brats", root, images={"source": "t1n", "target": "t2w"})


def test_only_the_cases_of_the_section_need_the_images(tmp_path: Path) -> None:
    """The hidden test part of an archive may lack what training needs."""
    root = tmp_path / "brats"
    parts = [root / f"ASNR-MICCAI-BraTS2023-GLI-Challenge-{part}Data" for part in ("Training", "Validation")]
    brats(parts[0], {"00001-000": "t1n t2f", "00002-000": "t1n t2f"})
    brats(parts[1], {"00003-000": "t1n"})
    pair = {"source": "t1n", "target": "t2f"}
    assert [case["case"] for case in find_cases("brats", root, "training", images=pair)] == ["BraTS-GLI-00001-000"]
    with pytest.raises(ValueError, match=r"1 of 1 cases have no t2f \(BraTS-GLI-00003-000\)"):
        find_cases("brats", root, "test", images=pair)


@pytest.mark.parametrize(
    ("dataset", "images", "message"),
    [
        ("brats", {"source": "t1n", "target": "t2"}, r"no image called 't2'. Did you mean t2w\? .*: t1n, t1c,"),
        ("isles", {"source": "flair"}, r"no image called 'flair'. Did you mean Flair\?"),
        ("synthrad", {"source": "pet_scan"}, r"no image called 'pet_scan'. Its images: mr, ct, mask"),
        ("brats", None, r"several images \(t1n, t1c, t2w, t2f, seg\); say which in `images`"),
        ("acdc", {"source": "t1n"}, r"A case of acdc has one image; 't1n' cannot be asked for"),
    ],
)
def test_images_that_a_data_set_cannot_have(
    tmp_path: Path, dataset: str, images: dict[str, str] | None, message: str
) -> None:
    """Refused before anything is read: the folder does not even exist."""
    with pytest.raises(ValueError, match=message):
        find_cases(dataset, tmp_path / "nowhere", images=images)


def test_an_optional_image_must_be_one_of_the_data_set_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no image called 'mask'"):
        find_cases("brats", tmp_path, images={"source": "t1n"}, optional={"region": "mask"})


def test_patients_can_be_held_out_by_name(tmp_path: Path) -> None:
    root = brats(tmp_path, {f"{patient:05d}-{visit:03d}": "t1n" for patient in range(4) for visit in (0, 1)})
    options = {"images": {"source": "t1n"}, "held_out": ["BraTS-GLI-00002"]}
    sections = {section: find_cases("brats", root, section, **options) for section in SECTIONS}
    out = ["BraTS-GLI-00002-000", "BraTS-GLI-00002-001"]
    assert {name: [case["case"] for case in found if case["case"] in out] for name, found in sections.items()} == {
        "training": [],
        "validation": out,
        "test": out,
    }
    assert [len(found) for found in sections.values()] == [6, 2, 2]


@pytest.mark.parametrize(
    ("dataset", "patients"),
    [
        ("brain_phantom", ["BraTS-GLI-00000"] * 2 + ["BraTS-GLI-00001", "BraTS-GLI-00002"]),
        ("brain_phantom_isles", ["training_1", "training_2", "training_3"]),
        ("brain_phantom_synthrad", ["1BA002", "1BB005", "1BC008"]),
    ],
)
def test_brain_phantoms_are_written_in_the_layouts_of_the_archives(
    tmp_path: Path, dataset: str, patients: list[str]
) -> None:
    """All contrasts and the mask of a case are there, on one grid; the first patient of BraTS comes twice."""
    names = DATASETS[dataset].images
    options = {"images": {name: name for name in names}, "cases": 3, "size": 48, "slices": 8}
    found = find_cases(dataset, tmp_path, **options)
    assert [case["patient"] for case in found] == patients
    for case in found:
        volumes = [nibabel.load(case[name]) for name in names]
        assert {volume.shape for volume in volumes} == {volumes[0].shape}
        assert all(np.array_equal(volume.affine, volumes[0].affine) for volume in volumes)
        label = np.asarray(volumes[-1].dataobj)
        assert set(np.unique(label)) <= set(DATASETS[dataset].labels)
        assert label.any()
    by_section = [case for section in SECTIONS for case in sections_of(dataset, tmp_path, section, options)]
    assert sorted(case["case"] for case in by_section) == [case["case"] for case in found]


def sections_of(dataset: str, root: Path, section: str, options: dict) -> list[dict]:
    """The cases of a section; of so few patients it may be empty, which is an error otherwise."""
    patients = {case["patient"] for case in find_cases(dataset, root, **options)}
    homes = {split_of("brain", patient) for patient in patients}
    return find_cases(dataset, root, section, **options) if section in homes else []


def test_items_of_acdc_tell_group_and_phase_where_the_patient_s_file_does(acdc: MakeACDC) -> None:
    root = acdc(2, cine=True)
    (root / "patient002" / "Info.cfg").unlink()
    labelled = find_cases("acdc", root, frames="labelled")
    assert [(case.get("group"), case["frame"]) for case in labelled] == [
        ("NOR", "ED"), ("NOR", "ES"), (None, "1"), (None, "5"),
    ]  # fmt: skip
    cine = find_cases("acdc", root)
    assert [(case.get("group"), "frame" in case) for case in cine] == [("NOR", False), (None, False)]


def test_a_label_map_of_acdc_without_image_is_an_error_and_an_image_without_label_is_left_out(
    acdc: MakeACDC, caplog: pytest.LogCaptureFixture
) -> None:
    root = acdc(2)
    (root / "patient001" / "patient001_frame05_gt.nii.gz").unlink()
    found = find_cases("acdc", root, frames="labelled")
    assert [case["case"] for case in found] == ["patient001_frame01", "patient002_frame01", "patient002_frame05"]
    assert "1 frame(s) without a label map are left out: patient001_frame05" in caplog.text
    (root / "patient002" / "patient002_frame01.nii.gz").unlink()
    with pytest.raises(
        ValueError, match=r"patient002_frame01_gt\.nii\.gz has no image; add patient002_frame01\.nii\.gz"
    ):
        find_cases("acdc", root, frames="labelled")
    assert len(find_cases("acdc", root)) == 3  # what needs no labels is not disturbed


def test_the_stratified_split_is_a_choice_and_gives_way_to_names(acdc: MakeACDC) -> None:
    root = acdc(20)
    sections = {section: find_cases("acdc", root, section, split="stratified") for section in SECTIONS}
    require_disjoint(sections)
    assert [len(cases) for cases in sections.values()] == [28, 8, 4]
    named = find_cases("acdc", root, "test", split="stratified", held_out=["patient003"])
    assert {case["patient"] for case in named} == {"patient003"}
    with pytest.raises(ValueError, match="Unknown split 'random'; choose one of hash, stratified"):
        find_cases("acdc", root, split="random")
    one = root / "one"
    shutil.copytree(root / "patient001", one / "patient001")
    with pytest.raises(ValueError, match=r"test section .* goes by shares of every group"):
        find_cases("acdc", one, "test", split="stratified")
