"""Write generated images as NIfTI files that say they are synthetic."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from numpy.typing import NDArray

from .intensity import is_ct
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
        self.provenance = complete_provenance(provenance)
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
            write_record(f"{stem}.json", record)
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
        self.output_dir, self.provenance, self.modality = Path(output_dir), complete_provenance(provenance), modality
        require_plain_name(modality, "modality")

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
        require_plain_name(case, "case")
        stem = self.output_dir / f"{case}_{self.modality}"
        record = {
            **self.provenance,
            "case": case,
            "modality": self.modality,
            "source": source_name(volume),
            "units": "HU" if is_ct(self.modality) else "arbitrary",
            "standard_deviation": deviation is not None,
        }
        voxels: NDArray[Any] = finite_voxels(volume, case)
        if is_ct(self.modality):
            voxels = hounsfield(voxels)
        files = {f"{stem}.nii.gz": voxels}
        if deviation is not None:
            files[f"{stem}_sd.nii.gz"] = finite_voxels(deviation, case).clip(min=0)
        affine, like = volume.affine.numpy(force=True), source_header(volume)
        for path, array in files.items():
            save_nifti(path, array, affine, describe_provenance(self.provenance), like)
        write_record(f"{stem}.json", record)
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
