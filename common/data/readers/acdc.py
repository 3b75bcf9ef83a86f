"""ACDC layout (Bernard et al., TMI 2018): ``patientXXX/patientXXX_{4d,frameYY,frameYY_gt}.nii.gz`` and ``Info.cfg``.

The patient folders may lie in the given folder itself or where the archive unpacks them
(``database/training``, ``database/testing``). Both parts are read; our split goes by patient, not by folder.
"""

import logging
import re
from pathlib import Path

from ..listing import Case, nothing_found, require_folder

EXPECTED = "patientXXX/patientXXX_frameYY.nii.gz (with _gt.nii.gz labels and, if kept, patientXXX_4d.nii.gz)"
STRUCTURES = {"right ventricle": 1, "myocardium": 2, "left ventricle": 3}  # cavities, and the wall of the left one
LABELS = (0, *STRUCTURES.values())

_PATIENT = re.compile(r"patient\d{3,}")
_FILE = re.compile(r"(?P<patient>patient\d{3,})_(?P<part>4d|frame\d+|frame\d+_gt)\.nii(\.gz)?")
_PARTS = (".", "training", "testing", "database/training", "database/testing")

logger = logging.getLogger(__name__)


def read_acdc(root: Path, frames: str) -> list[Case]:
    """List the images of an ACDC folder.

    Args:
        root: folder of the patient folders, or of the unpacked archive.
        frames: "all" takes the 4-D cine of a patient where present, else every single frame;
            "labelled" takes the frames that have a label map (end-diastole, end-systole), with key ``label``; others
            are left out, and named in a warning.

    Returns:
        Items that also say the diagnostic ``group`` (NOR, DCM, ...) where ``Info.cfg`` does, and of single frames the
        ``frame``: "ED" or "ES" where ``Info.cfg`` says which these are, else its number.

    Raises:
        FileNotFoundError: no folder, or no image in it.
        ValueError: of labelled frames, a label map without image.
    """
    require_folder(root, EXPECTED)
    cases: list[Case] = []
    without: list[str] = []
    unlabelled: list[str] = []
    for folder in patient_folders(root):
        info = _known(folder)
        if frames == "labelled":
            single = _single_frames(folder, info)
            _require_images(folder)
            found = [case for case in single if "label" in case]
            unlabelled += [case["case"] for case in single if found and "label" not in case]
        else:
            found = _cine(folder, info) or _single_frames(folder, info)
        cases += found
        if not found:
            without.append(folder.name)
    if not cases:
        raise nothing_found(root, EXPECTED + (", labelled frames" if frames == "labelled" else ""))
    if without:
        logger.warning("%d patient(s) without a usable image in %s: %s", len(without), root, ", ".join(without))
    if unlabelled:
        logger.warning("%d frame(s) without a label map are left out: %s", len(unlabelled), ", ".join(unlabelled))
    return cases


def patient_folders(root: Path) -> list[Path]:
    """All ``patientXXX`` folders of an ACDC folder, sorted by name."""
    parts = [root / part for part in _PARTS if (root / part).is_dir()]
    folders = [entry for part in parts for entry in part.iterdir() if entry.is_dir() and _PATIENT.fullmatch(entry.name)]
    return sorted(folders, key=lambda folder: folder.name)


def read_info(folder: Path) -> dict[str, str]:
    """``Info.cfg`` of a patient: one ``key: value`` per line (ED, ES, Group, Height, NbFrame, Weight)."""
    lines = (folder / "Info.cfg").read_text().splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip()}


def acdc_problems(root: Path) -> list[str]:
    """Names and cross-references that do not fit the layout; the files themselves are not opened."""
    problems = []
    for folder in patient_folders(root):
        names = {entry.name for entry in folder.iterdir()}
        for name in sorted(names - {"Info.cfg", "MANDATORY_CITATION.md"}):
            match = _FILE.fullmatch(name)
            if match is None or match["patient"] != folder.name:
                problems.append(f"{folder / name}: not a file of the ACDC layout; expected {EXPECTED}")
        parts = {match["part"] for match in map(_FILE.fullmatch, names) if match}
        problems += [
            f"{folder}: {part} has no image" for part in sorted(parts) if part.removesuffix("_gt") not in parts
        ]
        problems += [
            f"{folder}: {part} has no label map"
            for part in sorted(parts)
            if part[-1].isdigit() and part + "_gt" not in parts
        ]
        problems += _info_problems(folder, parts)
    return problems


def _info_problems(folder: Path, parts: set[str]) -> list[str]:
    if not (folder / "Info.cfg").is_file():
        return [f"{folder}: Info.cfg is missing"]
    info, problems = read_info(folder), []
    for phase in ("ED", "ES"):
        frame = info.get(phase, "")
        if not frame.isdigit():
            problems.append(f"{folder / 'Info.cfg'}: {phase} must be a frame number, found {frame!r}")
        elif f"frame{int(frame):02d}" not in parts:
            problems.append(f"{folder}: frame{int(frame):02d} ({phase} in Info.cfg) is missing")
    return problems


def _known(folder: Path) -> dict[str, str]:
    """`read_info`, or nothing of a patient without ``Info.cfg``."""
    return read_info(folder) if (folder / "Info.cfg").is_file() else {}


def _case(path: Path, folder: Path, info: dict[str, str]) -> Case:
    case = Case(image=str(path), patient=folder.name, case=path.name.split(".")[0])
    return case | {"group": info["Group"]} if info.get("Group") else case


def _cine(folder: Path, info: dict[str, str]) -> list[Case]:
    path = _nifti(folder, f"{folder.name}_4d")
    return [] if path is None else [_case(path, folder, info)]


def _single_frames(folder: Path, info: dict[str, str]) -> list[Case]:
    """All frames of a patient, with their label maps where there are."""
    phases = {int(info[phase]): phase for phase in ("ES", "ED") if info.get(phase, "").isdigit()}
    cases = []
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None or not re.fullmatch(r"frame\d+", match["part"]):
            continue
        case, number = _case(path, folder, info), int(match["part"].removeprefix("frame"))
        case["frame"] = phases.get(number, str(number))
        label = _nifti(folder, case["case"] + "_gt")
        cases.append(case if label is None else case | {"label": str(label)})
    return cases


def _require_images(folder: Path) -> None:
    """Raise where a frame has a label map only."""
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None or not match["part"].endswith("_gt"):
            continue
        name = f"{match['patient']}_{match['part'].removesuffix('_gt')}"
        if _nifti(folder, name) is None:
            raise ValueError(f"{path} has no image; add {name}.nii.gz beside it, or take the label map out.")


def _nifti(folder: Path, name: str) -> Path | None:
    paths = (folder / (name + extension) for extension in (".nii.gz", ".nii"))
    return next((path for path in paths if path.is_file()), None)
