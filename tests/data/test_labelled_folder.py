"""labelled_folder: pairs of one's own, and what is wrong with them is named."""

import json
import logging
from pathlib import Path

import pytest

from common.data.cases import find_cases
from common.data.readers.labelled_folder import LabelInfo, labelled_folder_problems, read_label_info


def pairs(root: Path, *names: str, extension: str = ".nii.gz") -> Path:
    """Empty files: the reader looks at names only."""
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / part / f"{name}{extension}").touch()
    return root


def test_pairs_are_cases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs(tmp_path, "b", extension=".nii")
    pairs(tmp_path, "a")
    (tmp_path / "images" / "a.json").touch()
    (tmp_path / "images" / ".hidden.nii.gz").touch()
    with caplog.at_level(logging.WARNING):
        cases = find_cases("labelled_folder", tmp_path, frames="labelled")
    assert cases == [
        {
            "image": str(tmp_path / "images" / f"{name}{end}"),
            "label": str(tmp_path / "labels" / f"{name}{end}"),
            "patient": name,
            "case": name,
        }
        for name, end in (("a", ".nii.gz"), ("b", ".nii"))
    ]
    assert "each of the 2 files counts as its own patient" in caplog.text


def test_metadata_gives_patient_group_and_section(tmp_path: Path) -> None:
    pairs(tmp_path, "a", "b", "c")
    lines = ["file,patient,group,section", "c.nii.gz,p3,,", "a.nii.gz,p1,DCM,test", "b.nii.gz,p1,DCM,test"]
    (tmp_path / "metadata.csv").write_text("\n".join([*lines, "gone.nii.gz,p9,,"]))
    first, second, third = find_cases("labelled_folder", tmp_path)
    assert (first["patient"], first["group"]) == ("p1", "DCM")
    assert second["patient"] == "p1"
    assert "group" not in third
    assert {case["case"] for case in find_cases("labelled_folder", tmp_path, "test")} >= {"a", "b"}
    (tmp_path / "labels" / "notes.txt").touch()
    assert labelled_folder_problems(tmp_path) == [
        f"{tmp_path / 'labels' / 'notes.txt'}: not a NIfTI file; left out",
        f"{tmp_path / 'metadata.csv'}: gone.nii.gz has a line, but no image",
    ]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("labels/b.nii.gz", r"1 image\(s\) without a label map, first b; add .*labels/b\.nii\.gz"),
        ("images/b.nii.gz", r"1 label map\(s\) without an image, first b; add .*images/b\.nii\.gz"),
    ],
)
def test_half_a_pair_is_refused(tmp_path: Path, missing: str, expected: str) -> None:
    (pairs(tmp_path, "a", "b") / missing).unlink()
    with pytest.raises(ValueError, match=expected):
        find_cases("labelled_folder", tmp_path)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("file,patient\na.nii.gz,p1", r"1 image\(s\) have no line, first b\.nii\.gz"),
        ("name,patient\na,p1", "needs the column file"),
        ("file,section\na.nii.gz,train\nb.nii.gz,test", r"line 2: section 'train' is not one of training"),
        ("file,patient,section\na.nii.gz,p1,test\nb.nii.gz,p1,", r"p1 has more than one section: \(empty\), test"),
        ("file,patient,group\na.nii.gz,p1,DCM\nb.nii.gz,p1,NOR", "p1 has more than one group: DCM, NOR"),
    ],
)
def test_metadata_that_cannot_be_followed_is_refused(tmp_path: Path, table: str, expected: str) -> None:
    (pairs(tmp_path, "a", "b") / "metadata.csv").write_text(table)
    with pytest.raises(ValueError, match=expected):
        find_cases("labelled_folder", tmp_path)


def test_one_name_with_two_extensions_is_refused(tmp_path: Path) -> None:
    pairs(pairs(tmp_path, "a"), "a", extension=".nii")
    with pytest.raises(ValueError, match=r"images has a\.nii and a\.nii\.gz"):
        find_cases("labelled_folder", tmp_path)


def test_a_folder_without_pairs_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected images/<name>\.nii\.gz with labels/.* found volumes/"):
        find_cases("labelled_folder", tmp_path)


def test_labels_json_keeps_the_order_of_the_classes(tmp_path: Path) -> None:
    assert read_label_info(tmp_path) is None
    content = {"values": {"0": "background", "500": "LV", "205": "wall"}, "synthetic": True, "source_patients": ["p1"]}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    info = read_label_info(tmp_path)
    assert info == LabelInfo({0: "background", 500: "LV", 205: "wall"}, True, ("p1",), None)
    assert list(info.values) == [0, 500, 205]
    (tmp_path / "labels.json").write_text('{"values": {"0": "background"}}')
    assert read_label_info(tmp_path) == LabelInfo({0: "background"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold one JSON object"),
        ("{}", "found None"),
        ('{"values": {"0": "a", "wall": "b"}}', "whole numbers with different names"),
        ('{"values": {"1": "a", "0": "b"}}', "0 first"),
        ('{"values": {"0": "a", "1": "a"}}', "different names"),
    ],
)
def test_labels_json_that_says_nothing_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ValueError, match=rf"labels\.json.*{expected}"):
        read_label_info(tmp_path)
