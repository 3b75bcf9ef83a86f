"""Coefficient statistics of a slice data set: what a frequency-domain model must know before it can train."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from ..cropping import center_crop
from ..frequency.codec import pad_to_tokens
from ..frequency.statistics import CoefficientStatistics, EtaRule
from .slices import SliceDataset


def slice_statistics(
    dataset: SliceDataset,
    image_size: Sequence[int],
    block: int,
    dropped: int = 0,
    shift: float = 128.0,
    eta_rule: EtaRule = "percentile",
    tau: float = 98.25,
    maximum: int = 50_000,
) -> CoefficientStatistics:
    """Statistics over the slices of ``dataset``, at most ``maximum`` of them, evenly spaced.

    Args:
        dataset: slices in grey levels 0..255.
        image_size: pixels to keep in the center of each slice; then padded to whole tokens as the network does.
        block, dropped, shift, eta_rule, tau: see :class:`CoefficientStatistics`.
        maximum: bounds the time; 50,000 slices of 96x96 take about half a minute on one core.
    """
    chosen = np.linspace(0, len(dataset) - 1, min(maximum, len(dataset))).round().astype(int)

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(chosen), 256):
            images = dataset.__getitems__(chosen[start : start + 256].tolist())["image"]
            yield pad_to_tokens(center_crop(images[:, 0], image_size), block)

    return CoefficientStatistics.from_images(
        batches(), block=block, dropped=dropped, shift=shift, eta_rule=eta_rule, tau=tau
    )
