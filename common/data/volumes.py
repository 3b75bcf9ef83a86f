"""Volumes to translate: what a user points to, or the phantom's test cases."""

from pathlib import Path

from .cases import find_cases
from .readers.image_folder import EXTENSIONS, read_image_folder

FLAT = (".png", ".jpg", ".jpeg", ".avi", ".mp4")  # beside volumes, screenshots


def volumes_to_translate(
    input_dir: str | Path | None,
    *,
    source: str,
    dataset: str = "brain_phantom",
    dataset_dir: str | Path = "data",
    section: str = "test",
    mask: str | None = None,
    mask_dir: str | Path | None = None,
    cases: int | None = None,
    size: int | None = None,
    fov_mm: float | None = None,
    bias_field: bool | None = None,
) -> list[dict[str, str]]:
    """Items with ``image``, ``case`` (usable as a file name) and, if there is one, ``mask``, in the order of the names.

    Args:
        input_dir: a NIfTI, MetaImage or NRRD file, a folder with one DICOM series, or a folder that holds any number of
            these at any depth (pictures and videos in it are left out). None: one section of a data set.
        source: name of the image to take from each case of the data set.
        mask: name of its mask of the body, of a data set that has one.
        dataset, dataset_dir, section, cases, size, fov_mm, bias_field: see `find_cases`; of no effect with
            ``input_dir``.
        mask_dir: folder with masks of the body or brain under the names of the volumes; every volume must have one.

    Raises:
        FileNotFoundError: nothing is there, or a volume has no mask.
        ValueError: two volumes would give the same file name, or masks are given without volumes.
    """
    if input_dir is None:
        if mask_dir is not None:
            raise ValueError(f"mask_dir={mask_dir} belongs to the volumes in input_dir; give that, too, or neither.")
        found = find_cases(
            dataset,
            dataset_dir,
            section,
            images={"image": source},
            optional={} if mask is None else {"mask": mask},
            cases=cases,
            size=size,
            fov_mm=fov_mm,
            bias_field=bias_field,
        )
        return [{key: value for key, value in case.items() if key != "patient"} for case in found]
    path = Path(input_dir)
    if path.is_file():
        items = [{"image": str(path), "case": _stem(path.name)}]
    else:
        found = [case for case in read_image_folder(path, "all") if not case["image"].lower().endswith(FLAT)]
        if not found:
            raise FileNotFoundError(
                f"{path} holds pictures or videos only; volumes are read from NIfTI, MetaImage or DICOM."
            )
        items = [{"image": case["image"], "case": _stem(case["case"])} for case in found]
    names = [item["case"] for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{path}: several volumes would be written as {', '.join(twice[:5])}; they differ in their extension or in "
            "slashes only. Rename them, or translate the folders one by one."
        )
    if mask_dir is not None:
        masks = volumes_to_translate(mask_dir, source=source)
        by_name = {item["case"]: item["image"] for item in masks}
        lacking = [name for name in names if name not in by_name]
        if lacking:
            raise FileNotFoundError(
                f"{mask_dir} has no mask for {', '.join(lacking[:5])} ({len(lacking)} of {len(names)} volumes); masks "
                "bear the names of their volumes."
            )
        items = [{**item, "mask": by_name[item["case"]]} for item in items]
    return items


def _stem(name: str) -> str:
    """``a/b.nii.gz`` -> ``a_b``."""
    extension = next((end for end in EXTENSIONS if name.lower().endswith(end)), "")
    return name[: len(name) - len(extension)].replace("/", "_")
