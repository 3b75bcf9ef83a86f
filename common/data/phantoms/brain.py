"""The brain phantom: heads at 3 T and in CT with lesions and masks, written in public layouts.

Everything is made up, nothing is anyone's data: numbers obtained on it test code and say nothing about patients.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..splits import split_of
from .brain_fields import MAX_FOV_MM
from .brain_image import BrainCase
from .brain_layouts import LAYOUTS, Output
from .brain_space import Grid
from .brain_tissues import NAMES
from .writer import phantom_name, write_phantom

RECIPE_VERSION = 1
FOV_MM = 224.0
REVISIT_EVERY = 8
_SLICES = (8, 40)
_DEFAULTS = {
    "fov_mm": FOV_MM,
    "slices": 32,
    "isotropic": False,
    "maps": False,
    "ideal": False,
    "bias_field": True,
    "duplicates": 0,
}


@dataclass(frozen=True)
class BrainJob:
    """One visit to be written: head ``number`` of the layout shows ``case``; ``copy`` > 0 renews nothing but noise."""

    number: int
    case: int
    visit: int
    copy: int
    seed: int
    grid: Grid
    layout: str
    maps: bool
    ideal: bool
    bias_field: bool

    def draw(self) -> BrainCase:
        """The head of this job."""
        shown = LAYOUTS[self.layout].lesions(self.case)
        return BrainCase(
            self.seed,
            self.case,
            self.grid,
            shown,
            visit=self.visit,
            copy=self.copy,
            ideal=self.ideal,
            bias_field=self.bias_field,
        )


def write_brain_phantom(
    root: str | Path,
    *,
    cases: int = 48,
    size: int = 96,
    slices: int = 32,
    fov_mm: float = FOV_MM,
    seed: int = 0,
    layout: str = "brats",
    isotropic: bool = False,
    maps: bool = False,
    ideal: bool = False,
    bias_field: bool = True,
    duplicates: int = 0,
) -> Path:
    """Write the phantom below ``root`` unless it is there, and return its folder.

    Layout ``brats`` holds gliomas (t1n, t1c, t2w, t2f, seg; every eighth patient a second time with a grown tumor),
    ``isles`` strokes among old lesions (DWI, Flair, T1, T2, lesion mask), both skull-stripped; ``synthrad`` whole heads
    (mr of three centers, ct, mask). A case is the same in sets of any number of cases; its anatomy also at any
    ``size``, and in all layouts.

    Args:
        cases: number of patients.
        size: pixels per side of a slice.
        slices: number of slices, 4.5 mm apart, centered 8 mm above the origin.
        fov_mm: field of view of a slice.
        layout: "brats", "isles" or "synthrad".
        isotropic: slices as thick as the pixels over the same height.
        maps: also write ``maps/<case>.nii.gz``, the fraction of every tissue in each voxel on the uncropped grid.
        ideal: switch noise, bias and texture off.
        bias_field: False leaves the coils' bias field out of the MR images, as after a correction (N4, for instance).
            Each contrast has its own field, of which the others tell nothing.
        duplicates: that many training patients come a second time as test patients, with new noise only: positive
            control of a report on memorization.

    Raises:
        ValueError: for a layout, grid or number of cases that cannot be made.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"write_brain_phantom: layout={layout!r} is unknown; choose one of {', '.join(LAYOUTS)}.")
    if cases < 1:
        raise ValueError(f"write_brain_phantom: cases={cases} must be at least 1.")
    grid = _grid(size, slices, float(fov_mm), isotropic)
    jobs = [BrainJob(k, k, 0, 0, seed, grid, layout, maps, ideal, bias_field) for k in range(cases)]
    copies = _duplicates(jobs, duplicates)
    if LAYOUTS[layout].revisits:
        jobs += [replace(job, visit=1) for job in jobs if job.case % REVISIT_EVERY == 0]
    options = {
        "cases": cases,
        "size": size,
        "slices": slices,
        "fov_mm": float(fov_mm),
        "seed": seed,
        "isotropic": isotropic,
        "maps": maps,
        "ideal": ideal,
        "bias_field": bias_field,
        "duplicates": duplicates,
    }
    name = phantom_name("brain", layout, RECIPE_VERSION, options, _DEFAULTS, size)
    header = {"kind": "brain", "layout": layout, "recipe": RECIPE_VERSION, "options": options}
    return write_phantom(root, name, header, jobs + copies, write_case)


def _grid(size: int, slices: int, fov_mm: float, isotropic: bool) -> Grid:
    """The voxel grid, if a head can be shown on it."""
    if size < 48:
        raise ValueError(f"write_brain_phantom: size={size} px cannot show a head; use at least 48, e.g. 64.")
    if not _SLICES[0] <= slices <= _SLICES[1]:
        raise ValueError(
            f"write_brain_phantom: slices={slices} must lie in {_SLICES[0]}..{_SLICES[1]}: fewer miss most of the "
            "brain, more leave the head."
        )
    if not 200 <= fov_mm <= MAX_FOV_MM - 20:
        raise ValueError(
            f"write_brain_phantom: fov_mm={fov_mm:g} must lie in 200..{MAX_FOV_MM - 20:g}: below, heads are cut off; "
            "above, the head's fields end."
        )
    return Grid(size, fov_mm, slices, isotropic)


def _duplicates(jobs: list[BrainJob], count: int) -> list[BrainJob]:
    """Jobs that show the first ``count`` training patients again under new numbers that fall into the test part."""
    if not count:
        return []
    layout = LAYOUTS[jobs[0].layout]
    sources = [job for job in jobs if split_of("brain", layout.patient(job.number)) == "training"]
    if not 0 <= count <= len(sources):
        raise ValueError(
            f"write_brain_phantom: duplicates={count} must lie in 0..{len(sources)}, the number of training patients "
            f"among {len(jobs)} cases."
        )
    copies: list[BrainJob] = []
    number = len(jobs)
    for source in sources[:count]:
        while split_of("brain", layout.patient(number)) != "test" or (number - source.number) % layout.period:
            number += 1
        copies.append(replace(source, number=number, copy=1))
        number += 1
    return copies


def write_case(folder: Path, job: BrainJob) -> dict[str, Any]:
    """Write one visit below ``folder`` and return its entry of the manifest."""
    case, layout = job.draw(), LAYOUTS[job.layout]
    output = Output(folder, case, RECIPE_VERSION)
    layout.write(output, job.number)
    patient = layout.patient(job.number)
    if job.maps:
        fractions = case.scene.fractions()
        fractions = fractions.astype(np.float16).astype(np.float32)  # NIfTI has no half precision; zeros compress
        output.save(f"maps/{patient}-{job.visit:03d}.nii.gz", fractions)
    shown = case.shown
    return {
        "patient": patient,
        "case": job.case,
        "visit": job.visit,
        "copy": job.copy,
        "lesions": [name for name in ("glioma", "stroke", "chronic") if getattr(shown, name)],
        "growth": shown.growth,
        "parameters": asdict(case.parameters),
        "scanner": asdict(case.scanner),
        **({"tissues": NAMES} if job.maps else {}),
        "files": output.files,
        "hashes": output.hashes,
    }
