"""SynthRAD2023 Task 1 layout: ``Task1/<site>/<id>/{mr,ct,mask}.nii.gz``, CT in Hounsfield units; sites brain, pelvis.

Ids read ``1{B,P}{A,B,C}NNN`` (task, site, center, number), but any folder with these files is taken; ``overview`` and
the centers' tables are not. The given folder may be the archive's, ``Task1`` or the site's.
"""

import re
from pathlib import Path

from ..listing import Case, nothing_found, require_folder

MODALITIES = ("mr", "ct", "mask")

_EXTENSIONS = (".nii.gz", ".nii", ".mha")
_LETTER = {"brain": "B", "pelvis": "P"}  # of the ids


def read_synthrad(root: Path, site: str = "brain") -> list[Case]:
    """List the patients of one site.

    Args:
        root: folder of the archive, of ``Task1`` or of the site.
        site: "brain" or "pelvis".

    Returns:
        items with ``patient`` = ``case`` and the path of each of :data:`MODALITIES` that is there.

    Raises:
        FileNotFoundError: no folder, or no patient in it.
        ValueError: the folder holds patients of another site, by their ids.
    """
    expected = f"Task1/{site}/1{_LETTER[site]}{{A,B,C}}NNN/{{mr,ct,mask}}.nii.gz"
    require_folder(root, expected)
    folders = patient_folders(root, site)
    if not folders:
        raise nothing_found(root, expected)
    for other in sorted(_LETTER.keys() - {site}):
        strangers = [folder.name for folder in folders if re.fullmatch(rf"1{_LETTER[other]}[A-C]\d{{3}}", folder.name)]
        if strangers:
            raise ValueError(
                f"{root} holds {len(strangers)} patient(s) of the {other} ({', '.join(strangers[:5])}), but the {site} "
                f"is asked for. Choose the data set of that site (synthrad, synthrad_pelvis), or the other folder."
            )
    return [{"patient": folder.name, "case": folder.name, **_modalities(folder)} for folder in folders]


def patient_folders(root: Path, site: str = "brain") -> list[Path]:
    """All folders of a site with an MR or CT volume, sorted by name."""
    parts = [root / part for part in (".", site, f"Task1/{site}") if (root / part).is_dir()]
    folders = [entry for part in parts for entry in part.iterdir() if entry.is_dir()]
    return sorted(
        (folder for folder in folders if _modalities(folder).keys() & {"mr", "ct"}), key=lambda folder: folder.name
    )


def synthrad_problems(root: Path, site: str = "brain") -> list[str]:
    """Patients without one of the three volumes; the files themselves are not opened."""
    return [
        f"{folder}: {modality} is missing"
        for folder in patient_folders(root, site)
        for modality in MODALITIES
        if modality not in _modalities(folder)
    ]


def _modalities(folder: Path) -> dict[str, str]:
    paths = {name: [folder / (name + extension) for extension in _EXTENSIONS] for name in MODALITIES}
    found = {name: next((path for path in options if path.is_file()), None) for name, options in paths.items()}
    return {name: str(path) for name, path in found.items() if path is not None}
