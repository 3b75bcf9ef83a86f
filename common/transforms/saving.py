"""Write generated images as NIfTI files that say they are synthetic."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from .. import __version__
from ..atomic import atomic_path, write_text
from .intensity import is_ct
from .loading import NIFTI
from .naming import source_name

_DESCRIPTION_LENGTH = 79  # bytes of the NIfTI header's field `descrip`, less its final zero

_INT16 = (np.iinfo(np.int16).min, np.iinfo(np.int16).max)

# Where the voxels lie. Nothing else of a source's header belongs into a synthetic file.
_GEOMETRY_FIELDS = (
    *("xyzt_units", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def save_nifti(
    path: str | Path,
    voxels: NDArray[Any],
    affine: NDArray[np.float64],
    description: str,
    like: Nifti1Header | None = None,
) -> None:
    """Write a NIfTI file atomically, ``description`` cut to 79 characters.

    Args:
        path: file to write, ``.nii`` or ``.nii.gz``.
        voxels: (X, Y, Z).
        affine: voxel index -> RAS position in mm; it becomes both qform and sform.
        description: text for the header's field ``descrip``.
        like: header of a file with the same grid: its qform, sform, their codes, units and zooms are taken as they
            are instead of ``affine``.
    """
    image = nibabel.Nifti1Image(voxels, affine)
    if like is None:
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        image.header.set_xyzt_units("mm", "sec")
    else:
        for field in _GEOMETRY_FIELDS:
            image.header[field] = like[field]
        image = nibabel.Nifti1Image(voxels, None, image.header)
    image.header["descrip"] = description.encode("ascii", "replace")[:_DESCRIPTION_LENGTH]
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


class SaveSyntheticd(MapTransform):
    """Save each generated image as ``<prefix>_<index>.nii.gz`` beside a JSON file with its provenance.

    An item holds the image (1, X, Y) in [0, 1] under ``keys`` and its number under ``index`` (0 if absent); an
    affine is taken from the item's ``image`` if that is a ``MetaTensor``. Files are float32 and 3-D with one slice.

    Args:
        keys: key of the generated image.
        output_dir: folder for the files.
        provenance: what to record: bundle, seed, sampler, ...; ``"synthetic": true`` and the library's version are
            added.
        prefix: first part of the file names.
    """

    def __init__(
        self, keys: KeysCollection, output_dir: str | Path, provenance: Mapping[str, Any], prefix: str = "sample"
    ) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)
        self.provenance = _complete(provenance)
        self.prefix = prefix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            index = int(result.get("index", 0))
            template = result.get("image")
            affine = template.affine.numpy(force=True) if isinstance(template, MetaTensor) else np.eye(4)
            record = {**self.provenance, "index": index}
            text = "SYNTHETIC " + " ".join(f"{name}={record[name]}" for name in ("bundle", "version", "seed", "index"))
            voxels = torch.as_tensor(result[key])[0, :, :, None].float().numpy(force=True)  # (X, Y, 1)
            stem = self.output_dir / f"{self.prefix}_{index:06d}"
            save_nifti(f"{stem}.nii.gz", voxels, affine, text)
            _write_record(f"{stem}.json", record)
        return result


class SaveTranslation(Transform):
    """Save a translated volume as ``<case>_<modality>.nii.gz`` on its source's grid, beside its provenance as JSON.

    CT is written as int16 in HU, everything else as float32 in arbitrary units.

    Args:
        output_dir: folder for the files.
        provenance: what to record: bundle, seed, ...; ``"synthetic": true`` and the library's version are added.
        modality: of the result; ``ct`` (any case) is in HU.
    """

    def __init__(self, output_dir: str | Path, provenance: Mapping[str, Any], modality: str) -> None:
        self.output_dir, self.provenance, self.modality = Path(output_dir), _complete(provenance), modality
        _plain_name(modality, "modality")

    def __call__(self, volume: MetaTensor, case: str, deviation: MetaTensor | None = None) -> Path:  # type: ignore[override]
        """Write the files and return the volume's path.

        Args:
            volume: (1, X, Y, Z), in HU for CT, with its source's affine and ``meta["filename_or_obj"]``.
            case: first part of the file names.
            deviation: standard deviation of every voxel; written as ``<case>_<modality>_sd.nii.gz``, float32. Levels
                below 0, which the inverse of a crop fills in, become 0.

        Raises:
            ValueError: a value is not finite, the case is no file name, or the grid is not the source's.
        """
        _plain_name(case, "case")
        stem = self.output_dir / f"{case}_{self.modality}"
        record = {
            **self.provenance,
            "case": case,
            "modality": self.modality,
            "source": source_name(volume),
            "units": "HU" if is_ct(self.modality) else "arbitrary",
            "standard_deviation": deviation is not None,
        }
        voxels: NDArray[Any] = _finite(volume, case)
        if is_ct(self.modality):
            voxels = np.clip(np.rint(voxels), *_INT16).astype(np.int16)
        files = {f"{stem}.nii.gz": voxels}
        if deviation is not None:
            files[f"{stem}_sd.nii.gz"] = _finite(deviation, case).clip(min=0)
        affine, like = volume.affine.numpy(force=True), _source_header(volume)
        for path, array in files.items():
            save_nifti(path, array, affine, _description(self.provenance), like)
        _write_record(f"{stem}.json", record)
        return Path(f"{stem}.nii.gz")


class SaveTranslatedd(MapTransform):
    """`SaveTranslation` of ``keys``: the prediction, and optionally a second key with its standard deviation.

    Args:
        keys: key of the prediction; a second key is written where an item has it.
        output_dir, provenance, modality: see `SaveTranslation`.
        name_key: key of the case's name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        provenance: Mapping[str, Any],
        modality: str,
        name_key: str = "case",
    ) -> None:
        super().__init__(keys)
        if len(self.keys) > 2:
            raise ValueError(f"SaveTranslatedd: keys are the prediction and its standard deviation, not {self.keys}.")
        self.save, self.name_key = SaveTranslation(output_dir, provenance, modality), name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        deviation = data.get(self.keys[1]) if len(self.keys) == 2 else None
        self.save(data[self.keys[0]], str(data[self.name_key]), deviation)
        return dict(data)


def _complete(provenance: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in ("bundle", "seed") if name not in provenance]
    if missing:
        raise ValueError(f"provenance lacks {', '.join(missing)}: a synthetic file must say where it comes from.")
    return {"synthetic": True, **provenance, "version": __version__}


def _description(provenance: Mapping[str, Any]) -> str:
    """Header text; a long bundle name is cut, the warning never is."""
    origin = f"SYNTHETIC {provenance['bundle']} {provenance['version']}"
    rest = f" seed={provenance['seed']} not for diagnosis"
    return origin[: _DESCRIPTION_LENGTH - len(rest)] + rest


def _write_record(path: str, record: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(record, indent=2) + "\n")


def _plain_name(name: str, what: str) -> None:
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError(f"{what} {name!r} is no file name: it must not be empty, hold slashes or begin with a dot.")


def _finite(image: MetaTensor, case: str) -> NDArray[np.float32]:
    """(1, X, Y, Z) -> (X, Y, Z)."""
    voxels = image.as_tensor()[0].float().numpy(force=True)
    bad = voxels.size - int(np.isfinite(voxels).sum())
    if bad:
        raise ValueError(f"{case}: {bad} of {voxels.size} predicted values are NaN or infinite; nothing is written.")
    return voxels


def _source_header(volume: MetaTensor) -> Nifti1Header | None:
    """NIfTI header of the volume's source; None where that is another format or not on disk."""
    path = Path(source_name(volume))
    if not path.name.lower().endswith(NIFTI) or not path.is_file():
        return None
    source: Any = nibabel.load(path)
    shape = tuple(volume.shape[1:])
    if source.shape[:3] != shape or not np.allclose(source.affine, volume.affine.numpy(force=True), atol=1e-3):
        raise ValueError(
            f"{path} has shape {source.shape[:3]} and another place in space than its translation of shape {shape}. "
            "Undo the spatial transforms before saving."
        )
    return source.header
