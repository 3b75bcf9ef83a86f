"""Folders of the head phantom: BraTS 2023 GLI, ISLES 2015 SISS and SynthRAD2023 Task 1."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .brain_contrasts import Protocol
from .brain_image import BrainCase
from .brain_lesions import Shown
from .brain_scene import Box
from .nifti import save_nifti
from .writer import array_hash

_CROP_MARGIN_MM = 10.0  # around the mask of a SynthRAD case
_ISLES_CONTRASTS = {"DWI": "dwi", "Flair": "t2f", "T1": "t1n", "T2": "t2w"}


@dataclass
class Output:
    """Saves the arrays of one case below ``folder`` and remembers names and hashes.

    Arrays come as (X, Y, Z) with x to the right and y to the front; files run from right to left and from front to
    back, as those of BraTS do, and the affine says so. Of all layouts the same voxel has the same world coordinates.
    """

    folder: Path
    case: BrainCase
    recipe: int
    files: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)

    def save(self, name: str, array: NDArray[Any], box: Box | None = None) -> None:
        """Write ``folder/name``; ``box`` crops, in voxels of the file's axes."""
        grid = self.case.grid
        pixel = grid.pixel_mm
        affine = np.diag([-pixel, -pixel, grid.slice_mm, 1.0])
        affine[1, 3] = (grid.size - 1) * pixel
        array = array[::-1, ::-1]
        if box is not None:
            array = array[box]
            affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
        array = np.ascontiguousarray(array)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_nifti(path, array, affine, self.recipe)
        self.files.append(name)
        self.hashes[name] = array_hash(array, affine)


def _brats_patient(number: int) -> str:
    return f"BraTS-GLI-{number:05d}"


def _write_brats(output: Output, number: int) -> None:
    case, mask = output.case, output.case.brain_mask()
    scan = f"{_brats_patient(number)}-{case.visit:03d}"
    for contrast in ("t1n", "t1c", "t2w", "t2f"):
        output.save(f"{scan}/{scan}-{contrast}.nii.gz", case.magnetic_resonance(contrast) * mask)
    seg = np.zeros(case.grid.shape, dtype=np.uint8)
    for value, tissue in enumerate(("core", "edema", "enhancing"), start=1):
        seg[case.label_of(tissue) & mask] = value
    output.save(f"{scan}/{scan}-seg.nii.gz", seg)


def _isles_patient(number: int) -> str:
    return f"training_{number + 1}"


def _write_isles(output: Output, number: int) -> None:
    case, mask = output.case, output.case.brain_mask()
    home = f"SISS2015_Training/{number + 1}"

    def save(name: str, index: int, array: NDArray[Any]) -> None:
        name = f"{name}.{70000 + 10 * number + index}"  # every file has a number of its own
        output.save(f"{home}/{name}/{name}.nii", array)

    for index, (name, contrast) in enumerate(_ISLES_CONTRASTS.items()):
        save(f"VSD.Brain.XX.O.MR_{name}", index, case.magnetic_resonance(contrast) * mask)
    save("VSD.Brain.XX.XX.OT", len(_ISLES_CONTRASTS), (case.label_of("stroke") & mask).astype(np.uint8))


def _synthrad_patient(number: int) -> str:
    return f"1B{'ABC'[number % 3]}{3 * number + 2:03d}"


def _write_synthrad(output: Output, number: int) -> None:
    case, mask = output.case, output.case.body_mask()
    home = f"Task1/brain/{_synthrad_patient(number)}"
    box = _around(mask[::-1, ::-1], round(_CROP_MARGIN_MM / case.grid.pixel_mm))
    contrast, protocol = _center_protocol(case, "ABC"[number % 3])
    output.save(f"{home}/mr.nii.gz", case.magnetic_resonance(contrast, protocol=protocol), box)
    output.save(f"{home}/ct.nii.gz", case.computed_tomography(), box)
    output.save(f"{home}/mask.nii.gz", mask.astype(np.uint8), box)
    (output.folder / "Task1" / "brain" / "overview").mkdir(exist_ok=True)


def _center_protocol(case: BrainCase, center: str) -> tuple[str, Protocol]:
    """What a center scans: A T1-weighted, B the same with a short TR and a small angle, C after contrast agent."""
    contrast = "t1c" if center == "C" else "t1n"
    protocol = case.scanner.contrasts[contrast].protocol
    if center == "B":
        protocol = replace(protocol, tr=protocol.tr * 12 / 22, flip=protocol.flip * 16 / 26)
    return contrast, protocol


def _around(mask: NDArray[np.bool_], margin: int) -> Box:
    """Bounding box of a mask, widened by ``margin`` voxels as far as the grid reaches."""
    parts = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        parts.append(slice(max(int(hits[0]) - margin, 0), min(int(hits[-1]) + 1 + margin, mask.shape[axis])))
    return parts[0], parts[1], parts[2]


def _synthrad_lesions(case: int) -> Shown:
    """A third without lesion, a third with a glioma, a third with old spots; in every center."""
    kind = (case // 3) % 3
    return Shown(glioma=kind == 1, chronic=kind == 2)


@dataclass(frozen=True)
class Layout:
    """One public layout.

    Args:
        patient: patient id by which readers and splits know head ``number``.
        lesions: what a case shows.
        write: writes one visit.
        revisits: every eighth patient comes a second time.
        period: heads whose numbers agree modulo this look alike apart from anatomy (centers).
    """

    patient: Callable[[int], str]
    lesions: Callable[[int], Shown]
    write: Callable[[Output, int], None]
    revisits: bool = False
    period: int = 1


LAYOUTS = {
    "brats": Layout(_brats_patient, lambda case: Shown(glioma=True), _write_brats, revisits=True),
    "isles": Layout(_isles_patient, lambda case: Shown(stroke=True, chronic=True), _write_isles),
    "synthrad": Layout(_synthrad_patient, _synthrad_lesions, _write_synthrad, period=3),
}
