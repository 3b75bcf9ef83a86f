"""Smooth fields of a head: what bends it, folds its cortex and roughens its lesions."""

from dataclasses import dataclass

from .brain_contrasts import CONTRASTS
from .random_field import SmoothField
from .streams import Stream

# Box (mm) on which every field lives, whatever the pixel grid.
MAX_FOV_MM = 280.0
_LOW, _HIGH = (-140.0, -140.0, -90.0), (140.0, 140.0, 110.0)


@dataclass(frozen=True)
class AnatomyFields:
    """Fields of the anatomy stream; pitch in mm in parentheses."""

    warp: tuple[SmoothField, SmoothField, SmoothField]  # (45) one per axis
    gyri: SmoothField  # (10, band-passed)
    small_gyri: SmoothField  # (6.5, band-passed)
    ribbon: SmoothField  # (30) thickness of the cortex
    skull: SmoothField  # (30) thickness of the skull
    shape: SmoothField  # (13) outline of lesions
    detail: SmoothField  # (6) outline of lesions
    core: SmoothField  # (6) outline of the tumor's core
    edema: SmoothField  # (13)
    cells: SmoothField  # (9) mastoid cells, fat between the muscles of the face
    texture: SmoothField  # (7) of every tissue

    @classmethod
    def draw(cls, stream: Stream) -> "AnatomyFields":
        """Draw after the scalars of :func:`brain_parameters.draw_parameters`, in this order."""

        def field(pitch: float, *, bandpass: bool = False) -> SmoothField:
            return SmoothField.draw(stream, pitch, _LOW, _HIGH, bandpass=bandpass)

        return cls(
            warp=(field(45), field(45), field(45)),
            gyri=field(10, bandpass=True),
            small_gyri=field(6.5, bandpass=True),
            ribbon=field(30),
            skull=field(30),
            shape=field(13),
            detail=field(6),
            core=field(6),
            edema=field(13),
            cells=field(9),
            texture=field(7),
        )


def draw_bias_fields(stream: Stream) -> dict[str, SmoothField]:
    """Receive sensitivity of every contrast, drawn after the scalars of :func:`brain_parameters.draw_scanner`."""
    return {name: SmoothField.draw(stream, 90, _LOW, _HIGH) for name in CONTRASTS[:-1]}
