"""MM-WHS 2017 layout (Zhuang et al., MedIA 2019): ``<modality>_train/<modality>_train_NNNN_{image,label}.nii.gz``.

Modalities are ``ct`` and ``mr``; they show different people, and one data set of ours is one modality. The archive's
test volumes have no public labels and are not read.
"""

import re
from pathlib import Path

from ..listing import Case, nothing_found, require_folder

STRUCTURES = {
    "left ventricle": 500,
    "right ventricle": 600,
    "left atrium": 420,
    "right atrium": 550,
    "myocardium": 205,
    "ascending aorta": 820,
    "pulmonary artery": 850,
}
"""Value of every structure in a label file."""

STRAY_VALUES = {421: 420}
"""Values that published label files hold by mistake, and what they stand for."""

LABELS = (0, *STRUCTURES.values(), *STRAY_VALUES)

_EXTENSIONS = (".nii.gz", ".nii")


def read_mmwhs(root: Path, modality: str) -> list[Case]:
    """List the labelled volumes of one modality.

    Args:
        root: folder of the archive, or its ``<modality>_train`` itself.
        modality: "ct" or "mr".

    Returns:
        Items with ``patient`` = ``case`` (``ct_train_1001``), ``image`` and ``label``.

    Raises:
        FileNotFoundError: no folder, or no volume in it.
        ValueError: an image without label map, or a label map without image; all of them are named.
    """
    require_folder(root, _expected(modality))
    pairs = _pairs(root, modality)
    if not pairs:
        raise nothing_found(root, _expected(modality))
    unpaired = _unpaired(pairs)
    if unpaired:
        raise ValueError(f"{root}: {len(unpaired)} file(s) have no partner. {'; '.join(unpaired)}.")
    return [
        Case(patient=name, case=name, image=str(parts["image"]), label=str(parts["label"]))
        for name, parts in sorted(pairs.items())
    ]


def mmwhs_problems(root: Path, modality: str) -> list[str]:
    """Files in the folder of a modality that are not of the layout; the files themselves are not opened."""
    expected = _expected(modality)
    return [
        f"{path}: not a file of the MM-WHS layout; expected {expected}"
        for path in _files(root, modality)
        if _parsed(path, modality) is None and not path.name.startswith(".")
    ]


def _expected(modality: str) -> str:
    return f"{modality}_train/{modality}_train_10NN_image.nii.gz and ..._label.nii.gz"


def _files(root: Path, modality: str) -> list[Path]:
    home = root / f"{modality}_train"
    return sorted(path for path in (home if home.is_dir() else root).iterdir() if path.is_file())


def _parsed(path: Path, modality: str) -> tuple[str, str] | None:
    """Name of the case and "image" or "label"."""
    match = re.fullmatch(rf"({modality}_train_\d+)_(image|label)", path.name.split(".")[0])
    return (match[1], match[2]) if match and path.name.endswith(_EXTENSIONS) else None


def _pairs(root: Path, modality: str) -> dict[str, dict[str, Path]]:
    pairs: dict[str, dict[str, Path]] = {}
    for path in _files(root, modality):
        parsed = _parsed(path, modality)
        if parsed is not None:
            pairs.setdefault(parsed[0], {})[parsed[1]] = path
    return pairs


def _unpaired(pairs: dict[str, dict[str, Path]]) -> list[str]:
    complaints = []
    for name, parts in sorted(pairs.items()):
        if "label" not in parts:
            complaints.append(f"{parts['image'].name} has no label map; add {name}_label.nii.gz or take the image out")
        elif "image" not in parts:
            complaints.append(f"{parts['label'].name} has no image; add {name}_image.nii.gz or take the label map out")
    return complaints
