"""Images with label maps: ``images/<name>.nii.gz`` and ``labels/<name>.nii.gz`` for every name, for data of one's own.

Synthetic sets are written in this layout, too. Beside the two folders may lie

- ``metadata.csv`` with the column ``file`` (``<name>.nii.gz``) and any of ``patient`` (or ``lesion_id``), ``group``
  (diagnosis) and ``section`` (training, validation or test). Without patients every file is its own, which is only
  right if no patient has two files.
- ``labels.json``: ``{"values": {"0": "background", "1": "left ventricle", ...}}``, what the values of the label maps
  mean, in the order of the classes. Of a synthetic set also ``"synthetic": true``, ``"source_dataset"`` and
  ``"source_patients"``, from whose label maps it was made.
"""

import csv
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..listing import Case, nothing_found, require_folder
from ..splits import SECTIONS

EXPECTED = "images/<name>.nii.gz with labels/<name>.nii.gz, and where known metadata.csv and labels.json"

_EXTENSIONS = (".nii.gz", ".nii")
_OPTIONAL = ("group", "section")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelInfo:
    """What ``labels.json`` says. values: value in the files -> name, in the order of the classes; 0 comes first."""

    values: Mapping[int, str]
    synthetic: bool = False
    source_patients: tuple[str, ...] = ()
    source_dataset: str | None = None


def read_labelled_folder(root: Path) -> list[Case]:
    """List the pairs below ``root``, sorted by name; ``group`` and ``section`` where metadata.csv has them.

    Raises:
        FileNotFoundError: no folder, or no image in it.
        ValueError: an image without label map or the reverse, a name twice, or a metadata.csv that leaves an image
            out, names no known section, or puts one patient into two sections or groups.
    """
    require_folder(root, EXPECTED)
    images, labels = _files(root / "images"), _files(root / "labels")
    if not images and not labels:
        raise nothing_found(root, EXPECTED)
    _require_pairs(root, images, labels)
    rows = _rows(root / "metadata.csv", list(images))
    cases = [
        Case(image=str(path), label=str(labels[name]), patient=row.get("patient") or name, case=name)
        | {key: row[key] for key in _OPTIONAL if row.get(key)}
        for (name, path), row in zip(images.items(), rows, strict=True)
    ]
    _require_one_home(cases, root / "metadata.csv")
    return cases


def labelled_folder_problems(root: Path) -> list[str]:
    """Files that the reader leaves out, and lines of metadata.csv without a file."""
    problems = []
    names = set()
    for folder in (root / "images", root / "labels"):
        taken = set(_files(folder).values())
        names |= {path.name for path in taken}
        problems += [
            f"{path}: not a NIfTI file; left out"
            for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
            if path not in taken and path.suffix != ".json" and not path.name.startswith(".")
        ]
    table = root / "metadata.csv"
    if table.is_file():
        lines = sorted({row["file"] for row in _read_table(table)} - names)
        problems += [f"{table}: {name} has a line, but no image" for name in lines]
    return problems


def read_label_info(root: Path) -> LabelInfo | None:
    """What ``labels.json`` of a labelled folder says, or None if there is no such file.

    Raises:
        ValueError: it is not JSON, or its ``values`` are not whole numbers with different names, 0 (background) first.
    """
    path = root / "labels.json"
    if not path.is_file():
        return None
    content = _read_json(path)
    values: Any = content.get("values")
    try:
        named = {int(value): str(name) for value, name in values.items()}
    except (AttributeError, ValueError):
        named = {}
    if next(iter(named), None) != 0 or len({*named.values()}) < len(values):
        raise ValueError(
            f'{path} needs "values": {{"0": "background", "1": name, ...}}, whole numbers with different names, 0 '
            f"first; found {values}."
        )
    return LabelInfo(
        values=named,
        synthetic=bool(content.get("synthetic", False)),
        source_patients=tuple(map(str, content.get("source_patients", ()))),
        source_dataset=content.get("source_dataset"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object.")
    return content


def _files(folder: Path) -> dict[str, Path]:
    """Name without extension -> NIfTI file, sorted by name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        extension = next((end for end in _EXTENSIONS if path.name.lower().endswith(end)), None)
        if extension is None or path.name.startswith(".") or not path.is_file():
            continue
        name = path.name[: -len(extension)]
        if name in found:
            raise ValueError(f"{folder} has {found[name].name} and {path.name}; remove one of them.")
        found[name] = path
    return dict(sorted(found.items()))


def _require_pairs(root: Path, images: Mapping[str, Path], labels: Mapping[str, Path]) -> None:
    for lonely, what, other in (
        (sorted(images.keys() - labels.keys()), "image(s) without a label map", "labels"),
        (sorted(labels.keys() - images.keys()), "label map(s) without an image", "images"),
    ):
        if lonely:
            raise ValueError(
                f"{root} has {len(lonely)} {what}, first {lonely[0]}; add {root / other / lonely[0]}.nii.gz, or take "
                "the file without a partner away."
            )


def _rows(table: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The line of metadata.csv of each name; empty where there is no such file."""
    if not table.is_file():
        logger.warning(
            "%s has no metadata.csv (columns file, patient): each of the %d files counts as its own patient.",
            table.parent,
            len(names),
        )
        return [{} for _ in names]
    lines = {_stem(row["file"]): row for row in _read_table(table)}
    absent = [name for name in names if name not in lines]
    if absent:
        raise ValueError(
            f"{table}: {len(absent)} image(s) have no line, first {absent[0]}.nii.gz; add them with their patient."
        )
    return [lines[name] for name in names]


def _read_table(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        if "file" not in columns:
            raise ValueError(f"{table}: needs the column file (<name>.nii.gz), found {', '.join(columns)}.")
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    for number, row in enumerate(rows, start=2):
        row.setdefault("patient", row.get("lesion_id", ""))
        if row.get("section") and row["section"] not in SECTIONS:
            raise ValueError(
                f"{table}, line {number}: section {row['section']!r} is not one of {', '.join(SECTIONS)}; an empty one "
                "lets the patient's name decide."
            )
    return rows


def _require_one_home(cases: Sequence[Case], table: Path) -> None:
    """Raise unless all files of a patient have the same section and group."""
    for key in _OPTIONAL:
        homes = defaultdict(set)
        for case in cases:
            homes[case["patient"]].add(case.get(key, "(empty)"))
        for patient, found in homes.items():
            if len(found) > 1:
                raise ValueError(f"{table}: patient {patient} has more than one {key}: {', '.join(sorted(found))}.")


def _stem(name: str) -> str:
    return next((name[: -len(end)] for end in _EXTENSIONS if name.lower().endswith(end)), name)
