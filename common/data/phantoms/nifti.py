"""NIfTI files of the phantoms: sform = qform with codes 1, units mm and s, described as synthetic."""

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray


def save_nifti(
    path: Path, array: NDArray[np.generic], affine: NDArray[np.float64], recipe: int, frame_s: float = 0
) -> None:
    """Write ``array`` (X, Y, Z) or (X, Y, Z, T); ``frame_s`` is the time between frames in seconds."""
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if array.ndim == 4:
        image.header.set_zooms((*image.header.get_zooms()[:3], frame_s))
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = f"synthetic phantom r{recipe}"
    nib.save(image, path)
