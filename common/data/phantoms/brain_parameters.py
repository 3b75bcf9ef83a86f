"""Drawn parameters of one head: shape, lesions, and the scanner of one visit."""

from dataclasses import dataclass

from .brain_contrasts import CONTRASTS, PROTOCOLS, Protocol
from .brain_shapes import Point
from .brain_tissues import HeadTissue, draw_tissues
from .streams import ANATOMY, NOISE, SCANNER, Stream

NUM_SPOTS = 16


@dataclass(frozen=True)
class Glioma:
    """Center (mm, head coordinates) and radius of a tumor; core and edema relative to it."""

    center: Point
    radius_mm: float
    core: float
    edema: float
    edema_stretch: tuple[float, float]


@dataclass(frozen=True)
class Wedge:
    """Territory of an acute stroke: direction and half-angle (rad) seen from the head's axis, height range in mm."""

    direction: float
    half_angle: float
    center_z: float
    half_height: float


@dataclass(frozen=True)
class Spot:
    """Old white matter lesion: an ellipsoid."""

    center: Point
    radius_mm: float


@dataclass(frozen=True)
class BrainParameters:
    """All drawn scalars of a head's anatomy. Lengths in mm, angles in degrees unless said otherwise.

    Every case draws all lesions; which of them it shows is decided by the layout.
    """

    scale: Point
    pitch: float
    roll: float
    yaw: float
    shift: tuple[float, float]
    ventricles: float
    atrophy: float
    skull: float
    fat_mm: float
    sinuses: float
    glioma: Glioma
    wedges: tuple[Wedge, ...]
    spots: tuple[Spot, ...]
    cap_mm: float
    stroke_adc: float


@dataclass(frozen=True)
class ContrastScanner:
    """One contrast of one visit: protocol, gain (grey levels of white matter), SNR of white matter, bias strength."""

    protocol: Protocol
    gain: float
    snr: float
    bias: float


@dataclass(frozen=True)
class BrainScanner:
    """One visit: tissues of the patient, contrast agent in enhancing tumor (mM), tumor growth, CT noise (HU)."""

    contrasts: dict[str, ContrastScanner]
    tissues: dict[str, HeadTissue]
    agent_mm: float
    ct_noise_hu: float
    growth: float


def draw_parameters(stream: Stream) -> BrainParameters:
    """Draw the scalars of a head from its anatomy stream, always all of them in this order."""
    u = stream.uniform
    scale = (u(0.93, 1.07), u(0.94, 1.06), u(0.95, 1.05))
    pitch, roll, yaw = u(-5, 5), u(-5, 5), u(-7, 7)
    shift = (u(-3, 3), u(-4, 4))
    ventricles, atrophy, skull, fat, sinuses = u(0.75, 1.6), u(0.5, 1.5), u(0.85, 1.3), u(2, 6), u(0.7, 1.2)
    return BrainParameters(
        scale=scale,
        pitch=pitch,
        roll=roll,
        yaw=yaw,
        shift=shift,
        ventricles=ventricles,
        atrophy=atrophy,
        skull=skull,
        fat_mm=fat,
        sinuses=sinuses,
        glioma=_draw_glioma(stream),
        wedges=_draw_wedges(stream),
        spots=tuple(_draw_spot(stream) for _ in range(NUM_SPOTS)),
        cap_mm=u(3.5, 7),
        stroke_adc=u(0.55, 0.75),
    )


def _side(stream: Stream) -> int:
    return 2 * stream.integer(2) - 1


def _draw_glioma(stream: Stream) -> Glioma:
    side = _side(stream)
    center = (side * stream.uniform(22, 44), stream.uniform(-48, 42), stream.uniform(0, 42))
    radius = stream.uniform(13, 23)
    core, edema = stream.uniform(0.55, 0.85), stream.uniform(1.45, 2.1)
    return Glioma(center, radius, core, edema, (stream.uniform(0.8, 1.1), stream.uniform(1.0, 1.4)))


def _draw_wedges(stream: Stream) -> tuple[Wedge, ...]:
    """One wedge; in a quarter of the draws a second, smaller one."""
    count = 2 if stream.uniform(0, 1) < 0.25 else 1
    wedges = []
    for size in (1.0, 0.7):
        side = _side(stream)
        direction = side * stream.uniform(0.6, 2.6)  # from the front, towards the right
        half_angle, z, height = stream.uniform(0.28, 0.55), stream.uniform(2, 40), stream.uniform(10, 22)
        wedges.append(Wedge(direction, size * half_angle, z, size * height))
    return tuple(wedges[:count])


def _draw_spot(stream: Stream) -> Spot:
    """Beside the ventricles and in the white matter over them."""
    side = _side(stream)
    center = (side * stream.uniform(18, 38), stream.uniform(-52, 48), stream.uniform(6, 44))
    return Spot(center, stream.uniform(1.6, 4.2))


def draw_scanner(stream: Stream, stroke_adc: float) -> BrainScanner:
    """Draw the scalars of one visit from its scanner stream; grey levels have no unit, the gain varies ninefold."""
    agent, noise, growth = stream.uniform(0.2, 0.35), stream.uniform(5, 9), stream.uniform(1.1, 1.3)
    tissues = draw_tissues(stream, stroke_adc)
    contrasts = {}
    for name in CONTRASTS[:-1]:
        gain, snr, bias = stream.log_uniform(100, 900), stream.uniform(25, 60), stream.uniform(0.05, 0.20)
        contrasts[name] = ContrastScanner(PROTOCOLS[name].scaled(stream), gain, snr, bias)
    return BrainScanner(contrasts, tissues, agent, noise, growth)


def anatomy_stream(seed: int, case: int) -> Stream:
    """Stream of a head's anatomy, the same at every visit."""
    return Stream(seed, "brain", case, ANATOMY)


def scanner_stream(seed: int, case: int, visit: int = 0) -> Stream:
    """Stream of the scanner at a visit: child 1, at the second visit child 11."""
    return Stream(seed, "brain", case, 10 * visit + SCANNER)


def noise_stream(seed: int, case: int, contrast: str, visit: int = 0, copy: int = 0) -> Stream:
    """Noise of one contrast of one visit: child 2, at the second 12; ``copy`` > 0 renews nothing but it."""
    path = [CONTRASTS.index(contrast)] + ([copy] if copy else [])
    return Stream(seed, "brain", case, 10 * visit + NOISE, *path)
