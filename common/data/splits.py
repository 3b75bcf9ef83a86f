"""Patient-level splits: a hash of the patient id decides, so adding or removing cases moves nobody."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import write_text
from ..parallel import process_rank
from .listing import Case

logger = logging.getLogger(__name__)

SECTIONS = ("training", "validation", "test")
SPLIT_LEVELS = ("patient", "slice")


def split_of(dataset: str, patient: str) -> str:
    """The section of a patient: ``md5("<kind>/<patient>") mod 10``, 0-6 training, 7 validation, 8-9 test.

    The kind is the dataset's name without ``_phantom``.
    """
    digest = hashlib.md5(f"{dataset.removesuffix('_phantom')}/{patient}".encode(), usedforsecurity=False).hexdigest()
    remainder = int(digest, 16) % 10
    return "training" if remainder < 7 else "validation" if remainder == 7 else "test"


def leaky_section_of(case: str, frame: int, position: int) -> str:
    """The section of one slice in a split by slice, 7:2:1, by a hash of the case, its frame and the slice number."""
    digest = hashlib.md5(f"{case}/{frame}/{position}".encode(), usedforsecurity=False).hexdigest()
    remainder = int(digest, 16) % 10
    return "training" if remainder < 7 else "validation" if remainder < 9 else "test"


def require_disjoint(sections: Mapping[str, Sequence[Case]]) -> None:
    """Raise unless every patient is in one section only.

    Raises:
        ValueError: names the first patients that are in two sections.
    """
    homes: dict[str, str] = {}
    shared = {
        case["patient"]
        for section, cases in sections.items()
        for case in cases
        if homes.setdefault(case["patient"], section) != section
    }
    if shared:
        names = ", ".join(sorted(shared)[:5])
        raise ValueError(
            f"{len(shared)} patient(s) are in more than one section of the split ({names}): scores on the test part "
            "would measure memory. Split by patient."
        )


def require_patient_split(sections: Mapping[str, Sequence[Case]], split_level: str = "patient") -> None:
    """`require_disjoint`, unless the run asks for a split by slice, which leaks; that is logged as a warning.

    Args:
        sections: section name -> its cases.
        split_level: "patient", or "slice" to show how much a leaking split flatters the scores.

    Raises:
        ValueError: a patient is in two sections, or the level is unknown.
    """
    if split_level not in SPLIT_LEVELS:
        raise ValueError(f"Unknown split_level {split_level!r}; choose one of {', '.join(SPLIT_LEVELS)}.")
    if split_level == "patient":
        require_disjoint(sections)
    else:
        logger.warning(
            "split_level is 'slice': neighbors of nearly every test slice are trained on, and scores measure memory. "
            "Use them to show the size of that leak only."
        )


def write_split(
    path: str | Path,
    sections: Mapping[str, Sequence[Case]],
    dataset: str | None = None,
    split_level: str = "patient",
) -> None:
    """Write which patients and cases each section holds as JSON, in one step (never half a file); rank 0 writes.

    Args:
        path: file to write, usually ``<output_dir>/split.json``.
        sections: section name -> its cases, as `find_cases` returns them.
        dataset: name of the data set, for :func:`check_earlier_stages`.
        split_level: "slice" allows shared patients (with a warning) and marks the file as leaky.
    """
    require_patient_split(sections, split_level)
    if process_rank() != 0:
        return
    content: dict[str, Any] = {} if dataset is None else {"dataset": dataset}
    content |= {"leaky_split": True} if split_level == "slice" else {}
    content |= {
        section: {"patients": sorted({case["patient"] for case in cases}), "cases": [case["case"] for case in cases]}
        for section, cases in sections.items()
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def check_earlier_stages(
    weights: Sequence[str | Path | None],
    sections: Mapping[str, Sequence[Case]],
    dataset: str,
    split_level: str = "patient",
) -> None:
    """Compare the patients of this run with those that earlier stages were trained on.

    A stage leaves its split beside its weights. Warned of are weights without one, weights of another data set (a
    phantom's, for instance), whose patients may bear the same names, and weights that were trained on none of the
    training patients.

    Args:
        weights: files of the earlier stages; what is no ``.pt`` file (a pretrained model, None) is left out.
        sections: section name -> its cases, of this run.
        dataset: name of this run's data set.
        split_level: "slice" lets everything pass, with the warning of `require_patient_split`.

    Raises:
        ValueError: a patient outside of the training section was trained on by an earlier stage.
    """
    if split_level != "patient":
        require_patient_split(sections, split_level)
        return
    held_out = [case for section, cases in sections.items() if section != "training" for case in cases]
    training = {case["patient"] for case in sections.get("training", [])}
    for file in weights:
        if file is None or Path(file).suffix != ".pt":
            continue
        path = Path(file).with_name("split.json")
        theirs = _read(path).get("dataset", dataset) if path.is_file() else dataset
        if theirs != dataset:
            logger.warning("%s was trained on %s, this run is on %s; run its stage first.", file, theirs, dataset)
            continue
        require_unseen(path, held_out)
        if path.is_file() and training and not training & _trained(path):
            logger.warning(
                "%s was trained on none of this run's patients; if it belongs to other data, run its stage first.", file
            )


def require_unseen(path: str | Path, cases: Sequence[Case], split_level: str = "patient") -> None:
    """Raise if a case to be evaluated belongs to a patient that the weights were trained on.

    Args:
        path: file of :func:`write_split` that the training has left; without it nothing is known, which is logged.
        cases: what is to be evaluated.
        split_level: "slice" lets everything pass, with the warning of `require_patient_split`.

    Raises:
        ValueError: names the first such patients.
    """
    if split_level != "patient":
        require_patient_split({"evaluated": cases}, split_level)
        return
    path = Path(path)
    if not path.is_file():
        logger.warning("There is no %s: it cannot be checked that no training patient is evaluated.", path)
        return
    seen = sorted(_trained(path) & {case["patient"] for case in cases})
    if seen:
        raise ValueError(
            f"{len(seen)} patient(s) to be evaluated were trained on ({', '.join(seen[:5])}), says {path}. Evaluate "
            "with the options of the training (held_out above all), or in another output_dir."
        )


def trained_patients(weights: Sequence[str | Path | None]) -> set[str]:
    """Whom weights were trained on, by the splits that their trainings have left beside them.

    Of weights without a split nothing is known, which is logged; what is no ``.pt`` file is left out.
    """
    patients: set[str] = set()
    for file in weights:
        if file is None or Path(file).suffix != ".pt":
            continue
        path = Path(file).with_name("split.json")
        if path.is_file():
            patients |= _trained(path)
        else:
            logger.warning("There is no %s: it is not known which patients these weights were trained on.", path)
    return patients


def _trained(path: Path) -> set[str]:
    """Training patients of a file of :func:`write_split`."""
    return set(_read(path).get("training", {}).get("patients", []))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
