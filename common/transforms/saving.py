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
from monai.transforms import MapTransform
from numpy.typing import NDArray

from .. import __version__
from ..atomic import atomic_path, write_text

_DESCRIPTION_LENGTH = 79  # bytes of the NIfTI header's field `descrip`, less its final zero


def save_nifti(path: str | Path, voxels: NDArray[Any], affine: NDArray[np.float64], description: str) -> None:
    """Write a NIfTI file atomically: qform = sform = ``affine`` (RAS, mm), ``description`` cut to 79 characters."""
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
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
        self.provenance = {"synthetic": True, **provenance, "version": __version__}
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
            save_nifti(self.output_dir / f"{self.prefix}_{index:06d}.nii.gz", voxels, affine, text)
            write_text(self.output_dir / f"{self.prefix}_{index:06d}.json", json.dumps(record, indent=2) + "\n")
        return result
