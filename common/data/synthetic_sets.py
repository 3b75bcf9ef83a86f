"""What a labelled synthetic set says about itself, and where such a set must not be used."""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import write_text
from ..parallel import process_rank
from .label_requests import LabelRequests, sample_name
from .listing import Case
from .readers.labelled_folder import read_label_info
from .splits import trained_patients

_COLUMNS = ("file", "patient")

logger = logging.getLogger(__name__)


def write_synthetic_set(
    folder: str | Path,
    requests: LabelRequests,
    *,
    label_values: Mapping[int, int],
    label_names: Sequence[str],
    dataset: str,
    settings: Mapping[str, Any],
    weights: Sequence[str | Path | None] = (),
) -> None:
    """Write ``labels.json`` and ``metadata.csv`` of a set before its samples are drawn; rank 0 writes.

    A set that is there is extended (more samples of the same settings). The patient of a sample is the one whose label
    map it was made from, so that splits by patient hold for synthetic images, too.

    Args:
        folder: of the set; its pairs come from `SaveLabelledd`, which names the files by the items' ``case``.
        requests: what is drawn.
        label_values, label_names: what the label maps hold, see `label_values` and `label_names` of `.label_sets`.
        dataset: name of the data set that the label maps belong to.
        settings: what the samples depend on besides: bundle, digest of the weights, seed, mode, ...
        weights: of all stages of the generator; whom they were trained on is in the samples, too.

    Raises:
        ValueError: the folder holds a set of other settings.
    """
    folder = Path(folder)
    path = folder / "labels.json"
    values = {index: value for value, index in reversed([*label_values.items()])}  # the first of several
    ours: dict[str, Any] = {
        "values": {str(values[index]): name for index, name in enumerate(label_names)},
        "synthetic": True,
        "source_dataset": dataset,
        "settings": {
            **settings,
            "label_maps": len(requests.eligible),
            "label_seed": requests.seed,
            "min_label_pixels": requests.min_label_pixels,
        },
    }
    patients = set(requests.source_patients) | trained_patients(weights)
    if path.is_file():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        different = _differences(theirs, json.loads(json.dumps(ours)))
        if different:
            raise ValueError(
                f"{folder} holds a synthetic set of other settings ({'; '.join(different)}). Write this one to another "
                "output_dir, or remove that set."
            )
        patients |= set(theirs.get("source_patients", ()))
    elif any((folder / part).is_dir() for part in ("images", "labels")):
        raise ValueError(f"{folder} holds images, but no labels.json of a synthetic set; choose another output_dir.")
    if process_rank() != 0:
        return
    rows = _read_rows(folder / "metadata.csv")
    rows |= {f"{sample_name(index)}.nii.gz": requests.patient(index) for index in requests.indices}
    write_text(path, json.dumps({**ours, "source_patients": sorted(patients)}, indent=2) + "\n")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([_COLUMNS, *sorted(rows.items())])
    write_text(folder / "metadata.csv", text.getvalue())


def require_training_sources(folder: str | Path, dataset: str, sections: Mapping[str, Sequence[Case]]) -> None:
    """Raise if a synthetic set was made with the data of a patient who is not for training here.

    Its source patients are those of the label maps and those that the generator was trained on.

    Args:
        folder: of the set; of images that are not synthetic, or of another data set, nothing can be said (the latter
            is logged).
        dataset: name of the data set that ``sections`` belong to.
        sections: section name -> its cases, of this run; with "training" all others than these are refused, without it
            those in the sections.

    Raises:
        ValueError: names the first such patients.
    """
    info = read_label_info(Path(folder))
    if info is None or not info.synthetic:
        return
    if info.source_dataset != dataset:
        logger.warning("%s was made from %s, this run is on %s.", folder, info.source_dataset, dataset)
        return
    homes = {name: {case["patient"] for case in cases} for name, cases in sections.items()}
    sources = set(info.source_patients)
    held_out = sources - homes["training"] if "training" in homes else sources & set().union(*homes.values())
    if held_out:
        raise ValueError(
            f"The synthetic set in {folder} was made with {len(held_out)} patient(s) that are not for training here "
            f"({', '.join(sorted(held_out)[:5])}): scores would measure memory. Make a set, and train its generator, "
            "with this run's split."
        )


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What is not the same: ``name theirs, here ours``."""
    pairs = {name: (theirs.get(name), ours[name]) for name in ("values", "source_dataset")}
    old, new = theirs.get("settings", {}), ours["settings"]
    pairs |= {name: (old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])}
    return [f"{name} {before}, here {now}" for name, (before, now) in pairs.items() if before != now]


def _read_rows(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["file"]: row["patient"] for row in csv.DictReader(file)}
