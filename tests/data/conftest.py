"""Tiny files in the public layouts, made up of noise."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

AFFINE = np.diag([-1.5, -1.5, 8.0, 1.0])


def write_patient(folder: Path, number: int, *, cine: bool = False, size: int = 12, depth: int = 3) -> None:
    """One ACDC patient: frames 01 and 05 with labels, Info.cfg, on request a cine of five frames."""
    name = f"patient{number:03d}"
    home = folder / name
    home.mkdir(parents=True)
    rng = np.random.default_rng(number)
    frames = rng.integers(10, 400, (size, size + 2, depth, 5)).astype(np.int16)
    for frame in (1, 5):
        label = rng.integers(0, 4, frames.shape[:3]).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(frames[..., frame - 1], AFFINE), home / f"{name}_frame{frame:02d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, AFFINE), home / f"{name}_frame{frame:02d}_gt.nii.gz")
    if cine:
        nibabel.save(nibabel.Nifti1Image(frames, AFFINE), home / f"{name}_4d.nii.gz")
    (home / "Info.cfg").write_text("ED: 1\nES: 5\nGroup: NOR\nNbFrame: 5\n")


@pytest.fixture
def acdc(tmp_path: Path) -> Callable[..., Path]:
    """Function that makes an ACDC folder of ``patients`` patients."""

    def make(patients: int = 4, **options: int | bool) -> Path:
        for number in range(1, patients + 1):
            write_patient(tmp_path / "acdc", number, **options)
        return tmp_path / "acdc"

    return make
