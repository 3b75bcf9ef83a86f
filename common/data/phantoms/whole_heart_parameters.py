"""Drawn parameters of one whole heart: ventricles as of the short-axis phantom, pose, size of the vessels, scanner."""

import math
from dataclasses import dataclass, replace

from .cardiac_parameters import CardiacParameters, draw_parameters
from .streams import ANATOMY, NOISE, SCANNER, Stream

MODALITIES = ("ct", "mr")
_TURN = math.radians(18)  # by which the right ventricle lies higher than in short-axis slices, where the scan is tilted
_GROUPS = (0, 2, 3)  # of the ventricles' groups: normal, thick and thinned walls; dilated ones leave the field of view


@dataclass(frozen=True)
class WholeHeartParameters:
    """All drawn scalars of the anatomy. Lengths in mm, angles in radians.

    azimuth, elevation: of the long axis, from left towards the front, and downwards. left_atrium, right_atrium: sizes
    relative to the ventricles'. aorta_mm, pulmonary_mm: radii. fat_mm, wall_fat_mm: around the heart, under the skin.
    spine_x, spine_y: vertebrae from the middle of the mitral valve, to the left and to the back. disc_phase_mm,
    rib_phase_mm: heights of discs and ribs. liver_mm, left_dome_mm: tops of the diaphragm. shift: of the whole chest.
    """

    ventricles: CardiacParameters
    azimuth: float
    elevation: float
    left_atrium: float
    right_atrium: float
    aorta_mm: float
    pulmonary_mm: float
    fat_mm: float
    wall_fat_mm: float
    spine_x: float
    spine_y: float
    disc_phase_mm: float
    rib_phase_mm: float
    liver_mm: float
    left_dome_mm: float
    shift: tuple[float, float, float]


@dataclass(frozen=True)
class WholeHeartScanner:
    """All drawn scalars of the scan; each modality uses its own.

    enhancement: of blood by contrast agent, relative. right_side: of the right heart, relative to the left. noise_hu:
    standard deviation in CT. gain, snr: grey level and signal-to-noise ratio of blood in MR. fat: signal that fat
    saturation leaves.
    """

    enhancement: float
    right_side: float
    noise_hu: float
    gain: float
    snr: float
    fat: float


def draw_whole_heart(stream: Stream, case: int) -> WholeHeartParameters:
    """Draw the scalars of the anatomy, in this order."""
    ventricles = draw_parameters(stream, _GROUPS[case % len(_GROUPS)])
    ventricles = replace(ventricles, rv_direction=ventricles.rv_direction + _TURN)
    return WholeHeartParameters(
        ventricles=ventricles,
        azimuth=math.radians(stream.uniform(38, 52)),
        elevation=math.radians(stream.uniform(22, 38)),
        left_atrium=stream.uniform(0.9, 1.12),
        right_atrium=stream.uniform(0.9, 1.12),
        aorta_mm=stream.uniform(12.5, 15.0),
        pulmonary_mm=stream.uniform(11.0, 13.5),
        fat_mm=stream.uniform(2.5, 6.0),
        wall_fat_mm=stream.uniform(5.0, 12.0),
        spine_x=stream.uniform(-34, -25),
        spine_y=stream.uniform(57, 62),
        disc_phase_mm=stream.uniform(0, 26),
        rib_phase_mm=stream.uniform(0, 30),
        liver_mm=stream.uniform(-30, -16),
        left_dome_mm=stream.uniform(-56, -44),
        shift=(stream.uniform(-5, 5), stream.uniform(-4, 4), stream.uniform(-4, 4)),
    )


def draw_whole_heart_scanner(stream: Stream) -> WholeHeartScanner:
    """Draw the scalars of the scan, in this order."""
    return WholeHeartScanner(
        enhancement=stream.uniform(0.85, 1.15),
        right_side=stream.uniform(0.60, 0.80),
        noise_hu=stream.uniform(11, 19),
        gain=stream.log_uniform(100, 900),
        snr=stream.uniform(18, 32),
        fat=stream.uniform(0.25, 0.45),
    )


def anatomy_stream(seed: int, case: int, modality: str) -> Stream:
    """Stream of the anatomy; CT and MR show different people, as those of MM-WHS do."""
    return Stream(seed, "whole_heart", case, ANATOMY, MODALITIES.index(modality))


def scanner_stream(seed: int, case: int, modality: str) -> Stream:
    """Stream of the scanner."""
    return Stream(seed, "whole_heart", case, SCANNER, MODALITIES.index(modality))


def noise_stream(seed: int, case: int, modality: str) -> Stream:
    """Stream of the noise."""
    return Stream(seed, "whole_heart", case, NOISE, MODALITIES.index(modality))
