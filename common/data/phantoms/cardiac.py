"""The cardiac phantom: short-axis cine MR at 1.5 T with labels, written in the layout of ACDC.

Everything is made up, nothing is anyone's data: numbers obtained on it test code and say nothing about patients.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..splits import split_of
from .cardiac_fields import MAX_FOV_MM, AnatomyFields, ScannerFields
from .cardiac_heart import Heart, Planes, solve
from .cardiac_image import CardiacPainter, Scanner, Signals, ideal_signals, noise_stream, textured_signals
from .cardiac_parameters import (
    ScannerParameters,
    anatomy_stream,
    draw_parameters,
    draw_scanner,
    scanner_stream,
)
from .cycle import contraction
from .nifti import save_nifti
from .painting import pixel_centers
from .writer import array_hash, phantom_name, write_phantom

RECIPE_VERSION = 1
NUM_FRAMES = 12
FOV_MM = {64: 160.0, 96: 160.0, 128: 200.0, 192: 300.0}
_DEFAULTS = {"fov_mm": None, "cine": True, "duplicates": 0, "ideal": False, "banding": False}


@dataclass(frozen=True)
class CardiacJob:
    """One patient to be written: number ``patient`` shows the heart of ``case``; ``scan`` > 0 renews its noise."""

    patient: int
    case: int
    scan: int
    seed: int
    size: int
    fov_mm: float
    cine: bool
    ideal: bool
    banding: bool


class CardiacCase:
    """One heart on one pixel grid, before it is written.

    Args:
        seed, case: which heart.
        size, fov_mm: pixels and field of view (mm) of the square slices.
        ideal: no noise, coil, texture or off-resonance: grey level = gain times signal equation in pure voxels.
        banding: three times the off-resonance.
    """

    def __init__(
        self, seed: int, case: int, size: int = 96, fov_mm: float = 160.0, *, ideal: bool = False, banding: bool = False
    ) -> None:
        self.seed, self.case, self.ideal, self.banding = seed, case, ideal, banding
        anatomy = anatomy_stream(seed, case)
        self.parameters = draw_parameters(anatomy, case)
        self._anatomy_fields = AnatomyFields.draw(anatomy)
        scanner = scanner_stream(seed, case)
        self.scanner_parameters: ScannerParameters = draw_scanner(scanner)
        self._scanner_fields = ScannerFields.draw(scanner)
        self.heart: Heart = solve(self.parameters)
        self.centers = pixel_centers(size, fov_mm)
        phases = np.arange(NUM_FRAMES) / NUM_FRAMES
        self.contraction = contraction(phases, self.parameters.es_phase)
        self.es_frame = int(self.contraction.argmax())

    def signals(self) -> dict[str, NDArray[np.floating]]:
        """Signal of every tissue in every voxel."""
        if self.ideal:
            return ideal_signals()
        z = self.heart.slices_mm
        fields = self._anatomy_fields, self._scanner_fields
        return textured_signals(*fields, self.centers, self.centers, z, banding=self.banding)

    def painter(self, signals: Signals) -> CardiacPainter:
        """Painter of the noiseless signal."""
        return CardiacPainter(self.heart, self._anatomy_fields, signals, self.centers, self.centers)

    def scanner(self) -> Scanner:
        """Scanner of this case."""
        if self.ideal:
            return Scanner.ideal(self.scanner_parameters)
        fields = self._anatomy_fields, self._scanner_fields
        return Scanner.real(self.scanner_parameters, *fields, self.centers, self.centers, self.heart.slices_mm)

    def images(self, frames: list[int], scan: int = 0) -> NDArray[np.int16]:
        """Grey levels (T, Z, X, Y) of the given frames."""
        painter, scanner = self.painter(self.signals()), self.scanner()
        return np.stack(
            [
                scanner.acquire(painter.paint(float(self.contraction[k])), noise_stream(self.seed, self.case, k, scan))
                for k in frames
            ]
        )

    def labels(self, frame: int) -> NDArray[np.uint8]:
        """Labels (Z, X, Y) of a frame: 1 right ventricle, 2 myocardium, 3 left ventricle."""
        planes = Planes(self.heart, self.centers, self.centers, self.heart.slices_mm)
        return planes.labels(float(self.contraction[frame]))


def write_cardiac_phantom(
    root: str | Path,
    *,
    cases: int = 40,
    size: int = 96,
    fov_mm: float | None = None,
    seed: int = 0,
    cine: bool = True,
    duplicates: int = 0,
    ideal: bool = False,
    banding: bool = False,
) -> Path:
    """Write the phantom below ``root`` unless it is there, and return its folder.

    ``patientXXX/`` holds ``Info.cfg``, end-diastolic and end-systolic frame with labels (``_gt``) and, with ``cine``,
    all frames in ``_4d``. Axis 0 runs from left to right as displayed, axis 1 from top to bottom, axis 2 from base to
    apex. A case is the same in sets of any number of cases; its heart also at any ``size`` and ``fov_mm``.

    Args:
        cases: number of patients; case modulo 5 is the group (NOR, DCM, HCM, MINF, RV).
        size: pixels per side of a slice.
        fov_mm: field of view; by default 160 up to 96 pixels, 200 at 128 and 300 at 192.
        duplicates: that many training patients come a second time as test patients, with new noise only: positive
            control of a report on memorization.
        ideal: switch noise, coil, texture and off-resonance off.
        banding: three times the off-resonance, so that dark bands cross the picture.

    Raises:
        ValueError: for a grid or number of cases that cannot be made.
    """
    grid_fov = _field_of_view(size, fov_mm)
    if cases < 1:
        raise ValueError(f"write_cardiac_phantom: cases={cases} must be at least 1.")
    jobs = [CardiacJob(k + 1, k, 0, seed, size, grid_fov, cine, ideal, banding) for k in range(cases)]
    jobs += _duplicates(jobs, duplicates)
    options = {
        "cases": cases,
        "size": size,
        "fov_mm": None if grid_fov == FOV_MM.get(size) else grid_fov,
        "seed": seed,
        "cine": cine,
        "duplicates": duplicates,
        "ideal": ideal,
        "banding": banding,
    }
    name = phantom_name("cardiac", "acdc", RECIPE_VERSION, options, _DEFAULTS, size)
    header = {"kind": "cardiac", "layout": "acdc", "recipe": RECIPE_VERSION, "options": options}
    return write_phantom(root, name, header, jobs, write_case)


def _field_of_view(size: int, fov_mm: float | None) -> float:
    """Field of view in mm, given or by default (interpolated between the listed sizes)."""
    if size < 32:
        raise ValueError(f"write_cardiac_phantom: size={size} px cannot show a heart; use at least 32, e.g. 64.")
    if fov_mm is None:
        fov_mm = float(np.interp(size, list(FOV_MM), list(FOV_MM.values())))
    if not 120 <= fov_mm <= MAX_FOV_MM:
        raise ValueError(
            f"write_cardiac_phantom: fov_mm={fov_mm:g} must lie in 120..{MAX_FOV_MM:g}: below, hearts are cut off; "
            "above, the body's fields end."
        )
    return float(fov_mm)


def _duplicates(jobs: list[CardiacJob], count: int) -> list[CardiacJob]:
    """Jobs that show the first ``count`` training patients again under new numbers that fall into the test part."""
    sources = [job for job in jobs if split_of("cardiac", f"patient{job.patient:03d}") == "training"]
    if not 0 <= count <= len(sources):
        raise ValueError(
            f"write_cardiac_phantom: duplicates={count} must lie in 0..{len(sources)}, the number of training patients "
            f"among {len(jobs)} cases."
        )
    copies: list[CardiacJob] = []
    number = len(jobs)
    for source in sources[:count]:
        number += 1
        while split_of("cardiac", f"patient{number:03d}") != "test":
            number += 1
        copies.append(CardiacJob(**{**asdict(source), "patient": number, "scan": 1}))
    return copies


def write_case(folder: Path, job: CardiacJob) -> dict[str, Any]:
    """Write one patient below ``folder`` and return its entry of the manifest."""
    case = CardiacCase(job.seed, job.case, job.size, job.fov_mm, ideal=job.ideal, banding=job.banding)
    p, es = case.parameters, case.es_frame
    frames = list(range(NUM_FRAMES)) if job.cine else [0, es]
    # (T, Z, X, Y) -> (X, Y, Z, T)
    cine = np.ascontiguousarray(case.images(frames, job.scan).transpose(2, 3, 1, 0))
    patient = f"patient{job.patient:03d}"
    (folder / patient).mkdir()
    spacing = job.fov_mm / job.size
    affine = np.diag([-spacing, -spacing, p.slice_mm, 1.0])
    files, hashes = [f"{patient}/Info.cfg"], {}

    def save(suffix: str, array: NDArray[Any]) -> None:
        name = f"{patient}/{patient}_{suffix}.nii.gz"
        save_nifti(folder / name, array, affine, RECIPE_VERSION, p.rr_ms / 1000 / NUM_FRAMES)
        files.append(name)
        hashes[suffix] = array_hash(array, affine)

    if job.cine:
        save("4d", cine)
    for frame in (0, es):
        save(f"frame{frame + 1:02d}", np.ascontiguousarray(cine[..., frames.index(frame)]))
        save(f"frame{frame + 1:02d}_gt", np.ascontiguousarray(case.labels(frame).transpose(1, 2, 0)))
    info = {
        "ED": 1,
        "ES": es + 1,
        "Group": p.group,
        "Height": f"{p.height_cm:.1f}",
        "NbFrame": NUM_FRAMES,
        "Weight": f"{p.weight_kg:.1f}",
    }
    (folder / files[0]).write_text("".join(f"{key}: {value}\n" for key, value in info.items()))
    heart = case.heart
    return {
        "patient": patient,
        "case": job.case,
        "scan": job.scan,
        "parameters": asdict(p),
        "scanner": asdict(case.scanner_parameters),
        "solved": {
            "radius_mm": heart.radius_mm,
            "squeeze": heart.squeeze,
            "rv_scale_ed": heart.rv_scale_ed,
            "rv_scale_es": heart.rv_scale_es,
        },
        "volumes_ml": {
            "lv_ed": p.lv_edv_ml,
            "lv_es": p.lv_edv_ml * (1 - p.lv_ef),
            "rv_ed": p.rv_edv_ml,
            "rv_es": p.rv_edv_ml * (1 - p.rv_ef),
        },
        "files": files,
        "hashes": hashes,
    }
