"""Write the embedded phantoms on demand, one function per phantom; their files are then read like any others."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PhantomOptions:
    """What can be asked of a phantom; None leaves it to the generator."""

    cases: int | None = None
    size: int | None = None
    slices: int | None = None
    fov_mm: float | None = None
    seed: int | None = None
    cine: bool | None = None
    bias_field: bool | None = None

    def only(self, *names: str) -> dict[str, Any]:
        """The given ones among ``names``, as keyword arguments."""
        return {name: value for name, value in asdict(self).items() if name in names and value is not None}


def write_cardiac(root: Path, options: PhantomOptions) -> Path:
    """Short-axis cine MR of hearts, ACDC layout; returns its folder below ``root``."""
    from .phantoms.cardiac import write_cardiac_phantom

    return write_cardiac_phantom(root, **options.only("cases", "size", "fov_mm", "seed", "cine"))


def write_echo(root: Path, options: PhantomOptions) -> Path:
    """Echocardiographic videos, EchoNet-Dynamic layout, 112 x 112 pixels whatever ``size`` says."""
    from .phantoms.echo import write_echo_phantom

    return write_echo_phantom(root, **options.only("cases", "seed"))


def write_brain(layout: str) -> Callable[[Path, PhantomOptions], Path]:
    """Writer of heads with lesions in several contrasts, in one of the layouts brats, isles and synthrad."""

    def write(root: Path, options: PhantomOptions) -> Path:
        from .phantoms.brain import write_brain_phantom

        chosen = options.only("cases", "size", "slices", "fov_mm", "seed", "bias_field")
        return write_brain_phantom(root, layout=layout, **chosen)

    return write


def write_whole_heart(modality: str) -> Callable[[Path, PhantomOptions], Path]:
    """Writer of hearts with their great vessels in axial slices, "ct" or "mr", in the layout of MM-WHS."""

    def write(root: Path, options: PhantomOptions) -> Path:
        from .phantoms.whole_heart import write_whole_heart_phantom

        chosen = options.only("cases", "size", "slices", "fov_mm", "seed")
        return write_whole_heart_phantom(root, modality=modality, **chosen)

    return write
