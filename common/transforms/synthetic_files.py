"""What all synthetic NIfTI files have in common: the place in space of their source, and where they come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import MetaTensor
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray
from torch import Tensor

from .. import __version__
from ..atomic import atomic_path, write_text
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


def complete_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """``provenance`` with ``"synthetic": true`` and the library's version.

    Raises:
        ValueError: it names no bundle or no seed.
    """
    missing = [name for name in ("bundle", "seed") if name not in provenance]
    if missing:
        raise ValueError(f"provenance lacks {', '.join(missing)}: a synthetic file must say where it comes from.")
    return {"synthetic": True, **provenance, "version": __version__}


def describe_provenance(provenance: Mapping[str, Any]) -> str:
    """Header text; a long bundle name is cut, the warning never is."""
    origin = f"SYNTHETIC {provenance['bundle']} {provenance['version']}"
    rest = f" seed={provenance['seed']} not for diagnosis"
    return origin[: _DESCRIPTION_LENGTH - len(rest)] + rest


def write_record(path: str, record: Mapping[str, Any]) -> None:
    """Write a provenance as JSON."""
    write_text(path, json.dumps(record, indent=2) + "\n")


def require_plain_name(name: str, what: str) -> None:
    """Raise ValueError unless ``name`` can begin a file name."""
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError(f"{what} {name!r} is no file name: it must not be empty, hold slashes or begin with a dot.")


def hounsfield(voxels: NDArray[np.floating]) -> NDArray[np.int16]:
    """HU as files have them: rounded, and within what the type can hold."""
    return np.clip(np.rint(voxels), *_INT16).astype(np.int16)


def finite_voxels(image: Tensor, case: str) -> NDArray[np.float32]:
    """(1, X, Y, Z) -> (X, Y, Z).

    Raises:
        ValueError: some are not finite.
    """
    voxels = image.as_subclass(Tensor)[0].float().numpy(force=True)
    bad = voxels.size - int(np.isfinite(voxels).sum())
    if bad:
        raise ValueError(f"{case}: {bad} of {voxels.size} predicted values are NaN or infinite; nothing is written.")
    return voxels


def source_header(volume: MetaTensor) -> Nifti1Header | None:
    """NIfTI header of the volume's source; None where that is another format or not on disk.

    Raises:
        ValueError: the volume is not on its source's grid.
    """
    path = Path(source_name(volume))
    if not path.name.lower().endswith(NIFTI) or not path.is_file():
        return None
    source: Any = nibabel.load(path)
    shape = tuple(volume.shape[1:])
    if source.shape[:3] != shape or not np.allclose(source.affine, volume.affine.numpy(force=True), atol=1e-3):
        raise ValueError(
            f"{path} has shape {source.shape[:3]} and another place in space than what was made from it, of shape "
            f"{shape}. Undo the spatial transforms before saving."
        )
    return source.header
