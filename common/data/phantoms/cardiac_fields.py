"""Smooth fields of a heart case: what gives shapes their irregularity and tissues their texture."""

from dataclasses import dataclass

from .random_field import SmoothField
from .streams import Stream

# Box (mm) on which every field lives, whatever the pixel grid: the largest field of view and the longest stack.
MAX_FOV_MM = 320.0
_LOW, _HIGH = (-MAX_FOV_MM / 2, -MAX_FOV_MM / 2, -20.0), (MAX_FOV_MM / 2, MAX_FOV_MM / 2, 170.0)


@dataclass(frozen=True)
class AnatomyFields:
    """Fields of the anatomy stream, over (x, y, z) in mm; the trabeculae live on (R cos theta, R sin theta, z)."""

    trabeculae: SmoothField
    flow: SmoothField
    muscle: SmoothField
    texture: SmoothField
    fat: SmoothField
    lung_vessels: SmoothField
    liver_vessels: SmoothField
    body: SmoothField

    @classmethod
    def draw(cls, stream: Stream) -> "AnatomyFields":
        """Draw after the scalars of :func:`cardiac_parameters.draw_parameters`, in this order."""

        def field(pitch: float) -> SmoothField:
            return SmoothField.draw(stream, pitch, _LOW, _HIGH)

        trabeculae = SmoothField.draw(stream, 4.5, (-70, -70, _LOW[2]), (70, 70, _HIGH[2]))
        return cls(trabeculae, field(14), field(5), field(7), field(24), field(4), field(16), field(55))


@dataclass(frozen=True)
class ScannerFields:
    """Fields of the scanner stream: receive sensitivity and off-resonance."""

    coil: SmoothField
    off_resonance: SmoothField

    @classmethod
    def draw(cls, stream: Stream) -> "ScannerFields":
        """Draw after the scalars of :func:`cardiac_parameters.draw_scanner`, in this order."""
        return cls(SmoothField.draw(stream, 80, _LOW, _HIGH), SmoothField.draw(stream, 90, _LOW, _HIGH))
