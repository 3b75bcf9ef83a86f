"""A folder of ordinary image files: pictures, NIfTI / MetaImage volumes, videos, folders of DICOM slices.

Any depth of subfolders; folders called ``masks`` and hidden ones are left out. A file ``metadata.csv`` with columns
``file`` and ``patient`` (or ``lesion_id``) says which images belong to one person; without it every file is its own
patient, which is only right if no patient has two files.
"""

import csv
import logging
from pathlib import Path

from ..listing import Case, nothing_found, require_folder

EXTENSIONS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".png", ".jpg", ".jpeg", ".avi", ".mp4")
EXPECTED = f"image files ({', '.join(EXTENSIONS)}) or folders of .dcm slices, at any depth"

logger = logging.getLogger(__name__)


def read_image_folder(root: Path, frames: str) -> list[Case]:
    """List the images below ``root``; the case name is the path below it, the patient as the module says.

    Raises:
        ValueError: for ``frames="labelled"``, or if metadata.csv leaves an image out.
        FileNotFoundError: no folder, or no image in it.
    """
    if frames != "all":
        raise ValueError("An image_folder has no label maps: use frames 'all'.")
    require_folder(root, EXPECTED)
    images = _images(root)
    if not images:
        raise nothing_found(root, EXPECTED)
    names = [path.relative_to(root).as_posix() if path != root else root.name for path in images]
    patients = _patients(root / "metadata.csv", names)
    return [
        Case(image=str(path), patient=patient, case=name)
        for path, name, patient in zip(images, names, patients, strict=True)
    ]


def image_folder_problems(root: Path) -> list[str]:
    """Files that the reader leaves out."""
    taken = set(_images(root))
    return [
        f"{path}: not an image file; left out"
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and _visible(path, root)
        and path.name != "metadata.csv"
        and path not in taken
        and path.parent not in taken
        and path.suffix.lower() != ".raw"  # .mhd keeps voxels in .raw
    ]


def _images(root: Path) -> list[Path]:
    files = [path for path in root.rglob("*") if path.is_file() and _visible(path, root)]
    series = {path.parent for path in files if path.suffix.lower() == ".dcm"}
    return sorted({path for path in files if path.name.lower().endswith(EXTENSIONS)} | series)


def _visible(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    return "masks" not in parts[:-1] and not any(part.startswith(".") for part in parts)


def _patients(table: Path, names: list[str]) -> list[str]:
    if not table.is_file():
        logger.warning(
            "%s has no metadata.csv (columns file, patient): each of the %d files counts as its own patient.",
            table.parent,
            len(names),
        )
        return names
    with open(table, newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        column = next((name for name in ("patient", "lesion_id") if name in columns), None)
        if column is None or "file" not in columns:
            raise ValueError(f"{table}: needs the columns file and patient (or lesion_id), found {', '.join(columns)}.")
        patients = {row["file"]: row[column] for row in reader}
    absent = [name for name in names if name not in patients]
    if absent:
        raise ValueError(
            f"{table}: {len(absent)} image(s) have no line, first {absent[0]}; add them with their patient."
        )
    return [patients[name] for name in names]
