"""Intensity to a fixed range, per volume or by a fixed window; ``inverse`` undoes all but the clipping."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, convert_to_tensor
from numpy.typing import NDArray

from .grids import check_mask
from .naming import source_name

WHITE = 255.0
GREY_LEVELS = (0.0, WHITE)
SIGNED_UNIT = (-1.0, 1.0)  # images of translation
AIR_HU = -1024.0
CT_WINDOW = (AIR_HU, 3000.0)  # HU

# CT has air far below MR's lowest level; MR never has. In between lies the ringing of interpolated MR.
_TOO_LOW_FOR_MR, _TOO_HIGH_FOR_AIR = -100.0, -200.0
_SHARE_OF_AIR = 0.01  # of a volume; resampling leaves a few negative voxels in MR


class _Window(InvertibleTransform, ABC):
    """``(low, high) -> output_range``, linear and clipped; the window is kept in the tensor's trace."""

    def __init__(self, quantize: bool = False, output_range: Sequence[float] = GREY_LEVELS) -> None:
        bottom, top = (float(level) for level in output_range)
        if not bottom < top:
            raise ValueError(f"{type(self).__name__}: output_range={output_range} must be two rising levels.")
        self.quantize, self.bottom, self.top = quantize, bottom, top

    @abstractmethod
    def limits(self, image: torch.Tensor) -> tuple[float, float]:
        """Input levels that become the ends of the output range."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Map an image of any shape to float32 levels of the output range."""
        image = convert_to_tensor(image, dtype=torch.float32, track_meta=True)
        return self._scale(image, *self.limits(image))

    def _scale(self, image: torch.Tensor, low: float, high: float) -> torch.Tensor:
        scaled = ((image - low) * ((self.top - self.bottom) / (high - low))).add_(self.bottom)
        scaled = scaled.clamp_(self.bottom, self.top)
        scaled = scaled.round_() if self.quantize else scaled
        self.push_transform(scaled, extra_info={"low": low, "high": high})
        return scaled

    def inverse(self, image: torch.Tensor) -> torch.Tensor:
        """Back to the source's levels (float32)."""
        window = self.pop_transform(image)[TraceKeys.EXTRA_INFO]
        return (image - self.bottom) * ((window["high"] - window["low"]) / (self.top - self.bottom)) + window["low"]


class PercentileWindow(_Window):
    """Grey levels 0..255 between two percentiles of the whole volume; all frames of a cine share one window.

    Args:
        lower, upper: percentiles in 0..100 that become the ends of ``output_range``.
        quantize: round to whole levels, as 8-bit files have.
        output_range: levels of the result.
    """

    def __init__(
        self,
        lower: float = 0.5,
        upper: float = 99.5,
        quantize: bool = False,
        output_range: Sequence[float] = GREY_LEVELS,
    ) -> None:
        super().__init__(quantize, output_range)
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
            kind = "is constant" if values.min() == values.max() else "is almost constant"
            raise ValueError(
                f"{source_name(image)} {kind}: its percentiles {self.lower} and {self.upper} are both {low:g}, so it "
                "has no contrast to scale. Remove it, or use a fixed window."
            )
        return low, high


class FixedWindow(_Window):
    """Grey levels 0..255 between two given levels, the same for every image; 0 and 255 leave 8-bit sources as they are.

    Args:
        low, high: input levels (Hounsfield units, grey levels) that become the ends of ``output_range``.
        quantize: round to whole levels, as 8-bit files have.
        output_range: levels of the result.
    """

    def __init__(
        self,
        low: float = 0.0,
        high: float = WHITE,
        quantize: bool = False,
        output_range: Sequence[float] = GREY_LEVELS,
    ) -> None:
        super().__init__(quantize, output_range)
        if not low < high:
            raise ValueError(f"FixedWindow: low={low} must be below high={high}.")
        self.low, self.high = float(low), float(high)

    def limits(self, image: torch.Tensor) -> tuple[float, float]:
        """The given window."""
        return self.low, self.high


class PeakWindow(_Window):
    """From 0 to a percentile of the voxels above 0: MR, whose background is 0 and whose scale is arbitrary.

    Args:
        percentile: in 0..100, of the voxels above 0 (inside of the mask, if one is given).
        output_range: levels of the result.
    """

    def __init__(self, percentile: float = 99.5, output_range: Sequence[float] = SIGNED_UNIT) -> None:
        super().__init__(output_range=output_range)
        if not 0 < percentile <= 100:
            raise ValueError(f"PeakWindow: 0 < percentile <= 100 is needed, not {percentile}.")
        self.percentile = percentile

    def __call__(self, image: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``image`` to the output range (float32); ``mask`` of its shape tells where the percentile is taken."""
        image = convert_to_tensor(image, dtype=torch.float32, track_meta=True)
        return self._scale(image, *self.limits(image, mask))

    def limits(self, image: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[float, float]:
        """0 and the percentile.

        Raises:
            ValueError: the image is constant, has nothing above 0 (inside of the mask), is standardized, so that
                0 is not its background, or its mask is on another grid.
        """
        values = image.numpy(force=True)
        if values.min() == values.max():
            raise ValueError(
                f"{source_name(image)} is constant ({values.flat[0]:g} everywhere), so it has no contrast to scale. "
                "Remove the case or export it again."
            )
        if mask is not None:
            values = _inside(image, mask)
        positive = values[values > 0]
        if positive.size == 0:
            where = "" if mask is None else " inside of its mask"
            raise ValueError(
                f"{source_name(image)} has no voxel above 0{where}. Remove the case, or check that image and mask "
                "belong together."
            )
        high = float(np.percentile(positive, self.percentile))
        if (values < -0.05 * high).sum() > 0.05 * positive.size:
            raise ValueError(
                f"{source_name(image)} holds {(values < 0).mean():.0%} negative values down to {values.min():g}, as "
                "standardized images do; everything below 0 would be lost. Give the image as the scanner wrote it, "
                "with 0 as background."
            )
        return 0.0, high


class MaskedPercentileWindow(_Window):
    """Between two percentiles of the voxels inside of a mask; outside of it, the lowest level of the output.

    For MR whose darkest tissue is to become black, wherever 0 lies. What ``inverse`` gives outside of the mask is the
    input level of that black.

    Args:
        lower, upper: percentiles in 0..100 that become the ends of ``output_range``.
        output_range: levels of the result.
    """

    def __init__(self, lower: float = 0.5, upper: float = 99.5, output_range: Sequence[float] = SIGNED_UNIT) -> None:
        super().__init__(output_range=output_range)
        self.percentiles = PercentileWindow(lower, upper)

    def __call__(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Map ``image`` to the output range (float32); ``mask`` has its grid and is above 0 inside."""
        image = convert_to_tensor(image, dtype=torch.float32, track_meta=True)
        scaled = self._scale(image, *self.limits(image, mask))
        return scaled.masked_fill_(convert_to_tensor(mask, track_meta=False).to(scaled.device) <= 0, self.bottom)

    def limits(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:  # type: ignore[override]
        """The two percentiles.

        Raises:
            ValueError: the mask is empty or is on another grid, or they are equal, so the image has no contrast.
        """
        values = _inside(image, mask)
        if values.size == 0:
            raise ValueError(
                f"{source_name(image)}: the mask is empty, so there is nothing to scale by. Remove the case, or leave "
                "the mask out to have one made."
            )
        return self.percentiles.limits(MetaTensor(torch.from_numpy(values)).copy_meta_from(image))


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


class PaintedLevelsd(MapTransform):
    """Painted images, which have been scaled before they were written, to grey levels 0..255 by a fixed window.

    Percentiles would scale each slice by itself.

    Args:
        keys: images.
        window: what they were written with: (0, 1), or HU.
    """

    def __init__(self, keys: KeysCollection, window: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.low, self.high = (float(level) for level in window)
        self.scale = FixedWindow(self.low, self.high)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale them.

        Raises:
            ValueError: an image leaves the window: it was not written with it.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            low, high = float(image.min()), float(image.max())
            slack = 1e-3 * (self.high - self.low)
            if low < self.low - slack or high > self.high + slack:
                raise ValueError(
                    f"{source_name(image)}: intensities from {low:g} to {high:g}, but synthetic images lie in "
                    f"{self.low:g}..{self.high:g}. Scale them, or use real images as the data set (dataset "
                    "labelled_folder), where they are scaled by percentiles."
                )
            result[key] = self.scale(image)
        return result


class ModalityWindowd(MapTransform, InvertibleTransform):
    """Every volume to [-1, 1] by what it is: CT by a fixed window in HU, MR by its own percentiles.

    MR goes through `PeakWindow` (0 becomes -1), or, with ``mr_lower``, through `MaskedPercentileWindow` (-1 outside of
    the mask). ``meta["intensity_high"]`` keeps the input level that became 1.

    Args:
        keys: volumes.
        modalities: one per key; ``ct`` (any case) is in HU, every other name is MR.
        mask_key: foreground on the same grid, in which the percentile of MR is taken; None takes the whole volume.
        ct_window: HU that become -1 and 1.
        percentile: of MR that becomes 1, see `PeakWindow`.
        mr_lower: percentile of MR inside of the mask that becomes -1; None: 0 becomes -1.
        ct_limits: lowest and highest value (HU) that CT may hold as it comes here; None allows any.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        mask_key: str | None = None,
        ct_window: Sequence[float] = CT_WINDOW,
        percentile: float = 99.5,
        allow_missing_keys: bool = False,
        mr_lower: float | None = None,
        ct_limits: Sequence[float] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modality = one_modality_per_key(self.keys, modalities)
        self.mask_key = mask_key
        low, high = ct_window
        self.ct = FixedWindow(low, high, output_range=SIGNED_UNIT)
        if mr_lower is not None and mask_key is None:
            raise ValueError("ModalityWindowd: mr_lower is a percentile inside of the mask; name it with mask_key.")
        self.mr: Any = PeakWindow(percentile) if mr_lower is None else MaskedPercentileWindow(mr_lower, percentile)
        self.ct_limits = None if ct_limits is None else tuple(ct_limits)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Raises ValueError where a volume is not what ``modalities`` says, has no contrast, or is out of limits."""
        result = dict(data)
        mask = None if self.mask_key is None else result[self.mask_key]
        for key in self.key_iterator(result):
            image = convert_to_tensor(result[key], dtype=torch.float32, track_meta=True)
            check_modality(image, self.modality[key], str(key))
            if is_ct(self.modality[key]) and self.ct_limits is not None:
                check_limits(image, self.ct_limits, str(key))
            scaled: Any = self.ct(image) if is_ct(self.modality[key]) else self.mr(image, mask)
            scaled.meta["intensity_high"] = scaled.applied_operations[-1][TraceKeys.EXTRA_INFO]["high"]
            result[key] = scaled
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = (self.ct if is_ct(self.modality[key]) else self.mr).inverse(result[key])
        return result


def is_ct(modality: str) -> bool:
    """Whether a modality's name means CT in Hounsfield units."""
    return modality.lower() == "ct"


def one_modality_per_key(keys: Sequence[Hashable], modalities: Sequence[str]) -> dict[Hashable, str]:
    """The modality of each key.

    Raises:
        ValueError: their numbers differ.
    """
    if isinstance(modalities, str) or len(modalities) != len(keys):
        raise ValueError(
            f"modalities={modalities!r}: one name per key is needed, keys are {', '.join(map(str, keys))}."
        )
    return dict(zip(keys, modalities, strict=True))


def check_modality(image: torch.Tensor, modality: str, key: str) -> None:
    """Refuse CT where MR is expected, and MR where CT is.

    Raises:
        ValueError: MR with more than a hundredth of its voxels below -100, or CT without a voxel below -200 HU, which
            air always is.
    """
    lowest = float(image.min())
    name = f"{source_name(image)} ({key})"
    if not is_ct(modality) and float((image < _TOO_LOW_FOR_MR).float().mean()) > _SHARE_OF_AIR:
        raise ValueError(
            f"{name} looks like CT in Hounsfield units (lowest value {lowest:g}), but the modality of {key!r} is "
            f"{modality!r}. Name it 'ct', or give the MR volume."
        )
    if is_ct(modality) and lowest >= _TOO_HIGH_FOR_AIR:
        raise ValueError(
            f"{name} does not look like CT in Hounsfield units: it has no air (lowest value {lowest:g}), but the "
            f"modality of {key!r} is {modality!r}. Name the MR sequence it is, or give the CT with air below -200 HU."
        )


def check_limits(image: torch.Tensor, limits: Sequence[float], key: str) -> None:
    """Refuse CT with values that no scanner gives for a body, which are errors of units or of export.

    Raises:
        ValueError: a value lies outside of ``limits`` (HU).
    """
    low, high = limits
    lowest, highest = float(image.min()), float(image.max())
    if lowest < low or highest > high:
        raise ValueError(
            f"{source_name(image)} ({key}) holds values from {lowest:g} to {highest:g} HU; CT is expected within "
            f"{low:g} .. {high:g} (ct_limits). Check that slope and intercept were applied when it was exported, and "
            "clip marks of the scanner and metal to this range; or widen the range."
        )


def _inside(image: torch.Tensor, mask: torch.Tensor) -> NDArray[Any]:
    """Values (N,) of all channels where the mask is above 0; ValueError if the two are on different grids."""
    check_mask(image, mask)
    values = image.numpy(force=True)
    return values[np.broadcast_to(mask.numpy(force=True) > 0, values.shape)]
