"""Write generated images as NIfTI files that say they are synthetic."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelWriter
from monai.transforms import MapTransform

from .. import __version__
from ..atomic import atomic_path, write_text


class ProvenanceNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer plus a line in the header's ``descrip`` field (79 characters at most).

    Args:
        description: text for the header.
        output_dtype: type of the voxels on disk.
    """

    def __init__(self, description: str, output_dtype: Any = np.float32) -> None:
        super().__init__(output_dtype=output_dtype)
        self.description = description.encode("ascii", "replace")[:79]

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Create the image as MONAI does, add the description, save."""
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype, **kwargs)
        image.header["descrip"] = self.description
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, filename)


class SaveSyntheticd(MapTransform):
    """Save each generated image as ``<prefix>_<index>.nii.gz`` beside a JSON file with its provenance.

    An item holds the image (1, X, Y) in [0, 1] under ``keys`` and its number under ``index``; an affine is taken from the
    item's ``image`` if that is a ``MetaTensor``. Files are float32 and 3-D with one slice.

    Args:
        keys: key of the generated image.
        output_dir: folder for the files.
        provenance: what to record: bundle, seed, sampler, ...; ``"synthetic": true`` and the library's
            version are added.
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
            index = int(result["index"])
            template = result.get("image")
            affine = template.affine if isinstance(template, MetaTensor) else torch.eye(4, dtype=torch.float64)
            record = {**self.provenance, "index": index}
            text = "SYNTHETIC " + " ".join(f"{name}={record[name]}" for name in ("bundle", "version", "seed", "index"))
            writer = ProvenanceNibabelWriter(text)
            writer.set_data_array(torch.as_tensor(result[key])[..., None], channel_dim=0)  # (1, X, Y, 1)
            writer.set_metadata({"affine": affine}, resample=False)
            path = self.output_dir / f"{self.prefix}_{index:06d}.nii.gz"
            with atomic_path(path) as temporary:
                writer.write(temporary)
            write_text(path.with_name(f"{self.prefix}_{index:06d}.json"), json.dumps(record, indent=2) + "\n")
        return result
