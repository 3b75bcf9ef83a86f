"""Smooth fields of a whole heart: the warp of its shape, uneven fat, mixing of blood, lung vessels, coil."""

from dataclasses import dataclass

from .random_field import SmoothField
from .streams import Stream

# Box (mm from the middle of the mitral valve) on which every field lives, whatever the grid.
MAX_FOV_MM = 260.0
_LOW, _HIGH = (-160.0, -160.0, -110.0), (160.0, 160.0, 130.0)


@dataclass(frozen=True)
class WholeHeartFields:
    """Fields of the anatomy stream, over (left, back, up)."""

    warp: tuple[SmoothField, SmoothField, SmoothField]
    fat: SmoothField
    mixing: SmoothField
    tissue: SmoothField
    lung_vessels: SmoothField

    @classmethod
    def draw(cls, stream: Stream) -> "WholeHeartFields":
        """Draw after the scalars of :func:`whole_heart_parameters.draw_whole_heart`, in this order."""

        def field(pitch: float) -> SmoothField:
            return SmoothField.draw(stream, pitch, _LOW, _HIGH)

        return cls((field(38), field(38), field(38)), field(22), field(14), field(7), field(6))


def draw_coil(stream: Stream) -> SmoothField:
    """Receive sensitivity of MR; drawn after the scalars of the scanner."""
    return SmoothField.draw(stream, 80, _LOW, _HIGH)
