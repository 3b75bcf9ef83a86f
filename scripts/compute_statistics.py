"""Statistics of the block DCT coefficients of a data set's training part, for a model's scale and loss weights.

python scripts/compute_statistics.py --dataset acdc --dataset_dir /data/ACDC --crop 96 --output statistics.json
"""

import logging
import os
import sys
from pathlib import Path

import fire
from monai.transforms import Compose

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data.cases import find_cases
from common.data.coefficient_statistics import slice_statistics
from common.data.slices import SliceDataset
from common.frequency.statistics import CoefficientStatistics, EtaRule
from common.transforms.intensity import FixedWindowd, PercentileWindowd
from common.transforms.loading import LoadVolumed
from common.transforms.slicing import CropOrErrord, RespaceInPlaned


def grey_slices(
    items: list[dict], *, crop: int, spacing_mm: float | None, intensity: str, pad: bool, cache_dir: str | None
) -> SliceDataset:
    """Slices as the training recipe makes them: window, respacing, crop."""
    windows = {"percentile": PercentileWindowd("image"), "fixed": FixedWindowd("image")}
    if intensity not in windows:
        raise ValueError(f"Unknown intensity {intensity!r}; choose one of {', '.join(windows)}.")
    steps = [
        LoadVolumed("image"),
        windows[intensity],
        RespaceInPlaned("image", spacing_mm),
        CropOrErrord("image", (crop, crop), pad=pad),
    ]
    return SliceDataset(items, Compose(steps), cache_dir)


def as_table(statistics: CoefficientStatistics) -> str:
    """One line per kept coefficient, in zigzag order."""
    names = ("mean", "std", "minimum", "maximum", "windowed_std", "entropy")
    lines = [
        f"{statistics.num_slices} slices, eta {statistics.eta:g} ({statistics.eta_rule}), shift {statistics.shift:g}"
    ]
    lines.append("  k" + "".join(f"{name:>14}" for name in names))
    columns = [getattr(statistics, name).tolist() for name in names]
    lines += [
        f"{k:3d}" + "".join(f"{value:14.4f}" for value in row) for k, row in enumerate(zip(*columns, strict=True))
    ]
    return "\n".join(lines)


def compute_statistics(
    dataset: str,
    dataset_dir: str,
    output: str = "statistics.json",
    crop: int = 96,
    block: int = 4,
    dropped: int = 0,
    spacing_mm: float | None = None,
    intensity: str = "percentile",
    pad: bool = False,
    frames: str = "all",
    eta_rule: EtaRule = "percentile",
    cache_dir: str | None = None,
) -> None:
    """Compute the statistics of the training section, print them and write them as JSON.

    Args:
        dataset, dataset_dir, frames: as in the configs; only the training section is read.
        output: file to write.
        crop: side of the central crop in pixels.
        block, dropped: side of the DCT blocks, number of high frequencies left out per block.
        spacing_mm: in-plane resampling before the crop (mm); none if left out.
        intensity: "percentile" (0.5 to 99.5 of each volume become 0..255) or "fixed" (8-bit sources as they are).
        pad: fill images smaller than the crop with black instead of ending with an error.
        eta_rule: "percentile" or "max", how the common scale of all coefficients is found.
        cache_dir: keep decoded slices there for later runs.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        items = find_cases(dataset, str(dataset_dir), "training", frames=frames)
        slices = grey_slices(items, crop=crop, spacing_mm=spacing_mm, intensity=intensity, pad=pad, cache_dir=cache_dir)
        statistics = slice_statistics(
            slices, (crop, crop), block, dropped=dropped, eta_rule=eta_rule, maximum=len(slices)
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_text(statistics.to_json())
    os.replace(temporary, target)
    print(as_table(statistics))
    print(f"written to {target}")


if __name__ == "__main__":
    fire.Fire(compute_statistics)
