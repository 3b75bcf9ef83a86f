"""SynthRAD2023 Task 1 layout: ``Task1/brain/<id>/{mr,ct,mask}.nii.gz``, CT in Hounsfield units.

Ids read ``1B{A,B,C}NNN`` (task, region, center, number), but any folder with these files is taken; ``overview`` and the
centers' tables are not. The given folder may be the archive's, ``Task1`` or ``brain``.
"""

from pathlib import Path

from ..listing import Case, nothing_found, require_folder

EXPECTED = "Task1/brain/1B{A,B,C}NNN/{mr,ct,mask}.nii.gz"
MODALITIES = ("mr", "ct", "mask")

_EXTENSIONS = (".nii.gz", ".nii", ".mha")
_PARTS = (".", "brain", "Task1/brain")


def read_synthrad(root: Path) -> list[Case]:
    """List the patients of a SynthRAD brain folder.

    Returns:
        items with ``patient`` = ``case`` and the path of each of :data:`MODALITIES` that is there.

    Raises:
        FileNotFoundError: no folder, or no patient in it.
    """
    require_folder(root, EXPECTED)
    items = [{"patient": folder.name, "case": folder.name, **_modalities(folder)} for folder in patient_folders(root)]
    if not items:
        raise nothing_found(root, EXPECTED)
    return items


def patient_folders(root: Path) -> list[Path]:
    """All folders with an MR or CT volume, sorted by name."""
    parts = [root / part for part in _PARTS if (root / part).is_dir()]
    folders = [entry for part in parts for entry in part.iterdir() if entry.is_dir()]
    return sorted(
        (folder for folder in folders if _modalities(folder).keys() & {"mr", "ct"}), key=lambda folder: folder.name
    )


def synthrad_problems(root: Path) -> list[str]:
    """Patients without one of the three volumes; the files themselves are not opened."""
    return [
        f"{folder}: {modality} is missing"
        for folder in patient_folders(root)
        for modality in MODALITIES
        if modality not in _modalities(folder)
    ]


def _modalities(folder: Path) -> dict[str, str]:
    paths = {name: [folder / (name + extension) for extension in _EXTENSIONS] for name in MODALITIES}
    found = {name: next((path for path in options if path.is_file()), None) for name, options in paths.items()}
    return {name: str(path) for name, path in found.items() if path is not None}
