"""The whole-heart phantom: CT angiography and whole-heart MR of the chest with labels, in the layout of MM-WHS.

Everything is made up, nothing is anyone's data: numbers obtained on it test code and say nothing about patients.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nifti import save_nifti
from .whole_heart_anatomy import Anatomy
from .whole_heart_chest import paint_chest
from .whole_heart_fields import MAX_FOV_MM, WholeHeartFields, draw_coil
from .whole_heart_heart import paint_heart
from .whole_heart_image import computed_tomography, hounsfield_values, magnetic_resonance, signal_values
from .whole_heart_parameters import (
    MODALITIES,
    anatomy_stream,
    draw_whole_heart,
    draw_whole_heart_scanner,
    noise_stream,
    scanner_stream,
)
from .whole_heart_scene import WholeHeartScene
from .whole_heart_space import Chest, WholeHeartGrid
from .writer import array_hash, phantom_name, write_phantom

RECIPE_VERSION = 1
FOV_MM, SLICES = 180.0, 40
_DEFAULTS = {"fov_mm": FOV_MM, "slices": SLICES, "ideal": False}


@dataclass(frozen=True)
class WholeHeartJob:
    """One volume to be written."""

    case: int
    seed: int
    modality: str
    grid: WholeHeartGrid
    ideal: bool


class WholeHeartCase:
    """One chest on one grid, before it is written.

    Args:
        seed, case, modality: which chest; CT and MR show different people.
        grid: the voxels.
        ideal: no noise, coil, texture or uneven blood: pure voxels hold the value of their tissue.
    """

    def __init__(self, seed: int, case: int, modality: str, grid: WholeHeartGrid, *, ideal: bool = False) -> None:
        self.seed, self.case, self.modality, self.grid, self.ideal = seed, case, modality, grid, ideal
        stream = anatomy_stream(seed, case, modality)
        self.parameters = draw_whole_heart(stream, case)
        fields = WholeHeartFields.draw(stream)
        scanner = scanner_stream(seed, case, modality)
        self.scanner = draw_whole_heart_scanner(scanner)
        self._coil = draw_coil(scanner)
        self.anatomy = Anatomy.of(self.parameters)
        self.chest = Chest(grid, self.anatomy.origin, fields)
        values = hounsfield_values if modality == "ct" else signal_values
        self.scene = WholeHeartScene(grid.shape, grid.pixel_mm, values(self.scanner, None if ideal else self.chest))
        paint_chest(self.scene, self.chest, self.anatomy)
        paint_heart(self.scene, self.chest, self.anatomy)

    def image(self) -> NDArray[np.int16]:
        """Hounsfield units or grey levels (X, Y, Z)."""
        image = self.scene.image
        stream = noise_stream(self.seed, self.case, self.modality)
        if self.modality == "ct":
            return np.rint(image).astype(np.int16) if self.ideal else computed_tomography(image, self.scanner, stream)
        if self.ideal:
            return np.rint(image * (self.scanner.gain / self.scene.values["arterial_blood"])).astype(np.int16)
        return magnetic_resonance(image, self.scanner, self.chest, self._coil, stream)

    def labels(self) -> NDArray[np.int16]:
        """Values of MM-WHS (X, Y, Z)."""
        return self.scene.labels


def write_whole_heart_phantom(
    root: str | Path,
    *,
    modality: str,
    cases: int = 20,
    size: int = 128,
    slices: int = SLICES,
    fov_mm: float = FOV_MM,
    seed: int = 0,
    ideal: bool = False,
) -> Path:
    """Write the phantom below ``root`` unless it is there, and return its folder.

    ``<modality>_train/<modality>_train_10NN_{image,label}.nii.gz``, axial slices from below upwards. A case is the same
    in sets of any number of cases; its anatomy also at any ``size``, number of slices and ``fov_mm``.

    Args:
        modality: "ct" (angiography, Hounsfield units) or "mr" (balanced SSFP with fat saturation).
        cases: number of patients.
        size: pixels per side of a slice.
        slices: number of slices; together they are always 144 mm high.
        fov_mm: field of view of a slice.
        ideal: switch noise, coil, texture and uneven blood off.

    Raises:
        ValueError: for a modality, grid or number of cases that cannot be made.
    """
    if modality not in MODALITIES:
        raise ValueError(f"write_whole_heart_phantom: modality={modality!r}; choose one of {', '.join(MODALITIES)}.")
    if not 1 <= cases <= 999:
        raise ValueError(f"write_whole_heart_phantom: cases={cases} must lie in 1..999.")
    grid = _grid(size, slices, float(fov_mm))
    options = {"cases": cases, "size": size, "slices": slices, "fov_mm": grid.fov_mm, "seed": seed, "ideal": ideal}
    kind = f"whole_heart_{modality}"
    name = phantom_name(kind, "mmwhs", RECIPE_VERSION, options, _DEFAULTS, size)
    header = {"kind": kind, "layout": "mmwhs", "recipe": RECIPE_VERSION, "options": options}
    jobs = [WholeHeartJob(case, seed, modality, grid, ideal) for case in range(cases)]
    return write_phantom(root, name, header, jobs, write_case)


def _grid(size: int, slices: int, fov_mm: float) -> WholeHeartGrid:
    """The voxel grid, if a heart can be shown on it."""
    if size < 32:
        raise ValueError(f"write_whole_heart_phantom: size={size} px cannot show a heart; use at least 32, e.g. 64.")
    if not 8 <= slices <= 160:
        raise ValueError(f"write_whole_heart_phantom: slices={slices} must lie in 8..160, for 144 mm of height.")
    if not 150 <= fov_mm <= MAX_FOV_MM:
        raise ValueError(
            f"write_whole_heart_phantom: fov_mm={fov_mm:g} must lie in 150..{MAX_FOV_MM:g}: below, hearts are cut off; "
            "above, the chest's fields end."
        )
    return WholeHeartGrid(size, fov_mm, slices)


def write_case(folder: Path, job: WholeHeartJob) -> dict[str, Any]:
    """Write one volume and its label map below ``folder`` and return its entry of the manifest."""
    case = WholeHeartCase(job.seed, job.case, job.modality, job.grid, ideal=job.ideal)
    home = f"{job.modality}_train"
    (folder / home).mkdir(exist_ok=True)
    patient = f"{home}_{1001 + job.case}"
    grid = job.grid
    affine = np.diag([-grid.pixel_mm, -grid.pixel_mm, grid.slice_mm, 1.0])  # to the left, to the back, upwards
    affine[:3, 3] = [-grid.axes[0][0], -grid.axes[1][0], grid.axes[2][0]]
    files, hashes = [], {}
    for part, array in (("image", case.image()), ("label", case.labels())):
        name = f"{home}/{patient}_{part}.nii.gz"
        save_nifti(folder / name, array, affine, RECIPE_VERSION)
        files.append(name)
        hashes[part] = array_hash(array, affine)
    return {
        "patient": patient,
        "case": job.case,
        "parameters": asdict(case.parameters),
        "scanner": asdict(case.scanner),
        "files": files,
        "hashes": hashes,
    }
