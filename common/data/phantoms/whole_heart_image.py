"""From tissues to images: contrast-enhanced CT in Hounsfield units, and balanced SSFP magnetic resonance."""

import numpy as np
from numpy.typing import NDArray

from .brain_ct import noisy, to_hounsfield
from .random_field import SmoothField
from .signal import TISSUES_1T5, bssfp_on_resonance, coil_sensitivity, rician
from .streams import Stream
from .whole_heart_parameters import WholeHeartScanner
from .whole_heart_space import Chest

Array = NDArray[np.floating]
Values = dict[str, Array | float]

# Hounsfield units without contrast agent; marrow and bone are those of vertebrae.
_HU = {
    "air": -1000.0,
    "lung": -850.0,
    "fat": -85.0,
    "fluid": 10.0,
    "stomach": 25.0,
    "muscle": 55.0,
    "pericardium": 30.0,
    "gristle": 95.0,
    "liver": 105.0,
    "spleen": 125.0,
    "myocardium": 115.0,
    "marrow": 200.0,
    "bone": 420.0,
}
_BLOOD_HU, _PLAIN_BLOOD_HU = 365.0, 45.0  # of the left heart with contrast agent; without
_PULMONARY_SHARE = 0.82  # enhancement of the pulmonary artery relative to the left heart

# Tissue of the signal table that stands for each tissue of the chest.
_SIGNAL_OF = {
    "lung": "lung",
    "lung_vessel": "blood",
    "fluid": "blood",
    "stomach": "stomach",
    "muscle": "muscle",
    "pericardium": "fibrous",
    "gristle": "muscle",
    "marrow": "liver",
    "liver": "liver",
    "spleen": "spleen",
    "myocardium": "myocardium",
    "bone": "fibrous",
    "arterial_blood": "blood",
    "pulmonary_blood": "blood",
    "venous_blood": "blood",
}
_BLOOD = bssfp_on_resonance(TISSUES_1T5["blood"])


def hounsfield_values(scanner: WholeHeartScanner, chest: Chest | None) -> Values:
    """Hounsfield units of every tissue; contrast agent mixes unevenly in the right heart, unless ``chest`` is None."""
    added = (_BLOOD_HU - _PLAIN_BLOOD_HU) * scanner.enhancement
    venous: Array | float = _PLAIN_BLOOD_HU + added * scanner.right_side
    if chest is not None:
        mixing = chest.fields.mixing.on_grid(*chest.axes).astype(np.float32)
        venous = np.float32(_PLAIN_BLOOD_HU) + np.float32(added * scanner.right_side) * (1 + np.float32(0.09) * mixing)
    return {
        **_HU,
        "arterial_blood": _PLAIN_BLOOD_HU + added,
        "pulmonary_blood": _PLAIN_BLOOD_HU + _PULMONARY_SHARE * added,
        "lung_vessel": 0.5 * added,
        "venous_blood": venous,
    }


def signal_values(scanner: WholeHeartScanner, chest: Chest | None) -> Values:
    """Signal of every tissue with fat saturation; blood is uneven by its flow, unless ``chest`` is None."""
    values: Values = {name: bssfp_on_resonance(TISSUES_1T5[tissue]) for name, tissue in _SIGNAL_OF.items()}
    values["air"] = 0.0
    values["fat"] = scanner.fat * bssfp_on_resonance(TISSUES_1T5["fat"])
    if chest is not None:
        flow = 1 + np.float32(0.07) * chest.fields.mixing.on_grid(*chest.axes).astype(np.float32)
        for name in ("arterial_blood", "pulmonary_blood", "venous_blood"):
            values[name] = np.float32(_BLOOD) * flow
    return values


def computed_tomography(image: Array, scanner: WholeHeartScanner, stream: Stream) -> NDArray[np.int16]:
    """Hounsfield units with correlated noise."""
    inside = np.full(image.shape, -1.0, dtype=np.float32)
    return to_hounsfield(noisy(image, inside, scanner.noise_hu, stream))


def magnetic_resonance(
    image: Array, scanner: WholeHeartScanner, chest: Chest, coil: SmoothField, stream: Stream
) -> NDArray[np.int16]:
    """Grey levels: signal times texture, coil and gain, with Rician noise."""
    x, y, _ = chest.straight
    texture = 1 + np.float32(0.03) * chest.fields.tissue.on_grid(*chest.axes).astype(np.float32)
    bias = np.exp(np.float32(0.07) * coil.on_grid(*chest.axes).astype(np.float32))
    profile = texture * bias * coil_sensitivity(y + 20, x).astype(np.float32) * np.float32(scanner.gain / _BLOOD)
    noise = stream.normals(2, *image.shape).astype(np.float32)
    return np.rint(rician(image * profile, scanner.gain / scanner.snr, noise)).astype(np.int16)
