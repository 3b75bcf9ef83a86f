"""The tissues of the head: magnetic resonance at 3 T and X-ray attenuation."""

from dataclasses import dataclass, replace

from .streams import Stream


@dataclass(frozen=True)
class HeadTissue:
    """Relative proton density, T1, T2, T2* in ms, diffusion (ADC) in 1e-3 mm^2/s, attenuation in Hounsfield units."""

    pd: float
    t1: float
    t2: float
    t2_star: float
    adc: float
    hu: float


# Grey and white matter: Wansapura et al., JMRI 1999; muscle, blood: Stanisz et al., MRM 2005; marrow: de Bazelaire et
# al., Radiology 2004; fat: Gold et al., AJR 2004; bone, fat and brain in HU: Hounsfield tables. Others: appearance.
TISSUES_3T = {
    "air": HeadTissue(0, 1000, 100, 50, 0, -1000),
    "bone": HeadTissue(0.05, 400, 1, 0.5, 0, 1350),
    "marrow": HeadTissue(0.50, 586, 49, 12, 0.3, 450),
    "fat": HeadTissue(0.95, 371, 133, 30, 0.05, -100),
    "skin": HeadTissue(0.70, 1100, 35, 20, 1.0, 40),
    "muscle": HeadTissue(0.80, 1412, 45, 28, 1.4, 55),
    "csf": HeadTissue(1.0, 4300, 2000, 500, 3.0, 8),
    "cortex": HeadTissue(0.84, 1331, 105, 60, 0.82, 38),
    "white": HeadTissue(0.70, 832, 78, 52, 0.72, 29),
    "nuclei": HeadTissue(0.80, 1150, 82, 42, 0.76, 37),  # thalamus, caudate, putamen: between cortex and white matter
    "pallidum": HeadTissue(0.76, 980, 62, 28, 0.74, 40),  # iron shortens T2
    "vitreous": HeadTissue(1.0, 4300, 1500, 300, 3.0, 10),
    "lens": HeadTissue(0.6, 1300, 40, 25, 1.0, 75),
    "blood": HeadTissue(0.85, 1932, 275, 60, 1.8, 48),  # venous sinuses, choroid plexus
    "dura": HeadTissue(0.45, 1000, 40, 20, 0.8, 55),
    "mucosa": HeadTissue(0.90, 2200, 180, 100, 2.0, 20),
    "edema": HeadTissue(0.88, 1550, 165, 110, 1.45, 22),
    "core": HeadTissue(0.97, 2700, 420, 250, 2.2, 14),  # necrotic tumor
    "enhancing": HeadTissue(0.88, 1500, 130, 90, 1.05, 36),
    "stroke": HeadTissue(0.86, 1500, 135, 80, 0.72, 27),  # acute; its ADC is multiplied by a drawn factor
    "chronic": HeadTissue(0.80, 1250, 135, 90, 1.05, 25),  # old white matter lesion
}
NAMES = tuple(TISSUES_3T)


def draw_tissues(stream: Stream, stroke_adc: float) -> dict[str, HeadTissue]:
    """The tissues of one patient: T1 and T2 (with T2*) times U(.96, 1.04), ADC times U(.95, 1.05).

    Args:
        stream: scanner stream; three draws per tissue in the order of :data:`NAMES`.
        stroke_adc: further factor of the ADC of an acute stroke.
    """
    drawn = {}
    for name, tissue in TISSUES_3T.items():
        t1, t2, adc = stream.uniform(0.96, 1.04), stream.uniform(0.96, 1.04), stream.uniform(0.95, 1.05)
        if name == "stroke":
            adc *= stroke_adc
        drawn[name] = replace(
            tissue, t1=tissue.t1 * t1, t2=tissue.t2 * t2, t2_star=tissue.t2_star * t2, adc=tissue.adc * adc
        )
    return drawn
