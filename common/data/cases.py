"""Find the images of a data set by its name: one list of items, the same for phantoms and public archives."""

import difflib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .embedded import PhantomOptions, write_cardiac, write_echo
from .listing import Case
from .locking import exclusive
from .readers.acdc import LABELS as ACDC_LABELS
from .readers.acdc import acdc_problems, read_acdc
from .readers.echonet import echonet_problems, read_echonet
from .readers.image_folder import image_folder_problems, read_image_folder
from .splits import SECTIONS, split_of


@dataclass(frozen=True)
class Dataset:
    """How one named data set is read.

    read: ``(root, frames) -> cases``; problems: ``root -> complaints about names``; labels: values that its label maps
    may hold, empty if it has none; write: for embedded phantoms, makes the files below ``dataset_dir`` unless they are
    there and returns the folder to read.
    """

    read: Callable[[Path, str], list[Case]]
    problems: Callable[[Path], list[str]]
    labels: tuple[int, ...] = ()
    write: Callable[[Path, PhantomOptions], Path] | None = None


DATASETS: dict[str, Dataset] = {
    "cardiac_phantom": Dataset(read_acdc, acdc_problems, ACDC_LABELS, write=write_cardiac),
    "echo_phantom": Dataset(read_echonet, echonet_problems, write=write_echo),
    "acdc": Dataset(read_acdc, acdc_problems, ACDC_LABELS),
    "echonet": Dataset(read_echonet, echonet_problems),
    "image_folder": Dataset(read_image_folder, image_folder_problems),
}


def find_cases(
    dataset: str,
    dataset_dir: str | Path,
    section: str | None = None,
    *,
    frames: str = "all",
    cases: int | None = None,
    size: int | None = None,
    fov_mm: float | None = None,
    seed: int | None = None,
    cine: bool | None = None,
) -> list[dict]:
    """List the images of a data set, or of one section of its patient-level split.

    Args:
        dataset: a name in `DATASETS`.
        dataset_dir: where the archive was unpacked; for a phantom, where it is (or will be) written.
        section: "training", "validation", "test", or None for everything.
        frames: "all" frames of a cine, or only the "labelled" ones.
        cases, size, fov_mm, seed, cine: of a phantom only (None: the generator's default); an archive is what it is.

    Returns:
        Items with ``image`` (path), ``label`` (path, if any), ``patient`` and ``case`` (unique), sorted by case.

    Raises:
        ValueError: unknown name or section, or a section without patients.
        FileNotFoundError: the folder is missing or holds no case.
    """
    entry = dataset_entry(dataset)
    if section is not None and section not in SECTIONS:
        raise ValueError(f"Unknown section {section!r}; choose one of {', '.join(SECTIONS)}, or None for all cases.")
    if frames not in ("all", "labelled"):
        raise ValueError(f"Unknown frames {frames!r}; choose 'all' or 'labelled'.")
    root = dataset_root(dataset, dataset_dir, PhantomOptions(cases, size, fov_mm, seed, cine))
    found = entry.read(root, frames)
    _require_unique(found, root)
    homes = [section_of(dataset, case) for case in found]
    chosen = [case for case, home in zip(found, homes, strict=True) if section in (None, home)]
    if not chosen:
        raise ValueError(_empty_section(section or "", dataset, root, found, homes))
    return [
        {key: value for key, value in case.items() if key != "section"}
        for case in sorted(chosen, key=lambda case: case["case"])
    ]


def section_of(dataset: str, case: Case) -> str:
    """The section a case belongs to: the archive's own, where it has one, else by the hash of the patient."""
    return case.get("section") or split_of(dataset, case["patient"])


def dataset_entry(dataset: str) -> Dataset:
    """The entry of `DATASETS`, or a ValueError that names the nearest ones."""
    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, n=2, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"Unknown dataset {dataset!r}.{hint} Known names: {', '.join(DATASETS)}.")
    return DATASETS[dataset]


def dataset_root(dataset: str, dataset_dir: str | Path, options: PhantomOptions | None = None) -> Path:
    """The folder to read: ``dataset_dir`` itself, or the phantom's folder below it, written now if it is not there.

    Several processes may call this at once: one writes, the others wait for it.
    """
    root, write = Path(dataset_dir), dataset_entry(dataset).write
    if write is None:
        return root
    with exclusive(root / ".lock"):
        return write(root, options or PhantomOptions())


def _require_unique(found: list[Case], root: Path) -> None:
    twice = sorted(name for name, count in Counter(case["case"] for case in found).items() if count > 1)
    if twice:
        raise ValueError(f"{root}: {len(twice)} case name(s) occur twice ({', '.join(twice[:5])}); remove one copy.")


def _empty_section(section: str, dataset: str, root: Path, found: list[Case], homes: list[str]) -> str:
    patients = {
        section: sorted({case["patient"] for case, home in zip(found, homes, strict=True) if home == section})
        for section in SECTIONS
    }
    counts = ", ".join(
        f"{name} {len(members)}"
        + (f" ({', '.join(members[:5])}{', ...' if len(members) > 5 else ''})" if members else "")
        for name, members in patients.items()
    )
    rule = "the data set's own Split column" if "section" in found[0] else "a hash of the patient id (70 / 10 / 20 %)"
    return (
        f"The {section} section of {dataset} in {root} is empty. The split goes by {rule}; patients here: {counts}. "
        "Add patients, or take all of them with section None (on the command line '$None')."
    )
