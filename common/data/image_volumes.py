"""Volumes to work on, of data sets with one image and its label map: what a user points to, or those of a section."""

from pathlib import Path
from typing import Literal

from .cases import find_cases
from .volumes import volumes_to_translate


def image_volumes(
    input_dir: str | Path | None,
    *,
    key: Literal["image", "label"] = "image",
    dataset: str = "cardiac_phantom",
    dataset_dir: str | Path = "data",
    section: str = "test",
    split: str = "hash",
    cases: int | None = None,
    size: int | None = None,
) -> list[dict[str, str]]:
    """Items with ``image`` or ``label`` and ``case`` (usable as a file name), in the order of the names.

    Args:
        input_dir: a NIfTI, MetaImage or NRRD file, a folder with one DICOM series, or a folder with any number of
            volumes at any depth. None: the labelled frames of one section of a data set.
        key: which of the two to take from a data set, and what to call it.
        dataset, dataset_dir, section, split, cases, size: see `find_cases`; of no effect with ``input_dir``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: two volumes would give the same file name, or the data set has no label maps, or several images of
            a case.
    """
    if input_dir is not None:
        return [{key: item["image"], "case": item["case"]} for item in volumes_to_translate(input_dir, source=key)]
    found = find_cases(
        dataset, dataset_dir, section, split=split, frames="labelled", cases=cases, size=size, cine=False
    )
    return [{key: case[key], "case": case["case"]} for case in found]
