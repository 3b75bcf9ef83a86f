"""Open every file of a data set and say what is in it and what is wrong with it, before a training does.

python scripts/check_dataset.py --dataset acdc --dataset_dir /data/ACDC [--json]
"""

import json as json_format
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fire
import numpy as np
from monai.data.utils import affine_to_spacing
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data.cases import dataset_entry, dataset_root, section_of
from common.data.listing import Case
from common.data.splits import SECTIONS
from common.transforms.loading import PICTURES, VIDEOS, LoadVolume


def inspect_case(case: Case, labels: tuple[int, ...], color: bool) -> tuple[dict[str, Any], list[str]]:
    """What one image (and its label map) holds, and the complaints about it."""
    try:
        image = LoadVolume(color)(case["image"])
    except (ValueError, OSError) as error:
        return {}, [str(error)]
    low, high = float(image.min()), float(image.max())
    row: dict[str, Any] = {
        "image": case["image"],
        "frames": 1 if color else int(image.shape[0]),
        "size": list(image.shape[1:]),
        "spacing_mm": "unknown" if case["image"].lower().endswith((*PICTURES, *VIDEOS)) else _spacing(image.affine),
        "range": [low, high],
    }
    problems = [f"{case['image']} is constant, every voxel is {low:g}"] if low == high else []
    if "label" not in case:
        return row, problems
    try:
        label = LoadVolume()(case["label"])
    except (ValueError, OSError) as error:
        return row, [*problems, str(error)]
    values = np.unique(label.numpy()).tolist()
    row["label_values"] = values
    if label.shape != image.shape or not np.allclose(label.affine, image.affine, atol=1e-3):
        problems.append(f"{case['label']}: its grid (shape {tuple(label.shape)}) is not that of {case['image']}")
    if not set(values) <= set(labels):
        problems.append(f"{case['label']}: values {values}; only {list(labels)} are labels of this data set")
    return row, problems


def _spacing(affine: Tensor) -> str:
    return " x ".join(f"{float(value):.4g}" for value in affine_to_spacing(affine, 3))


def inspect_dataset(dataset: str, root: Path, color: bool = False) -> dict[str, Any]:
    """The whole report as a JSON-ready dictionary; files are opened two at a time."""
    entry = dataset_entry(dataset)
    cases = entry.read(root, "all")
    problems = entry.problems(root)
    if entry.labels:
        known = {case["image"] for case in cases}
        cases += [case for case in entry.read(root, "labelled") if case["image"] not in known]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda case: inspect_case(case, entry.labels, color), cases))
    rows = [row for row, _ in results if row]
    problems += [problem for _, found in results for problem in found]
    patients = {case["patient"]: section_of(dataset, case) for case in cases}
    counts = Counter(patients.values())
    return {
        "dataset": dataset,
        "folder": str(root),
        "patients": {section: counts[section] for section in SECTIONS},
        "images": len(cases),
        "readable_images": len(rows),
        "slices": sum(row["frames"] * row["size"][2] for row in rows),
        "sizes": dict(Counter(" x ".join(map(str, row["size"])) for row in rows).most_common()),
        "frames": dict(Counter(str(row["frames"]) for row in rows).most_common()),
        "spacings_mm": dict(Counter(row["spacing_mm"] for row in rows).most_common()),
        "lowest_value": min((row["range"][0] for row in rows), default=None),
        "highest_value": max((row["range"][1] for row in rows), default=None),
        "label_values": sorted({value for row in rows for value in row.get("label_values", ())}),
        "problems": problems,
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for people: one fact a line, at most eight sizes or spacings, then all problems."""
    lines = [f"{report['dataset']} in {report['folder']}"]
    for key in ("patients", "images", "readable_images", "slices", "sizes", "frames", "spacings_mm"):
        value = report[key]
        if isinstance(value, dict):
            items = [f"{name} ({count})" for name, count in value.items()]
            value = ", ".join(items[:8]) + (f", and {len(items) - 8} more kinds" if len(items) > 8 else "")
        lines.append(f"  {key.replace('_', ' '):16} {value}")
    lines.append(f"  {'values':16} {report['lowest_value']} to {report['highest_value']}")
    if report["label_values"]:
        lines.append(f"  {'label values':16} {', '.join(f'{value:g}' for value in report['label_values'])}")
    problems = report["problems"]
    lines.append(f"{len(problems)} problem(s)" + (":" if problems else ": ready for training."))
    return "\n".join(lines + [f"  - {problem}" for problem in problems])


def check_dataset(dataset: str, dataset_dir: str, json: bool = False, color: bool = False) -> None:
    """Check a data set; the exit code is 1 if anything is wrong.

    Args:
        dataset: name, as in the configs (cardiac_phantom, echo_phantom, acdc, echonet, image_folder, ...).
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
