"""Patient-level splits: a hash of the patient id decides, so adding or removing cases moves nobody."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..atomic import write_text
from ..parallel import process_rank
from .listing import Case

logger = logging.getLogger(__name__)

SECTIONS = ("training", "validation", "test")


def split_of(dataset: str, patient: str) -> str:
    """The section of a patient: ``md5("<kind>/<patient>") mod 10``, 0-6 training, 7 validation, 8-9 test.

    The kind is the dataset's name without ``_phantom``.
    """
    digest = hashlib.md5(f"{dataset.removesuffix('_phantom')}/{patient}".encode(), usedforsecurity=False).hexdigest()
    remainder = int(digest, 16) % 10
    return "training" if remainder < 7 else "validation" if remainder == 7 else "test"


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


def write_split(path: str | Path, sections: Mapping[str, Sequence[Case]]) -> None:
    """Write which patients and cases each section holds as JSON, in one step (never half a file); rank 0 writes.

    Args:
        path: file to write, usually ``<output_dir>/split.json``.
        sections: section name -> its cases, as `find_cases` returns them.
    """
    require_disjoint(sections)
    if process_rank() != 0:
        return
    content = {
        section: {"patients": sorted({case["patient"] for case in cases}), "cases": [case["case"] for case in cases]}
        for section, cases in sections.items()
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def require_unseen(path: str | Path, cases: Sequence[Case]) -> None:
    """Raise if a case to be evaluated belongs to a patient that the weights were trained on.

    Args:
        path: file of :func:`write_split` that the training has left; without it nothing is known, which is logged.
        cases: what is to be evaluated.

    Raises:
        ValueError: names the first such patients.
    """
    path = Path(path)
    if not path.is_file():
        logger.warning("There is no %s: it cannot be checked that no training patient is evaluated.", path)
        return
    trained = set(json.loads(path.read_text(encoding="utf-8")).get("training", {}).get("patients", []))
    seen = sorted(trained & {case["patient"] for case in cases})
    if seen:
        raise ValueError(
            f"{len(seen)} patient(s) to be evaluated were trained on ({', '.join(seen[:5])}), says {path}. Evaluate "
            "with the options of the training (held_out above all), or in another output_dir."
        )
