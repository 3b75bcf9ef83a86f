"""From the network's [-1, 1] to the units of the target, and from several samples to their mean."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor
from torch import Tensor

from ..state_files import load_state
from .intensity import AIR_HU, CT_WINDOW, is_ct


class TargetIntensity(Transform):
    """Undo the intensity window of the target: [-1, 1] -> HU for CT, else 0 .. the training targets' typical white.

    The scale of an MR image cannot be known from another contrast, so its units stay arbitrary: white is the median
    over the training targets, which the weights file holds.

    Args:
        modality: of the target; ``ct`` (any case) is in HU.
        weights_path: file of the weights, from which white is read when it is needed.
        ct_window: HU that are -1 and 1.
    """

    def __init__(self, modality: str, weights_path: str | Path, ct_window: Sequence[float] = CT_WINDOW) -> None:
        self.ct, self.weights_path = is_ct(modality), weights_path
        low, high = (float(level) for level in ct_window)
        if not low < high:
            raise ValueError(f"TargetIntensity: ct_window={list(ct_window)} must be two rising levels in HU.")
        self._limits: tuple[float, float] | None = (low, high) if self.ct else None

    def limits(self) -> tuple[float, float]:
        """Intensities of black and white.

        Raises:
            ValueError: the file does not hold the level.
        """
        if self._limits is None:
            state = load_state(self.weights_path)
            level = state.get("model", state).get("target_level")
            if level is None or not torch.isfinite(level):
                raise ValueError(
                    f"{self.weights_path} does not say which intensity of the target is white; it was not saved by the "
                    "training of a translator. Give its models/model.pt."
                )
            self._limits = (0.0, float(level))
        return self._limits

    def __call__(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """(C, X, Y, Z) in [-1, 1], mask (1, X, Y, Z) -> the same in the target's units, background outside the mask."""
        low, high = self.limits()
        result = (image.clamp(-1, 1) + 1) * ((high - low) / 2) + low
        if mask is None:
            return result
        background = AIR_HU if self.ct else 0.0
        inside = convert_to_tensor(mask, track_meta=False).to(result.device) > 0  # the place is the image's
        return torch.where(inside, result, torch.full_like(result, background))


class TargetIntensityd(MapTransform):
    """`TargetIntensity` on ``keys``; the mask under ``mask_key`` is used where an item has it."""

    def __init__(
        self,
        keys: KeysCollection,
        modality: str,
        weights_path: str | Path,
        mask_key: str | None = "mask",
        ct_window: Sequence[float] = CT_WINDOW,
    ) -> None:
        super().__init__(keys)
        self.intensity, self.mask_key = TargetIntensity(modality, weights_path, ct_window), mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        mask = data.get(self.mask_key) if self.mask_key is not None else None
        return {**data, **{key: self.intensity(data[key], mask) for key in self.key_iterator(dict(data))}}


class SampleMeand(MapTransform):
    """Samples as channels (K, X, Y, Z) -> their mean (1, X, Y, Z) and, for K > 1, their standard deviation.

    The deviation (divided by K - 1) goes to ``deviation_key``. It is the spread of the sampler, not a calibrated error.

    Args:
        keys: key of the samples.
        deviation_key: where the deviation goes.
    """

    def __init__(self, keys: KeysCollection, deviation_key: str = "pred_sd") -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"SampleMeand: one key is needed, the samples, not {self.keys}.")
        self.deviation_key = deviation_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        samples = result[self.keys[0]]
        if len(samples) > 1:
            result[self.deviation_key] = with_geometry(samples.std(dim=0, keepdim=True), samples)
        result[self.keys[0]] = with_geometry(samples.mean(dim=0, keepdim=True), samples)
        return result


def with_geometry(image: Tensor, original: Tensor) -> Tensor:
    """``image`` with the geometry and trace of ``original`` where that has them; ``Invertd`` asks for it."""
    return MetaTensor(torch.as_tensor(image)).copy_meta_from(original) if isinstance(original, MetaTensor) else image
