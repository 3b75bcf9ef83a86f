"""EchoNet-Dynamic layout (Ouyang et al., Nature 2020): ``Videos/*.avi`` and ``FileList.csv`` with a Split column."""

import csv
from pathlib import Path

from ..listing import Case, nothing_found, require_folder

EXPECTED = "FileList.csv and Videos/*.avi (or the folder EchoNet-Dynamic that holds them)"
SECTIONS = {"TRAIN": "training", "VAL": "validation", "TEST": "test"}


def read_echonet(root: Path, frames: str) -> list[Case]:
    """List the videos of an EchoNet-Dynamic folder; one video is one patient, sections are those of its Split column.

    Raises:
        ValueError: for ``frames="labelled"`` (there are no label maps) or a bad FileList.csv.
        FileNotFoundError: FileList.csv or a listed video is missing.
    """
    if frames != "all":
        raise ValueError("EchoNet-Dynamic has no label maps: use frames 'all'.")
    require_folder(root, EXPECTED)
    base = _base(root)
    if not (base / "FileList.csv").is_file():
        raise nothing_found(root, EXPECTED)
    rows = _rows(base / "FileList.csv")
    missing = [name for name, _ in rows if not _video(base, name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{base / 'FileList.csv'} lists {len(missing)} video(s) that are not in {base / 'Videos'}, "
            f"first {missing[0]}.avi. Unpack the archive again, or remove their lines."
        )
    if not rows:
        raise nothing_found(root, EXPECTED + " with at least one line")
    return [Case(image=str(_video(base, name)), patient=name, case=name, section=section) for name, section in rows]


def echonet_problems(root: Path) -> list[str]:
    """Videos that FileList.csv does not list."""
    base = _base(root)
    listed = {_video(base, name) for name, _ in _rows(base / "FileList.csv")}
    return [f"{path}: not listed in FileList.csv" for path in sorted((base / "Videos").iterdir()) if path not in listed]


def _base(root: Path) -> Path:
    inner = root / "EchoNet-Dynamic"
    return inner if not (root / "FileList.csv").is_file() and inner.is_dir() else root


def _video(base: Path, name: str) -> Path:
    return base / "Videos" / f"{name}.avi"


def _rows(path: Path) -> list[tuple[str, str]]:
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        absent = {"FileName", "Split"} - set(reader.fieldnames or ())
        if absent:
            raise ValueError(
                f"{path}: no column {', '.join(sorted(absent))}; found {', '.join(reader.fieldnames or ())}."
            )
        rows = [(row["FileName"].removesuffix(".avi"), row["Split"].strip().upper()) for row in reader]
    wrong = [(name, split) for name, split in rows if split not in SECTIONS]
    if wrong:
        raise ValueError(f"{path}: Split of {wrong[0][0]} is {wrong[0][1]!r}; expected TRAIN, VAL or TEST.")
    return [(name, SECTIONS[split]) for name, split in rows]
