"""Write images that were generated from label maps, together with these label maps, as pairs of NIfTI files."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray
from torch import Tensor

from .labels import file_values
from .loading import LoadVolume
from .naming import source_name
from .synthetic_files import (
    complete_provenance,
    describe_provenance,
    finite_voxels,
    hounsfield,
    require_plain_name,
    save_nifti,
    source_header,
    write_record,
)

UNIT = (0.0, 1.0)  # a window that says nothing: levels are arbitrary
_ORIGIN = ("index", "source_patient", "source_case", "source_slice", "deformed")


class SaveLabelledd(MapTransform):
    """Save a generated slice with the label map it was made from: a pair of a set in the layout ``labelled_folder``.

    ``images/<case>.nii.gz`` and ``labels/<case>.nii.gz``, 3-D with one slice, and ``images/<case>.json`` with the
    provenance, to which ``index``, ``source_patient``, ``source_case``, ``source_slice`` and ``deformed`` are added
    where an item has them.

    Args:
        keys: key of the image, (1, X, Y) in [0, 1].
        output_dir: folder of the set.
        provenance: what to record: bundle, seed, mode, ...
        label_values: value in files -> class index, of the data set that the label maps come from; they are written
            with its values (of several for one class the first), so that both can be read alike.
        label_key: key of the label map, (1, X, Y) class indices with the affine of the pair.
        name_key: key of the pair's name.
        window: levels of 0 and 1. In HU, images are written as int16; (0, 1) leaves them in [0, 1], as float32.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        provenance: Mapping[str, Any],
        label_values: Mapping[int, int],
        label_key: str = "label",
        name_key: str = "case",
        window: Sequence[float] = UNIT,
    ) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)
        self.provenance = {**complete_provenance(provenance), "units": _units(window)}
        self.values = np.array(file_values(label_values), dtype=np.int32)
        self.label_key, self.name_key, self.window = label_key, name_key, (float(window[0]), float(window[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        label, name = data[self.label_key], str(data[self.name_key])
        require_plain_name(name, "case")
        indices = torch.as_tensor(label)[0, :, :, None].numpy(force=True)  # (X, Y, 1)
        if not np.isin(indices, np.arange(len(self.values))).all():
            raise ValueError(
                f"{name}: the label map holds {np.unique(indices)[:8].tolist()}, not the class indices 0 to "
                f"{len(self.values) - 1}."
            )
        classes = _smallest(self.values[indices.astype(np.int64)])
        affine = label.affine.numpy(force=True) if isinstance(label, MetaTensor) else np.eye(4)
        text = describe_provenance(self.provenance)
        for key in self.key_iterator(dict(data)):
            image = _levels(finite_voxels(data[key][..., None], name), self.window)
            save_nifti(self.output_dir / "labels" / f"{name}.nii.gz", classes, affine, text)
            save_nifti(self.output_dir / "images" / f"{name}.nii.gz", image, affine, text)
            origin = {fact: _plain(data[fact]) for fact in _ORIGIN if fact in data}
            write_record(f"{self.output_dir / 'images' / name}.json", {**self.provenance, "case": name, **origin})
        return dict(data)


class SavePaintedd(MapTransform):
    """Save an image volume that was painted from a label volume, on the grid of the label map's file.

    ``<case>_image.nii.gz``, ``<case>_image.json`` with the provenance, and the label map once more as
    ``<case>_label.nii.gz``, with the values and the place in space of its file.

    Args:
        keys: key of the image, (1, X, Y, Z) in [0, 1] with the affine and ``meta["filename_or_obj"]`` of the label map.
        output_dir, provenance, name_key, window: see `SaveLabelledd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        provenance: Mapping[str, Any],
        name_key: str = "case",
        window: Sequence[float] = UNIT,
    ) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)
        self.provenance = {**complete_provenance(provenance), "units": _units(window)}
        self.name_key, self.window = name_key, (float(window[0]), float(window[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            self._save(data[key], str(data[self.name_key]))
        return dict(data)

    def _save(self, volume: MetaTensor, case: str) -> None:
        require_plain_name(case, "case")
        image = _levels(finite_voxels(volume, case), self.window)
        source = source_name(volume)
        affine, like = volume.affine.numpy(force=True), source_header(volume)
        label = LoadVolume()(source).as_tensor()[0].numpy()
        if label.shape != image.shape:
            raise ValueError(f"{source} has shape {label.shape}, the image made from it {image.shape}.")
        stem, text = self.output_dir / case, describe_provenance(self.provenance)
        save_nifti(f"{stem}_label.nii.gz", _smallest(label), affine, text, like)
        save_nifti(f"{stem}_image.nii.gz", image, affine, text, like)
        write_record(f"{stem}_image.json", {**self.provenance, "case": case, "source": source})


def _units(window: Sequence[float]) -> str:
    low, high = window
    if not low < high:
        raise ValueError(f"window={tuple(window)} must be two rising levels.")
    return "arbitrary" if (low, high) == UNIT else "HU"


def _levels(voxels: NDArray[np.float32], window: tuple[float, float]) -> NDArray[Any]:
    """[0, 1] -> float32 in [0, 1], or int16 in HU."""
    unit, (low, high) = voxels.clip(0, 1), window
    return unit if window == UNIT else hounsfield(unit * (high - low) + low)


def _smallest(labels: NDArray[Any]) -> NDArray[np.integer]:
    """Whole numbers in the smallest type that every program reads."""
    limits = {kind: np.iinfo(kind) for kind in (np.uint8, np.int16, np.int32)}
    fitting = (kind for kind, limit in limits.items() if limit.min <= labels.min() and labels.max() <= limit.max)
    return labels.astype(next(fitting))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
