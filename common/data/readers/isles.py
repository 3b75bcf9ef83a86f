"""ISLES 2015 SISS layout: ``SISS2015_Training/<n>/VSD.Brain.XX.O.MR_<name>.<id>/<same name>.nii``.

``<name>`` is DWI, Flair, T1 or T2, the lesion mask lies in ``VSD.Brain.XX.XX.OT.<id>`` (training only), and every file
has its own id. Newer releases name things differently, so a file counts as what its name says.
"""

import re
from pathlib import Path

from ..listing import Case, nothing_found, require_folder, seen_in

EXPECTED = "SISS2015_Training/<n>/VSD.Brain.XX.O.MR_{DWI,Flair,T1,T2}.<id>/*.nii (and VSD.Brain.XX.XX.OT.<id>/*.nii)"
MODALITIES = ("DWI", "Flair", "T1", "T2", "label")

_EXTENSIONS = (".nii", ".nii.gz", ".mha")
_PARTS = {"training": "SISS2015_Training", "testing": "SISS2015_Testing"}
_NAMES = {name: re.compile(rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])", re.IGNORECASE) for name in MODALITIES[:-1]}
_NAMES["label"] = re.compile(r"(?<![A-Za-z0-9])(OT|label|lesion|mask)(?![A-Za-z0-9])", re.IGNORECASE)


def read_isles(root: Path) -> list[Case]:
    """List the patients of an ISLES folder: the archive's, or one of its two parts.

    Returns:
        items with ``patient`` = ``case`` ("training_7"), the archive's ``section`` and the path of each of
        :data:`MODALITIES` that is there.

    Raises:
        FileNotFoundError: no folder, or no patient in it.
        ValueError: if two files of a patient claim to be the same contrast.
    """
    require_folder(root, EXPECTED)
    items = []
    for name, folder in patient_folders(root):
        found = _modalities(folder)
        if found.keys() - {"label"}:
            section = "training" if name.startswith("training") else "test"
            items.append({"patient": name, "case": name, "section": section, **found})
    if not items:
        raise nothing_found(root, EXPECTED)
    return items


def patient_folders(root: Path) -> list[tuple[str, Path]]:
    """Name and folder of every patient, by part and number."""
    parts = {part: root if root.name == folder else root / folder for part, folder in _PARTS.items()}
    return [
        (f"{part}_{entry.name}", entry)
        for part, folder in parts.items()
        if folder.is_dir()
        for entry in sorted(
            (entry for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit()),
            key=lambda entry: int(entry.name),
        )
    ]


def isles_problems(root: Path) -> list[str]:
    """Patients whose files are missing, doubled or of unknown name; the files themselves are not opened."""
    problems = []
    for name, folder in patient_folders(root):
        try:
            found = _modalities(folder)
        except ValueError as error:
            problems.append(str(error))
            continue
        wanted = MODALITIES if name.startswith("training") else MODALITIES[:-1]
        problems += [f"{folder}: {modality} is missing" for modality in wanted if modality not in found]
        problems += [
            f"{path}: not a file of the ISLES layout; expected {EXPECTED}"
            for path in _images(folder)
            if str(path) not in found.values()
        ]
    return problems


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.endswith(_EXTENSIONS))


def _modalities(folder: Path) -> dict[str, str]:
    found = {}
    for modality, pattern in _NAMES.items():
        hits = [path for path in _images(folder) if pattern.search(path.name)]
        if len(hits) > 1:
            raise ValueError(
                f"{folder} has {len(hits)} files for {modality} ({', '.join(path.name for path in hits)}) among "
                f"{seen_in(folder)}; keep one."
            )
        if hits:
            found[modality] = str(hits[0])
    return found
