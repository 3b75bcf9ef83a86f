"""Signal of a tissue in each contrast: spoiled gradient echo, spin echo, FLAIR and diffusion weighting at 3 T."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .brain_tissues import HeadTissue
from .streams import Stream

RELAXIVITY = 4.5  # r1 of the contrast agent, 1/(s mM)
CONTRASTS = ("t1n", "t1c", "t2w", "t2f", "dwi", "pdw", "ct")  # the order numbers their noise streams

# Concentration of the contrast agent in mM; that of enhancing tumor is drawn.
_AGENT = {"blood": 0.7, "mucosa": 0.5, "dura": 0.35, "skin": 0.15, "muscle": 0.10, "edema": 0.02}
_AGENT_ELSEWHERE = 0.008
_FAT_SATURATION = 0.08  # what diffusion weighting leaves of fat


@dataclass(frozen=True)
class Protocol:
    """Repetition, echo and inversion time in ms, flip angle in degrees; b in s/mm^2. Unused ones are 0."""

    tr: float
    te: float
    ti: float = 0.0
    flip: float = 0.0
    b: float = 0.0

    def scaled(self, stream: Stream) -> "Protocol":
        """A scanner's own version: TR, TE, TI and flip angle each times U(.95, 1.05)."""
        tr, te, ti, flip = (stream.uniform(0.95, 1.05) for _ in range(4))
        return replace(self, tr=self.tr * tr, te=self.te * te, ti=self.ti * ti, flip=self.flip * flip)


PROTOCOLS = {
    "t1n": Protocol(tr=22, te=3.5, flip=26),
    "t1c": Protocol(tr=22, te=3.5, flip=26),
    "t2w": Protocol(tr=5500, te=95),
    "t2f": Protocol(tr=9000, te=105, ti=2480),
    "dwi": Protocol(tr=6000, te=85, b=1000),
    "pdw": Protocol(tr=5500, te=15),
}


def spoiled_gradient_echo(tissue: HeadTissue, protocol: Protocol) -> float:
    """``PD sin a (1 - E1) / (1 - E1 cos a) exp(-TE/T2*)``, ``E1 = exp(-TR/T1)``."""
    angle, e1 = math.radians(protocol.flip), math.exp(-protocol.tr / tissue.t1)
    steady = math.sin(angle) * (1 - e1) / (1 - e1 * math.cos(angle))
    return tissue.pd * steady * math.exp(-protocol.te / tissue.t2_star)


def spin_echo(tissue: HeadTissue, protocol: Protocol) -> float:
    """``PD (1 - exp(-TR/T1)) exp(-TE/T2)``."""
    return tissue.pd * (1 - math.exp(-protocol.tr / tissue.t1)) * math.exp(-protocol.te / tissue.t2)


def inversion_recovery(tissue: HeadTissue, protocol: Protocol) -> float:
    """``PD (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2)``, signed: the magnitude is taken after mixing."""
    recovered = 1 - 2 * math.exp(-protocol.ti / tissue.t1) + math.exp(-protocol.tr / tissue.t1)
    return tissue.pd * recovered * math.exp(-protocol.te / tissue.t2)


def diffusion(tissue: HeadTissue, protocol: Protocol) -> float:
    """Spin echo times ``exp(-b ADC)``."""
    return spin_echo(tissue, protocol) * math.exp(-protocol.b * tissue.adc * 1e-3)


def nulling_time(t1: float, tr: float) -> float:
    """Inversion time that nulls a tissue: ``T1 ln(2 / (1 + exp(-TR/T1)))``."""
    return t1 * math.log(2 / (1 + math.exp(-tr / t1)))


def after_contrast_agent(tissue: HeadTissue, concentration: float) -> HeadTissue:
    """The tissue with ``1/T1' = 1/T1 + r1 C``; C in mM."""
    return replace(tissue, t1=1 / (1 / tissue.t1 + RELAXIVITY * concentration / 1000))


def signals(
    contrast: str, tissues: Mapping[str, HeadTissue], protocol: Protocol | None, agent_mm: float
) -> dict[str, float]:
    """Signal of every tissue in one contrast; Hounsfield units for ``ct``.

    Args:
        contrast: one of :data:`CONTRASTS`.
        protocol: its protocol; None for ``ct``.
        agent_mm: concentration (mM) of the contrast agent in enhancing tumor, used by ``t1c``.
    """
    if protocol is None:
        return {name: tissue.hu for name, tissue in tissues.items()}
    if contrast == "t1c":
        agent = {**_AGENT, "enhancing": agent_mm}
        tissues = {
            name: after_contrast_agent(tissue, agent.get(name, _AGENT_ELSEWHERE)) for name, tissue in tissues.items()
        }
    equation = {"t1n": spoiled_gradient_echo, "t1c": spoiled_gradient_echo, "t2f": inversion_recovery, "dwi": diffusion}
    found = {name: equation.get(contrast, spin_echo)(tissue, protocol) for name, tissue in tissues.items()}
    if contrast == "dwi":
        found["fat"] *= _FAT_SATURATION
    return found
