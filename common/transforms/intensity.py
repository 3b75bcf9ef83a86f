"""Intensity to grey levels 0..255, per volume or by a fixed window; ``inverse`` undoes all but the clipping."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, convert_to_tensor

WHITE = 255.0


class _Window(InvertibleTransform, ABC):
    """``y = 255 (x - low) / (high - low)``, clipped to 0..255; the window is kept in the tensor's trace."""

    def __init__(self, quantize: bool = False) -> None:
        self.quantize = quantize

    @abstractmethod
    def limits(self, image: torch.Tensor) -> tuple[float, float]:
        """Input levels that become 0 and 255."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Map an image of any shape to float32 grey levels."""
        image = convert_to_tensor(image, dtype=torch.float32, track_meta=True)
        low, high = self.limits(image)
        scaled = ((image - low) * (WHITE / (high - low))).clamp_(0.0, WHITE)
        scaled = scaled.round_() if self.quantize else scaled
        self.push_transform(scaled, extra_info={"low": low, "high": high})
        return scaled

    def inverse(self, image: torch.Tensor) -> torch.Tensor:
        """Back to the source's levels (float32)."""
        window = self.pop_transform(image)[TraceKeys.EXTRA_INFO]
        return image * ((window["high"] - window["low"]) / WHITE) + window["low"]


class PercentileWindow(_Window):
    """Grey levels 0..255 between two percentiles of the whole volume; all frames of a cine share one window.

    Args:
        lower, upper: percentiles in 0..100 that become 0 and 255.
        quantize: round to whole levels, as 8-bit files have.
    """

    def __init__(self, lower: float = 0.5, upper: float = 99.5, quantize: bool = False) -> None:
        super().__init__(quantize)
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"PercentileWindow: 0 <= lower < upper <= 100 is needed, not {lower} and {upper}.")
        self.lower, self.upper = lower, upper

    def limits(self, image: torch.Tensor) -> tuple[float, float]:
        """The two percentiles.

        Raises:
            ValueError: they are equal, so the image has no contrast.
        """
        values = image.numpy(force=True).ravel()
        low, high = (float(value) for value in np.percentile(values, (self.lower, self.upper)))
        if not low < high:
            name = image.meta.get("filename_or_obj", "the image") if isinstance(image, MetaTensor) else "the image"
            kind = "is constant" if values.min() == values.max() else "is almost constant"
            raise ValueError(
                f"{name} {kind}: its percentiles {self.lower} and {self.upper} are both {low:g}, so it has no contrast "
                "to scale. Remove it, or use a fixed window."
            )
        return low, high


class FixedWindow(_Window):
    """Grey levels 0..255 between two given levels, the same for every image; 0 and 255 leave 8-bit sources as they are.

    Args:
        low, high: input levels (Hounsfield units, grey levels) that become 0 and 255.
        quantize: round to whole levels, as 8-bit files have.
    """

    def __init__(self, low: float = 0.0, high: float = WHITE, quantize: bool = False) -> None:
        super().__init__(quantize)
        if not low < high:
            raise ValueError(f"FixedWindow: low={low} must be below high={high}.")
        self.low, self.high = float(low), float(high)

    def limits(self, image: torch.Tensor) -> tuple[float, float]:
        """The given window."""
        return self.low, self.high


class _Windowd(MapTransform, InvertibleTransform):
    window: _Window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.window(data[key]) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.window.inverse(data[key]) for key in self.key_iterator(dict(data))}}


class PercentileWindowd(_Windowd):
    """`PercentileWindow` on ``keys``, each with its own window."""

    def __init__(
        self,
        keys: KeysCollection,
        lower: float = 0.5,
        upper: float = 99.5,
        quantize: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.window = PercentileWindow(lower, upper, quantize)


class FixedWindowd(_Windowd):
    """`FixedWindow` on ``keys``."""

    def __init__(
        self,
        keys: KeysCollection,
        low: float = 0.0,
        high: float = WHITE,
        quantize: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.window = FixedWindow(low, high, quantize)
