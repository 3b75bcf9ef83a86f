"""Open every file of a data set and say what is in it and what is wrong with it, before a training does.

python scripts/check_dataset.py --dataset acdc --dataset_dir /data/ACDC [--json]
"""

import json as json_format
import sys
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fire
import numpy as np
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data.cases import Dataset, dataset_entry, dataset_root
from common.data.label_sets import label_values
from common.data.listing import Case
from common.data.splits import SECTIONS
from common.transforms.loading import PICTURES, VIDEOS, LoadVolume

PUBLISHED = {"acdc": (100, 1902)}  # patients and labelled slices of the part that publications train on


def inspect_case(
    case: Case, entry: Dataset, labels: Collection[int], color: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """What the images of a case (the last one its label map or mask) hold, and the complaints about them.

    ``labels`` are the values that a label map may hold, nothing if that is not known.
    """
    *names, label_name = entry.images or ("image", "label")
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    first: MetaTensor | None = None
    for path, name in ((case[name], name) for name in (*names, label_name) if name in case):
        try:
            image = LoadVolume(color and name != label_name)(path)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if name == label_name:
            values = np.unique(image.numpy()).tolist()
            rows[-1:] = [{**row, "label_values": values} for row in rows[-1:]]
            if values == [0] and not entry.images:
                problems.append(f"{path}: the label map is empty, every voxel is background")
            if labels and not set(values) <= set(labels):
                problems.append(f"{path}: values {values}; only {list(labels)} are labels of this data set")
        else:
            rows.append(_facts(path, image, color))
            low, high = rows[-1]["range"]
            problems += [f"{path} is constant, every voxel is {low:g}"] if low == high else []
        first = image if first is None else first
        if image.shape != first.shape or not np.allclose(image.affine, first.affine, atol=1e-3):
            other = first.meta["filename_or_obj"]
            problems.append(f"{path}: its grid (shape {tuple(image.shape)}) is not that of {other}")
    return rows, problems


def _facts(path: str, image: MetaTensor, color: bool) -> dict[str, Any]:
    return {
        "image": path,
        "frames": 1 if color else int(image.shape[0]),
        "size": list(image.shape[1:]),
        "spacing_mm": "unknown" if path.lower().endswith((*PICTURES, *VIDEOS)) else _spacing(image.affine),
        "range": [float(image.min()), float(image.max())],
    }


def _spacing(affine: Tensor) -> str:
    return " x ".join(f"{float(value):.4g}" for value in affine_to_spacing(affine, 3))


def inspect_dataset(dataset: str, root: Path, color: bool = False) -> dict[str, Any]:
    """The whole report as a JSON-ready dictionary; files are opened two at a time."""
    entry = dataset_entry(dataset)
    cases = entry.read(root, "all")
    problems = entry.problems(root)
    if entry.labels:
        known = {case["case"] for case in cases}
        cases += [case for case in entry.read(root, "labelled") if case["case"] not in known]
    labels = _label_values(dataset, root, entry)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda case: inspect_case(case, entry, labels, color), cases))
    rows = [row for found, _ in results for row in found]
    problems += [problem for _, found in results for problem in found]
    patients = {case["patient"]: home for case, home in zip(cases, entry.sections(cases), strict=True)}
    counts = Counter(patients.values())
    labelled = [row for row in rows if "label_values" in row]
    return {
        "dataset": dataset,
        "folder": str(root),
        "patients": {section: counts[section] for section in SECTIONS},
        "images": sum(len({*(entry.images[:-1] or ("image",))} & case.keys()) for case in cases),
        "readable_images": len(rows),
        "slices": sum(row["frames"] * row["size"][2] for row in rows),
        "sizes": dict(Counter(" x ".join(map(str, row["size"])) for row in rows).most_common()),
        "frames": dict(Counter(str(row["frames"]) for row in rows).most_common()),
        "spacings_mm": dict(Counter(row["spacing_mm"] for row in rows).most_common()),
        "lowest_value": min((row["range"][0] for row in rows), default=None),
        "highest_value": max((row["range"][1] for row in rows), default=None),
        "label_values": sorted({value for row in labelled for value in row["label_values"]}),
        "labelled_slices": sum(row["frames"] * row["size"][2] for row in labelled),
        "notes": _notes(dataset, len(patients), sum(row["frames"] * row["size"][2] for row in labelled)),
        "problems": problems,
    }


def _label_values(dataset: str, root: Path, entry: Dataset) -> tuple[int, ...]:
    """Values that label maps may hold; of a labelled folder those of its labels.json, if it has one."""
    if dataset == "labelled_folder" and (root / "labels.json").is_file():
        return tuple(label_values(dataset, root))
    return entry.labels


def _notes(dataset: str, patients: int, labelled_slices: int) -> list[str]:
    """What differs from the published archive without being wrong: users hold parts of it, or packed it anew."""
    published = PUBLISHED.get(dataset)
    if published is None or (patients, labelled_slices) == published:
        return []
    return [
        f"{patients} patients with {labelled_slices} labelled slices; the published training part has {published[0]} "
        f"with {published[1]}, so figures of publications are of other data"
    ]


def as_text(report: dict[str, Any]) -> str:
    """The report for people: one fact a line, at most eight sizes or spacings, then all problems."""
    lines = [f"{report['dataset']} in {report['folder']}"]
    for key in ("patients", "images", "readable_images", "slices", "labelled_slices", "sizes", "frames", "spacings_mm"):
        value = report[key]
        if isinstance(value, dict):
            items = [f"{name} ({count})" for name, count in value.items()]
            value = ", ".join(items[:8]) + (f", and {len(items) - 8} more kinds" if len(items) > 8 else "")
        lines.append(f"  {key.replace('_', ' '):16} {value}")
    lines.append(f"  {'values':16} {report['lowest_value']} to {report['highest_value']}")
    if report["label_values"]:
        lines.append(f"  {'label values':16} {', '.join(f'{value:g}' for value in report['label_values'])}")
    lines += [f"  {'note':16} {note}" for note in report["notes"]]
    problems = report["problems"]
    lines.append(f"{len(problems)} problem(s)" + (":" if problems else ": ready for training."))
    return "\n".join(lines + [f"  - {problem}" for problem in problems])


def check_dataset(dataset: str, dataset_dir: str, json: bool = False, color: bool = False) -> None:
    """Check a data set; the exit code is 1 if anything is wrong.

    Args:
        dataset: name, as in the configs (cardiac_phantom, whole_heart_phantom_ct, acdc, mmwhs_mr, image_folder, ...).
        dataset_dir: its folder; a phantom is written there if it is not there yet.
        json: print JSON instead of text.
        color: the pictures are meant to be in color.
    """
    try:
        report = inspect_dataset(dataset, dataset_root(dataset, str(dataset_dir)), color)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json_format.dumps(report, indent=2) if json else as_text(report))
    sys.exit(1 if report["problems"] else 0)


if __name__ == "__main__":
    fire.Fire(check_dataset)
