"""BraTS 2023 GLI layout: ``BraTS-GLI-NNNNN-TTT/BraTS-GLI-NNNNN-TTT-{t1n,t1c,t2w,t2f,seg}.nii.gz``.

NNNNN is the patient, TTT the time point: scans of one patient must stay in one part of a split. The case folders may
lie in the given folder or in those that the archives unpack to. Any of the contrasts may be missing.
"""

import re
from pathlib import Path

from ..listing import Case, nothing_found, require_folder

EXPECTED = "BraTS-GLI-NNNNN-TTT/BraTS-GLI-NNNNN-TTT-{t1n,t1c,t2w,t2f,seg}.nii.gz"
MODALITIES = ("t1n", "t1c", "t2w", "t2f", "seg")
LABELS = (0, 1, 2, 3)  # background, necrotic core, edema, enhancing tumor

_SCAN = re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d{5})-\d{3}")
_PARTS = {
    "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData": "training",
    "ASNR-MICCAI-BraTS2023-GLI-Challenge-ValidationData": "test",  # its images are public, its labels are not
}


def read_brats(root: Path) -> list[Case]:
    """List the scans of a BraTS folder, one item per patient and time point.

    Returns:
        items with ``patient`` (without the time point), ``case`` (with it) and the path of each of
        :data:`MODALITIES` that is there; ``section`` if it lies in one of the archive's parts.

    Raises:
        FileNotFoundError: no folder, or no scan with a contrast in it.
    """
    require_folder(root, EXPECTED)
    items = []
    for folder in scan_folders(root):
        found = _modalities(folder)
        match = _SCAN.fullmatch(folder.name)
        if match is not None and found.keys() - {"seg"}:
            part = {"section": _PARTS[folder.parent.name]} if folder.parent != root else {}
            items.append({"patient": match["patient"], "case": folder.name, **found, **part})
    if not items:
        raise nothing_found(root, EXPECTED)
    return items


def scan_folders(root: Path) -> list[Path]:
    """All ``BraTS-GLI-NNNNN-TTT`` folders, sorted by name."""
    parts = [root, *(root / part for part in _PARTS if (root / part).is_dir())]
    folders = [entry for part in parts for entry in part.iterdir() if entry.is_dir() and _SCAN.fullmatch(entry.name)]
    return sorted(folders, key=lambda folder: folder.name)


def brats_problems(root: Path) -> list[str]:
    """Names that do not fit the layout; the files themselves are not opened."""
    problems = []
    for folder in scan_folders(root):
        expected = {f"{folder.name}-{modality}{end}" for modality in MODALITIES for end in (".nii.gz", ".nii")}
        names = {entry.name for entry in folder.iterdir()}
        problems += [
            f"{folder / name}: not a file of the BraTS layout; expected {EXPECTED}" for name in sorted(names - expected)
        ]
        if not _modalities(folder).keys() - {"seg"}:
            problems.append(f"{folder}: holds no contrast ({', '.join(MODALITIES[:-1])})")
    return problems


def _modalities(folder: Path) -> dict[str, str]:
    found = {}
    for modality in MODALITIES:
        for extension in (".nii", ".nii.gz"):
            path = folder / f"{folder.name}-{modality}{extension}"
            if path.is_file():
                found[modality] = str(path)
    return found
