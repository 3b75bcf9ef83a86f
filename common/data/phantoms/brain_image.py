"""One head on one grid: painted, scanned in any contrast, with its masks and labels."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .brain_contrasts import CONTRASTS, Protocol, signals
from .brain_cortex import Brain
from .brain_cranium import Cranium
from .brain_ct import add_head_rest, noisy, to_hounsfield
from .brain_deep import Deep
from .brain_face import Face
from .brain_fields import AnatomyFields, draw_bias_fields
from .brain_lesions import Lesions, Shown
from .brain_parameters import anatomy_stream, draw_parameters, draw_scanner, noise_stream, scanner_stream
from .brain_scene import Scene
from .brain_space import Grid, Head
from .brain_tissues import NAMES
from .signal import rician

Array = NDArray[np.floating]

BODY_MARGIN_MM = 6.0  # of the mask around the head
_TEXTURE = 0.018


class BrainCase:
    """One head at one visit, before it is written. Arrays are (X, Y, Z) with x to the right, y to the front, z up.

    Args:
        seed, case: which head.
        grid: voxels.
        shown: lesions to paint; the growth of the glioma is added by ``visit``.
        visit: 0, or 1 for a second scan: grown tumor, other scanner and noise.
        copy: number of a repeated scan that differs in nothing but noise.
        ideal: no noise, bias or texture: grey level = gain times signal equation in pure voxels.
        bias_field: False leaves out the bias field only.
    """

    def __init__(
        self,
        seed: int,
        case: int,
        grid: Grid,
        shown: Shown,
        *,
        visit: int = 0,
        copy: int = 0,
        ideal: bool = False,
        bias_field: bool = True,
    ) -> None:
        self.seed, self.case, self.visit, self.copy, self.ideal = seed, case, visit, copy, ideal
        self.bias_field = bias_field
        self.grid = grid
        anatomy = anatomy_stream(seed, case)
        self.parameters = draw_parameters(anatomy)
        self._fields = AnatomyFields.draw(anatomy)
        scanner = scanner_stream(seed, case, visit)
        self.scanner = draw_scanner(scanner, self.parameters.stroke_adc)
        self._bias = draw_bias_fields(scanner)
        growth = self.scanner.growth if visit else 1.0
        self.shown = Shown(shown.glioma, shown.stroke, shown.chronic, growth)
        self.head = Head(self.parameters, self._fields, grid)
        self.cranium = Cranium(self.parameters, self.head, self._fields)
        self.brain = Brain(self.cranium)

    @cached_property
    def scene(self) -> Scene:
        """The painted head."""
        scene, face, deep = Scene(self.grid.shape, self.grid.pixel_mm), Face(self.cranium), Deep(self.brain)
        lesions = Lesions(deep, self.shown)
        self.cranium.paint_soft_tissue(scene)
        face.paint(scene)
        self.cranium.paint_bone(scene)
        face.paint_air_in_bone(scene)
        self.brain.paint(scene)
        lesions.paint_under(scene)
        deep.paint_nuclei(scene)
        deep.paint_fluid(scene)
        lesions.paint_over(scene)
        return scene

    def labels(self) -> NDArray[np.uint8]:
        """Tissue of every voxel's center, as index in ``NAMES``."""
        return self.scene.labels()

    def label_of(self, *tissues: str) -> NDArray[np.bool_]:
        """Voxels whose center lies in one of the tissues."""
        return np.isin(self.labels(), [NAMES.index(name) for name in tissues])

    def brain_mask(self) -> NDArray[np.bool_]:
        """Brain with the fluid in its sulci, as skull-stripping leaves it."""
        mask = np.zeros(self.grid.shape, dtype=bool)
        brain = self.brain
        mask[brain.region.box] = brain.hull < 0.4 * brain.fluid_mm
        return mask

    def body_mask(self) -> NDArray[np.bool_]:
        """Head with a margin."""
        return self.cranium.outline < BODY_MARGIN_MM

    def signals(self, contrast: str, *, protocol: Protocol | None = None) -> dict[str, float]:
        """Signal of each tissue at this visit; ``protocol`` replaces the drawn one."""
        if contrast != "ct" and protocol is None:
            protocol = self.scanner.contrasts[contrast].protocol
        return signals(contrast, self.scanner.tissues, protocol, self.scanner.agent_mm)

    def magnetic_resonance(self, contrast: str, *, protocol: Protocol | None = None) -> NDArray[np.int16]:
        """Grey levels of one contrast: gain times signal, texture and bias, Rician noise, rounded."""
        return np.rint(self.magnitude(contrast, protocol=protocol)).astype(np.int16)

    def magnitude(self, contrast: str, *, protocol: Protocol | None = None) -> Array:
        """The same before rounding."""
        if contrast not in CONTRASTS[:-1]:
            raise ValueError(f"BrainCase: contrast {contrast!r} is not one of {', '.join(CONTRASTS[:-1])}.")
        values = self.signals(contrast, protocol=protocol)
        scanner = self.scanner.contrasts[contrast]
        image = np.abs(self.scene.render(values)) * np.float32(scanner.gain / values["white"])
        if self.ideal:
            return image
        whole = self.head.whole
        image *= 1 + _TEXTURE * whole.field(self._fields.texture)
        if self.bias_field:
            image *= np.exp(scanner.bias * whole.field(self._bias[contrast]))
        stream = noise_stream(self.seed, self.case, contrast, self.visit, self.copy)
        return rician(image, scanner.gain / scanner.snr, stream.normals(2, *image.shape))

    def computed_tomography(self) -> NDArray[np.int16]:
        """Hounsfield units, with the head rest that only CT shows."""
        image: Array = self.scene.render(self.signals("ct"))
        add_head_rest(image, self.cranium)
        if not self.ideal:
            stream = noise_stream(self.seed, self.case, "ct", self.visit, self.copy)
            image = noisy(image, self.cranium.outline, self.scanner.ct_noise_hu, stream)
        return to_hounsfield(image)
