"""Edits that spoil a NIfTI file of a good data set."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np


def change(path: Path, edit: Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image]) -> None:
    """Write ``edit(image)`` in place of an image."""
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)  # before the file goes
    nibabel.save(edit(nibabel.Nifti1Image(voxels, image.affine, image.header)), path)


def shifted(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    affine = image.affine.copy()
    affine[0, 3] += 7
    return nibabel.Nifti1Image(image.dataobj, affine)


def blank(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(np.zeros(image.shape, np.float32), image.affine)


def like_ct(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    return nibabel.Nifti1Image(2000 * voxels / voxels.max() - 1024, image.affine)
