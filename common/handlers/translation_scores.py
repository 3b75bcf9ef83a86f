"""What a translated volume is scored by, each number under the protocol that defines it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..metrics.image_quality import psnr, structural_similarity
from ..metrics.synthrad import masked_mae, masked_psnr, masked_ssim, tissue_mae
from ..metrics.z_consistency import z_consistency


class Protocol(NamedTuple):
    """How scores are computed, and which there are."""

    meaning: str
    scores: Mapping[str, str]


PROTOCOLS = {
    "paper": Protocol(
        "2-D, slice by slice, on the network's grid: images mapped from [-1, 1] to [0, 1] and clamped, data range 1, "
        "no mask; the slices of a contiguous block around the middle of the foreground",
        {
            "psnr": "dB, 10 log10(1 / MSE) of each slice, arithmetic mean; exact slices are left out and counted",
            "ssim": "7x7 uniform window, K1 .01, K2 .03, sample covariance (the defaults of scikit-image)",
        },
    ),
    "masked": Protocol(
        "as 'paper', but over the foreground mask's pixels only",
        {"psnr": "dB, 10 log10(1 / MSE) of each slice, arithmetic mean; exact slices are left out and counted"},
    ),
    "region": Protocol(
        "the slices and intensities of 'paper', over all voxels of a case's labeled region (a lesion, for instance); "
        "cases without one are left out",
        {
            "absolute_error": "mean |prediction - target|, of the range [0, 1]",
            "mean_intensity": "mean, of the range [0, 1]; that of the target is right",
        },
    ),
    "z_consistency": Protocol(
        "the slices and intensities of 'paper', inside the foreground mask: steps between neighboring slices",
        {
            "ratio": "mean |step| / that of the target; 1 is right, below is too smooth, above flickers",
            "error_ratio": "mean |step| of the error / mean |step| of the target; 0 is right",
        },
    ),
    "synthrad": Protocol(
        "SynthRAD2023: the whole volume in Hounsfield units on the grid of the files, inside the body mask",
        {
            "mae": "HU, nothing clipped",
            "psnr": "dB, clipped to -1024 .. 3000 HU, data range 4024; exact volumes are left out and counted",
            "ssim": "3-D, 7x7x7 uniform window, clipped as for psnr, the volume's border of 3 voxels left out",
            "mae_bone": "HU, where the true CT is above 250",
            "mae_soft_tissue": "HU, where the true CT is from -200 to 250",
            "mae_air": "HU, where the true CT is below -200",
        },
    ),
}


@dataclass(frozen=True)
class MethodScores:
    """Scores of one method on one case; names are ``<protocol>_<score>``.

    ``slices``: one number a slice, PSNR infinite where a slice is exact and NaN where the mask is empty; ``volume``:
    one number in all, NaN where it is not defined.
    """

    case: str
    method: str
    slices: Mapping[str, NDArray[np.float64]]
    volume: Mapping[str, float]

    def summary(self) -> dict[str, float]:
        """One number a score: of those given by slice the mean."""
        return {**{name: _mean(values) for name, values in self.slices.items()}, **self.volume}


def slice_scores(pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, NDArray[np.float64]]:
    """Scores of the protocols ``paper`` and ``masked`` for each slice of volumes (1, X, Y, Z) in [0, 1]."""
    pred, target, mask = (volume.permute(3, 0, 1, 2) for volume in (pred, target, mask))  # (Z, 1, X, Y)
    scores = {
        "paper_psnr": psnr(pred, target),
        "paper_ssim": structural_similarity(pred, target),
        "masked_psnr": psnr(pred, target, mask=mask),
    }
    return {name: values.numpy(force=True) for name, values in scores.items()}


def step_scores(pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, float]:
    """Scores of the protocol ``z_consistency`` for volumes (1, X, Y, Z) in [0, 1]; none for a single slice."""
    if pred.shape[-1] < 2:
        return {}
    consistency = z_consistency(pred, target, mask)
    return {f"z_consistency_{name}": float(value) for name, value in consistency._asdict().items()}


def region_scores(image: Tensor, target: Tensor, region: Tensor) -> dict[str, float]:
    """Scores of the protocol ``region`` for volumes (1, X, Y, Z) in [0, 1]; none if the region is empty."""
    inside = region > 0
    if not inside.any():
        return {}
    image, target = image[inside], target[inside]
    return {
        "region_absolute_error": float((image - target).abs().mean()),
        "region_mean_intensity": float(image.mean()),
    }


def native_scores(pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, float]:
    """Scores of the protocol ``synthrad`` for volumes (1, X, Y, Z) in HU on the grid of the files."""
    tissue = tissue_mae(pred, target, mask)
    values = {
        "mae": masked_mae(pred, target, mask),
        "psnr": masked_psnr(pred, target, mask),
        "ssim": masked_ssim(pred, target, mask),
        **{f"mae_{name}": value for name, value in tissue._asdict().items()},
    }
    return {f"synthrad_{name}": float(value) for name, value in values.items()}


def summarize(rows: Sequence[MethodScores]) -> dict[str, Any]:
    """Protocols with the scores of all methods over all cases, as ``metrics.json`` states them.

    Each value says how many numbers it is the mean of; protocols without any are left out.
    """
    result: dict[str, Any] = {}
    for protocol, (meaning, scores) in PROTOCOLS.items():
        table: dict[str, Any] = {}
        for score, text in scores.items():
            methods = _score_of_methods(rows, f"{protocol}_{score}")
            if methods:
                table[score] = {"meaning": text, **methods}
        if table:
            result[protocol] = {"meaning": meaning, "scores": table}
    return result


def score_names(rows: Iterable[MethodScores]) -> list[str]:
    """Names of all scores that any of the rows has, protocol by protocol."""
    there = {name for row in rows for name in row.summary()}
    names = [f"{protocol}_{score}" for protocol, (_, scores) in PROTOCOLS.items() for score in scores]
    return [name for name in names if name in there]


def _score_of_methods(rows: Sequence[MethodScores], name: str) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        per_case = np.array([row.summary()[name] for row in own if name in row.summary()])
        if not len(per_case):
            continue
        finite = per_case[np.isfinite(per_case)]
        over_cases = {
            "sd_over_cases": _number(finite.std(ddof=1) if len(finite) > 1 else np.nan),
            "n_cases": len(finite),
        }
        if any(name in row.slices for row in own):
            slices = np.concatenate([row.slices[name] for row in own if name in row.slices])
            methods[method] = {
                "value": _number(_mean(slices)),
                "n_slices": int(np.isfinite(slices).sum()),
                **({"exact_slices": int(np.isposinf(slices).sum())} if name.endswith("psnr") else {}),
                "mean_over_cases": _number(_mean(per_case)),
                **over_cases,
            }
        else:
            methods[method] = {
                "value": _number(_mean(per_case)),
                **({"exact_cases": int(np.isposinf(per_case).sum())} if name.endswith("psnr") else {}),
                **over_cases,
            }
    return methods


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the finite ones; without any, infinite if one is, else NaN."""
    finite = values[np.isfinite(values)]
    if len(finite):
        return float(finite.mean())
    return float(np.inf) if np.isposinf(values).any() else float(np.nan)


def _number(value: float) -> float | None:
    """What JSON can hold: ``None`` for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
