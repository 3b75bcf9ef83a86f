"""Drawn parameters of one heart: patient, ventricles, scanner. Group = case modulo five, as ACDC's five groups."""

import math
from dataclasses import dataclass

from .streams import ANATOMY, SCANNER, Stream


@dataclass(frozen=True)
class Group:
    """Ranges of a diagnostic group: volumes in mL per m^2 of body surface, ejection fractions, wall in mm.

    They obey the rules by which ACDC formed its groups (Bernard et al., TMI 2018).
    """

    name: str
    lv_edv_index: tuple[float, float]
    lv_ef: tuple[float, float]
    wall_mm: tuple[float, float]
    rv_edv_index: tuple[float, float]
    rv_ef: tuple[float, float]


GROUPS = (
    Group("NOR", (58, 79), (0.55, 0.70), (7, 10), (65, 95), (0.50, 0.65)),
    Group("DCM", (105, 170), (0.15, 0.35), (6, 9), (75, 120), (0.25, 0.50)),
    Group("HCM", (50, 75), (0.58, 0.75), (9, 12), (55, 85), (0.50, 0.65)),
    Group("MINF", (85, 130), (0.20, 0.39), (7, 10), (65, 95), (0.42, 0.60)),
    Group("RV", (55, 79), (0.45, 0.65), (7, 10), (112, 170), (0.18, 0.38)),
)


@dataclass(frozen=True)
class CardiacParameters:
    """All drawn scalars of a case. Lengths in mm, volumes in mL, angles in radians; image axes: x right, y down."""

    group: str
    height_cm: float
    weight_kg: float
    bsa_m2: float
    lv_edv_ml: float
    lv_ef: float
    wall_mm: float
    rv_edv_ml: float
    rv_ef: float
    length_mm: float
    descent_mm: float
    slice_mm: float
    stack_offset: float
    rv_direction: float
    a2: float
    a3: float
    a4: float
    septal_flattening: float
    septal_bump_mm: float
    septal_bump_width: float
    infarct_direction: float
    infarct_half_width: float
    infarct_depth: float
    es_phase: float
    rr_ms: float
    center_x: float
    center_y: float
    torso_tilt: float
    torso_fat_mm: float
    diaphragm_mm: float
    rib_phase: float
    liver_edge_mm: float
    stomach_x_mm: float
    stomach_size_mm: float
    stomach_bright: float
    aorta_x_mm: float
    aorta_y_mm: float

    @property
    def num_slices(self) -> int:
        """Slices of the stack: the first lies above the base at end-diastole, the last at or beyond the apex."""
        above = (1 - self.stack_offset) * self.slice_mm
        return math.ceil((self.length_mm + above) / self.slice_mm) + 1


@dataclass(frozen=True)
class ScannerParameters:
    """Gain (grey levels of blood on resonance) and SNR of blood."""

    gain: float
    snr: float


def draw_parameters(stream: Stream, case: int) -> CardiacParameters:
    """Draw the scalars of a heart; every case draws all of them in this order, also those its group does not use."""
    group = GROUPS[case % len(GROUPS)]
    height = stream.uniform(152, 188)
    bmi = stream.uniform(19, 34)
    weight = bmi * (height / 100) ** 2
    bsa = math.sqrt(height * weight / 3600)  # Mosteller
    lv_edv = bsa * stream.uniform(*group.lv_edv_index)
    lv_ef = stream.uniform(*group.lv_ef)
    wall = stream.uniform(*group.wall_mm)
    rv_edv = bsa * stream.uniform(*group.rv_edv_index)
    rv_ef = stream.uniform(*group.rv_ef)
    length = stream.uniform(82, 96) * (lv_edv / 140) ** 0.28
    descent = length * stream.uniform(0.12, 0.19) * min(1.0, lv_ef / 0.6)
    slice_mm = 8.0 + 2.0 * stream.integer(2)
    stack_offset = stream.uniform(0.25, 0.75)
    rv_direction = math.radians(stream.uniform(152, 188))
    a2 = stream.uniform(-0.03, 0.05)
    a3 = stream.uniform(-0.015, 0.015)
    a4 = stream.uniform(-0.015, 0.015)
    flattening = stream.uniform(0.06, 0.13)
    bump = stream.uniform(7.5, 13)
    bump_width = stream.uniform(0.7, 1.2)
    infarct_direction = stream.uniform(-math.pi, math.pi)
    infarct_half_width = stream.uniform(0.6, 1.1)
    es_phase = stream.uniform(0.33, 0.42)
    rr = 60000 / stream.uniform(55, 90)
    center_x = stream.uniform(-9, 9)
    center_y = stream.uniform(-9, 9)
    tilt = math.radians(stream.uniform(-18, 12))
    fat = stream.uniform(8, 16) * bmi / 24
    diaphragm = stream.uniform(22, 40)
    return CardiacParameters(
        group=group.name,
        height_cm=height,
        weight_kg=weight,
        bsa_m2=bsa,
        lv_edv_ml=lv_edv,
        lv_ef=lv_ef,
        wall_mm=wall,
        rv_edv_ml=rv_edv,
        rv_ef=rv_ef,
        length_mm=length,
        descent_mm=descent,
        slice_mm=slice_mm,
        stack_offset=stack_offset,
        rv_direction=rv_direction,
        a2=a2,
        a3=a3,
        a4=a4,
        septal_flattening=flattening if group.name == "RV" else 0.0,
        septal_bump_mm=bump if group.name == "HCM" else 0.0,
        septal_bump_width=bump_width,
        infarct_direction=infarct_direction,
        infarct_half_width=infarct_half_width,
        infarct_depth=1.0 if group.name == "MINF" else 0.0,
        es_phase=es_phase,
        rr_ms=rr,
        center_x=center_x,
        center_y=center_y,
        torso_tilt=tilt,
        torso_fat_mm=fat,
        diaphragm_mm=diaphragm,
        rib_phase=stream.uniform(0, 48),
        liver_edge_mm=stream.uniform(-5, 40),
        stomach_x_mm=stream.uniform(30, 60),
        stomach_size_mm=stream.uniform(22, 38),
        stomach_bright=stream.uniform(0, 1),
        aorta_x_mm=stream.uniform(52, 68),
        aorta_y_mm=stream.uniform(26, 44),
    )


def draw_scanner(stream: Stream) -> ScannerParameters:
    """Draw gain and SNR; grey levels of MR have no unit, so the gain varies by a factor of nine."""
    return ScannerParameters(gain=stream.log_uniform(100, 900), snr=stream.uniform(40, 90))


def anatomy_stream(seed: int, case: int) -> Stream:
    """Stream of the anatomy of a heart."""
    return Stream(seed, "cardiac", case, ANATOMY)


def scanner_stream(seed: int, case: int) -> Stream:
    """Stream of the scanner of a heart."""
    return Stream(seed, "cardiac", case, SCANNER)
