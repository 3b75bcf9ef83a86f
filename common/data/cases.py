"""Find the images of a data set by its name: one list of items, the same for phantoms and public archives."""

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .embedded import PhantomOptions, write_brain, write_cardiac, write_echo, write_whole_heart
from .listing import Case
from .locking import exclusive
from .readers.acdc import LABELS as ACDC_LABELS
from .readers.acdc import acdc_problems, read_acdc
from .readers.brats import LABELS as BRATS_LABELS
from .readers.brats import MODALITIES as BRATS
from .readers.brats import brats_problems, read_brats
from .readers.echonet import echonet_problems, read_echonet
from .readers.image_folder import image_folder_problems, read_image_folder
from .readers.isles import MODALITIES as ISLES
from .readers.isles import isles_problems, read_isles
from .readers.labelled_folder import labelled_folder_problems, read_labelled_folder
from .readers.mmwhs import LABELS as MMWHS_LABELS
from .readers.mmwhs import mmwhs_problems, read_mmwhs
from .readers.synthrad import MODALITIES as SYNTHRAD
from .readers.synthrad import read_synthrad, synthrad_problems
from .sections import Rule, by_archive, by_center, by_hash, by_request, stratified
from .splits import SECTIONS

SPLITS = ("hash", "stratified")


@dataclass(frozen=True)
class Dataset:
    """How one named data set is read.

    read: ``(root, frames) -> cases``; problems: ``root -> complaints about names``; sections: who goes where; labels:
    values that its label maps may hold, empty if it has none; images: names of the images of a case, the last one its
    label map or mask, where there is more than one image; write: for embedded phantoms, makes the files below
    ``dataset_dir`` unless they are there and returns the folder to read.
    """

    read: Callable[[Path, str], list[Case]]
    problems: Callable[[Path], list[str]]
    sections: Rule
    labels: tuple[int, ...] = ()
    images: tuple[str, ...] = ()
    write: Callable[[Path, PhantomOptions], Path] | None = None


def _still(read: Callable[[Path], list[Case]]) -> Callable[[Path, str], list[Case]]:
    """Reader of an archive without cines: there are no frames to choose from."""
    return lambda root, frames: read(root)


def _mmwhs(dataset: str, modality: str, write: Callable[[Path, PhantomOptions], Path] | None = None) -> Dataset:
    """One modality of MM-WHS, or of the phantom in its layout."""
    read, problems = partial(read_mmwhs, modality=modality), partial(mmwhs_problems, modality=modality)
    return Dataset(_still(read), problems, by_hash(dataset), MMWHS_LABELS, write=write)


DATASETS: dict[str, Dataset] = {
    "cardiac_phantom": Dataset(read_acdc, acdc_problems, by_hash("cardiac"), ACDC_LABELS, write=write_cardiac),
    "echo_phantom": Dataset(read_echonet, echonet_problems, by_hash("echo"), write=write_echo),
    "brain_phantom": Dataset(
        _still(read_brats), brats_problems, by_hash("brain"), BRATS_LABELS, BRATS, write_brain("brats")
    ),
    "brain_phantom_isles": Dataset(
        _still(read_isles), isles_problems, by_archive("brain", 3), (0, 1), ISLES, write_brain("isles")
    ),
    "brain_phantom_synthrad": Dataset(
        _still(read_synthrad), synthrad_problems, by_hash("brain"), (0, 1), SYNTHRAD, write_brain("synthrad")
    ),
    "whole_heart_phantom_ct": _mmwhs("whole_heart_ct", "ct", write_whole_heart("ct")),
    "whole_heart_phantom_mr": _mmwhs("whole_heart_mr", "mr", write_whole_heart("mr")),
    "acdc": Dataset(read_acdc, acdc_problems, by_hash("acdc"), ACDC_LABELS),
    "mmwhs_ct": _mmwhs("mmwhs_ct", "ct"),
    "mmwhs_mr": _mmwhs("mmwhs_mr", "mr"),
    "brats": Dataset(_still(read_brats), brats_problems, by_archive("brats", 60), BRATS_LABELS, BRATS),
    "echonet": Dataset(read_echonet, echonet_problems, by_hash("echonet")),
    "isles": Dataset(_still(read_isles), isles_problems, by_archive("isles", 3), (0, 1), ISLES),
    "synthrad": Dataset(_still(read_synthrad), synthrad_problems, by_center("synthrad", 3), (0, 1), SYNTHRAD),
    "synthrad_pelvis": Dataset(
        _still(partial(read_synthrad, site="pelvis")),
        partial(synthrad_problems, site="pelvis"),
        by_center("synthrad_pelvis", 3),
        (0, 1),
        SYNTHRAD,
    ),
    "image_folder": Dataset(read_image_folder, image_folder_problems, by_hash("image_folder")),
    "labelled_folder": Dataset(_still(read_labelled_folder), labelled_folder_problems, by_hash("labelled_folder")),
}


def find_cases(
    dataset: str,
    dataset_dir: str | Path,
    section: str | None = None,
    *,
    images: Mapping[str, str] | None = None,
    optional: Mapping[str, str] | None = None,
    held_out: Sequence[str] = (),
    split: str = "hash",
    frames: str = "all",
    cases: int | None = None,
    size: int | None = None,
    slices: int | None = None,
    fov_mm: float | None = None,
    seed: int | None = None,
    cine: bool | None = None,
    bias_field: bool | None = None,
) -> list[dict]:
    """List the images of a data set, or of one section of its patient-level split.

    Args:
        dataset: a name in `DATASETS`.
        dataset_dir: where the archive was unpacked; for a phantom, where it is (or will be) written.
        section: "training", "validation", "test", or None for everything.
        images: of a data set with several images per case, which to take under which key of the items, for instance
            ``{"source": "t1n", "target": "t2f"}``. Every case of the section must have them.
        optional: the same for images that a case may lack.
        held_out: patients that form the validation and the test section, all others train (cross-validation); empty:
            the data set's own rule.
        split: "hash" is the data set's own rule, by which adding patients moves nobody; "stratified" gives 7:2:1 for
            training, validation and test within every group of patients, shared out anew for every list of patients.
            Without effect where patients are held out by name.
        frames: "all" frames of a cine, or only the "labelled" ones.
        cases, size, slices, fov_mm, seed, cine, bias_field: of a phantom only (None: the generator's default); an
            archive is what it is.

    Returns:
        Items with ``patient``, ``case`` (unique) and the paths of the images, sorted by case; where known also with
        ``group`` (diagnosis) and ``frame``. The keys of the paths are
        those of ``images``; of data sets with one image per case, ``image`` and ``label`` (if any).

    Raises:
        ValueError: unknown name, section or image, a section without patients, cases that lack an image.
        FileNotFoundError: the folder is missing or holds no case.
    """
    entry = dataset_entry(dataset)
    if section is not None and section not in SECTIONS:
        raise ValueError(f"Unknown section {section!r}; choose one of {', '.join(SECTIONS)}, or None for all cases.")
    if frames not in ("all", "labelled"):
        raise ValueError(f"Unknown frames {frames!r}; choose 'all' or 'labelled'.")
    _require_names(dataset, images or {}, optional or {})
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; choose one of {', '.join(SPLITS)}.")
    root = dataset_root(dataset, dataset_dir, PhantomOptions(cases, size, slices, fov_mm, seed, cine, bias_field))
    found = entry.read(root, frames)
    _require_unique(found, root)
    rule = stratified(dataset) if split == "stratified" else entry.sections
    homes = by_request(found, held_out) if held_out else [[home] for home in rule(found)]
    chosen = [case for case, home in zip(found, homes, strict=True) if section is None or section in home]
    if not chosen:
        raise ValueError(_empty_section(section or "", dataset, split, root, found, homes))
    chosen = sorted(chosen, key=lambda case: case["case"])
    if images is None:
        return [{key: value for key, value in case.items() if key != "section"} for case in chosen]
    return _choose_images(chosen, images, optional or {}, root)


def _require_names(dataset: str, images: Mapping[str, str], optional: Mapping[str, str]) -> None:
    """Raise unless the images asked for are those that a data set of this kind can have."""
    names = dataset_entry(dataset).images
    if names and not images:
        raise ValueError(f"A case of {dataset} has several images ({', '.join(names)}); say which in `images`.")
    for name in (*images.values(), *optional.values()):
        if not names:
            raise ValueError(f"A case of {dataset} has one image; {name!r} cannot be asked for. Leave `images` out.")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{dataset} has no image called {name!r}.{hint} Its images: {', '.join(names)}.")


def _choose_images(
    cases: Sequence[Case], images: Mapping[str, str], optional: Mapping[str, str], root: Path
) -> list[dict]:
    items = []
    for name in images.values():
        lacking = [case for case in cases if name not in case]
        if lacking:
            names = ", ".join(case["case"] for case in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            raise ValueError(
                f"{root}: {len(lacking)} of {len(cases)} cases have no {name} ({names}). Add the files, take these "
                f"cases out, or choose another image; {lacking[0]['case']} has "
                f"{', '.join(sorted(set(lacking[0]) - {'patient', 'case', 'section'}))}."
            )
    for case in cases:
        paths = dict(case)
        there = {key: name for key, name in {**optional, **images}.items() if name in paths}
        items.append(
            {"patient": case["patient"], "case": case["case"], **{key: paths[name] for key, name in there.items()}}
        )
    return items


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


def _empty_section(
    section: str, dataset: str, split: str, root: Path, found: list[Case], homes: list[list[str]]
) -> str:
    patients = {
        section: sorted({case["patient"] for case, home in zip(found, homes, strict=True) if section in home})
        for section in SECTIONS
    }
    counts = ", ".join(
        f"{name} {len(members)}"
        + (f" ({', '.join(members[:5])}{', ...' if len(members) > 5 else ''})" if members else "")
        for name, members in patients.items()
    )
    if split == "stratified":
        rule = "shares of every group (70 / 20 / 10 %)"
    elif "section" in found[0]:
        rule = "the data set's own parts"
    else:
        rule = "a rule on the patient ids (about 70 / 10 / 20 %)"
    return (
        f"The {section} section of {dataset} in {root} is empty. The split goes by {rule}; patients here: {counts}. "
        "Add patients, name those to test on (`held_out`), or take all with section None (on the command line '$None')."
    )
