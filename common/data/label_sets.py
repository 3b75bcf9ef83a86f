"""What the label maps of a data set mean: values in the files, class indices of the networks, names for reports."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .readers import acdc, mmwhs
from .readers.labelled_folder import read_label_info


@dataclass(frozen=True)
class LabelSet:
    """Classes of a data set.

    values: value in a file -> class index, 0 being background; several values may mean one class, the first of them is
    the one to write. names: one per class index, "background" first.
    """

    values: Mapping[int, int]
    names: tuple[str, ...]


def _label_set(structures: Mapping[str, int], stray: Mapping[int, int] | None = None) -> LabelSet:
    """Classes in the order of ``structures`` (name -> value); ``stray`` values are read as others."""
    values = {0: 0} | {value: index for index, value in enumerate(structures.values(), start=1)}
    values |= {value: values[meant] for value, meant in (stray or {}).items()}
    return LabelSet(values, ("background", *structures))


_VENTRICLES = _label_set(acdc.STRUCTURES)
_WHOLE_HEART = _label_set(mmwhs.STRUCTURES, mmwhs.STRAY_VALUES)

LABEL_SETS: dict[str, LabelSet] = {
    "acdc": _VENTRICLES,
    "cardiac_phantom": _VENTRICLES,
    "mmwhs_ct": _WHOLE_HEART,
    "mmwhs_mr": _WHOLE_HEART,
    "whole_heart_phantom_ct": _WHOLE_HEART,
    "whole_heart_phantom_mr": _WHOLE_HEART,
}


def label_set(dataset: str, dataset_dir: str | Path | None = None) -> LabelSet:
    """The classes of a data set.

    Args:
        dataset: its name.
        dataset_dir: its folder; needed of ``labelled_folder``, whose ``labels.json`` says what its values mean.

    Raises:
        ValueError: nothing is known about the label maps of this data set.
    """
    if dataset == "labelled_folder":
        return _own_label_set(Path(dataset_dir or "."))
    if dataset not in LABEL_SETS:
        near = difflib.get_close_matches(dataset, LABEL_SETS, n=1, cutoff=0.6)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"No label set of {dataset!r} is known.{hint} Known are those of {', '.join(LABEL_SETS)}, and that of a "
            "labelled_folder with a labels.json."
        )
    return LABEL_SETS[dataset]


def _own_label_set(folder: Path) -> LabelSet:
    """Classes of a labelled folder, in the order of its ``labels.json``."""
    info = read_label_info(folder)
    if info is None:
        raise ValueError(
            f"{folder} has no labels.json, so nobody knows what its label values mean. Write one: "
            '{"values": {"0": "background", "1": name, ...}}.'
        )
    return LabelSet({value: index for index, value in enumerate(info.values)}, tuple(info.values.values()))


def label_values(dataset: str, dataset_dir: str | Path | None = None) -> dict[int, int]:
    """Value in a label file -> class index; arguments and errors as of `label_set`."""
    return dict(label_set(dataset, dataset_dir).values)


def label_names(dataset: str, dataset_dir: str | Path | None = None) -> tuple[str, ...]:
    """Name of every class index, "background" first; arguments and errors as of `label_set`."""
    return label_set(dataset, dataset_dir).names
