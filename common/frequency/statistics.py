"""What a model must know of the DCT coefficients of its training images: scale, range, spread and entropy."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from .codec import encode_folded, folded_matrix
from .zigzag import num_kept

EtaRule = Literal["percentile", "max"]
WeightKind = Literal["none", "entropy_linear", "entropy_exp"]

_PER_COEFFICIENT = ("mean", "std", "minimum", "maximum", "windowed_std", "entropy")


@dataclass(frozen=True, eq=False)
class CoefficientStatistics:
    """Statistics of each kept zigzag coefficient over all blocks of a set of images.

    Tensors are float32 ``(K,)`` in zigzag order, in grey levels (not divided by eta), taken after the level shift.

    Attributes:
        block: side of a DCT block in pixels.
        dropped: coefficients cut off per block.
        shift: grey level subtracted before the transform.
        eta: scale of the tokens, derived from the first coefficient (DC) by ``eta_rule``.
        eta_rule: ``percentile``: max(abs P_tau, abs P_(100-tau)) of DC; ``max``: largest abs DC (the paper's C_max).
        tau: percentile that bounds the window below and the ``percentile`` rule, in (50, 100].
        mean, std, minimum, maximum: over all values.
        windowed_std: standard deviation of the values strictly inside (P_(100-tau), P_tau).
        entropy: entropy in bits of the same values divided by eta, over 100 equal bins of [-1, 1].
        num_slices: images seen.

    Source: DCT-MoE, section 4.1; window, bins and percentile as in DCTdiff's published statistics.
    """

    block: int
    dropped: int
    shift: float
    eta: float
    eta_rule: str
    tau: float
    mean: Tensor
    std: Tensor
    minimum: Tensor
    maximum: Tensor
    windowed_std: Tensor
    entropy: Tensor
    num_slices: int

    def __post_init__(self) -> None:
        kept = num_kept(self.block, self.dropped)
        if not (math.isfinite(self.eta) and self.eta > 0):
            raise ValueError(f"CoefficientStatistics: eta={self.eta} must be a positive number; are all images empty?")
        if self.eta_rule not in get_args(EtaRule):
            raise ValueError(f"CoefficientStatistics: eta_rule={self.eta_rule!r}; choose one of {get_args(EtaRule)}.")
        for name in _PER_COEFFICIENT:
            values = getattr(self, name)
            if values.shape != (kept,) or not values.isfinite().all():
                raise ValueError(
                    f"CoefficientStatistics: `{name}` must hold {kept} finite numbers (block {self.block}, "
                    f"{self.dropped} dropped), got shape {tuple(values.shape)}; compute the statistics again."
                )

    @classmethod
    def from_images(
        cls,
        images: Iterable[Tensor],
        *,
        block: int,
        dropped: int = 0,
        shift: float = 128.0,
        eta_rule: EtaRule = "percentile",
        tau: float = 98.25,
    ) -> Self:
        """Pass once over batches ``(N, H, W)`` of grey levels in 0..255, H and W multiples of ``2 * block``.

        Memory does not grow with the number of images: percentiles, window and entropy come from counts of the
        coefficients rounded to float16 (as published values do); mean, std and range are exact.

        Raises:
            ValueError: no image at all, an image that is not finite or has the wrong rank, or a bad parameter.
        """
        if not 50 < tau <= 100:
            raise ValueError(f"CoefficientStatistics: tau={tau} must be a percentile in (50, 100].")
        if eta_rule not in get_args(EtaRule):
            raise ValueError(f"CoefficientStatistics: eta_rule={eta_rule!r}; choose one of {get_args(EtaRule)}.")
        totals = _RunningTotals(num_kept(block, dropped))
        matrix = folded_matrix(block, dropped, 1.0)
        for index, batch in enumerate(images):
            if batch.ndim != 3:
                raise ValueError(
                    f"CoefficientStatistics: batch {index} has shape {tuple(batch.shape)}; expected images (N, H, W)."
                )
            if not batch.isfinite().all():
                raise ValueError(f"CoefficientStatistics: batch {index} holds values that are not finite (NaN or inf).")
            tokens = encode_folded(batch.as_subclass(Tensor), matrix.to(batch.device), shift)  # (N, T, 4K)
            totals.add(tokens.unflatten(-1, (4, -1)).flatten(0, 2).cpu(), num_slices=len(batch))
        if not totals.num_slices:
            raise ValueError("CoefficientStatistics: no images were given; check the data set's folder and section.")

        low, high = totals.percentile(100 - tau), totals.percentile(tau)  # (K,) each
        if eta_rule == "percentile":
            eta = round(max(abs(low[0].item()), abs(high[0].item())), 3)
        else:
            eta = max(abs(totals.minimum[0].item()), abs(totals.maximum[0].item()))
        windowed_std, entropy = totals.inside(low, high, eta)
        mean = totals.sum / totals.count
        std = (totals.sum_of_squares / totals.count - mean.square()).clamp_min(0).sqrt()
        return cls(
            block=block,
            dropped=dropped,
            shift=shift,
            eta=eta,
            eta_rule=eta_rule,
            tau=tau,
            mean=mean.float(),
            std=std.float(),
            minimum=totals.minimum.float(),
            maximum=totals.maximum.float(),
            windowed_std=windowed_std.float(),
            entropy=entropy.float(),
            num_slices=totals.num_slices,
        )

    def to_json(self) -> str:
        """Readable text; lists are in zigzag order, as the key ``order`` says."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _PER_COEFFICIENT:
            content[name] = content[name].tolist()
        return json.dumps({"order": "zigzag", **content}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read :meth:`to_json`'s text.

        Raises:
            ValueError: another order than zigzag (raster lists would scramble silently), or a missing or unknown key.
        """
        content = json.loads(text)
        order = content.pop("order", None)
        if order != "zigzag":
            raise ValueError(f"CoefficientStatistics: the file lists coefficients in order {order!r}, not 'zigzag'.")
        expected = {field.name for field in fields(cls)}
        if content.keys() != expected:
            raise ValueError(
                f"CoefficientStatistics: missing keys {sorted(expected - content.keys())}, "
                f"unknown keys {sorted(content.keys() - expected)}; compute the statistics again."
            )
        for name in _PER_COEFFICIENT:
            content[name] = torch.tensor(content[name], dtype=torch.float32)
        return cls(**content)


def frequency_weights(
    statistics: CoefficientStatistics, kind: WeightKind = "entropy_linear", temperature: float = 1.0
) -> Tensor:
    """Loss weight of each kept coefficient, ``(K,)`` with mean 1.

    ``none``: ones; ``entropy_linear``: proportional to the entropy H; ``entropy_exp``: to ``exp(H / temperature)``.
    Multiplying the loss of coefficient k by its weight stresses the frequencies that carry information (DCTdiff, EBFR).
    """
    entropy = statistics.entropy.double()
    if kind == "none":
        weights = torch.ones_like(entropy)
    elif kind == "entropy_linear":
        weights = entropy
        if not (weights > 0).all():
            raise ValueError(
                f"frequency_weights: the entropy of coefficients {(weights <= 0).nonzero().flatten().tolist()} is 0, "
                "so they would never be trained; raise `dropped`, use kind 'none', or check the images."
            )
    elif kind == "entropy_exp":
        if not temperature > 0:
            raise ValueError(f"frequency_weights: temperature={temperature} must be positive.")
        weights = (entropy / temperature).softmax(0)
    else:
        raise ValueError(f"frequency_weights: kind={kind!r}; choose one of {get_args(WeightKind)}.")
    return (weights / weights.mean()).float()


class _RunningTotals:
    """Sums, range and a histogram over all float16 numbers of ``num_coefficients`` streams of values."""

    def __init__(self, num_coefficients: int) -> None:
        self.num_slices = 0
        self.count = 0
        self.sum = torch.zeros(num_coefficients, dtype=torch.float64)
        self.sum_of_squares = torch.zeros(num_coefficients, dtype=torch.float64)
        self.minimum = torch.full((num_coefficients,), math.inf, dtype=torch.float64)
        self.maximum = torch.full((num_coefficients,), -math.inf, dtype=torch.float64)
        bit_patterns = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16).double()
        finite = bit_patterns.isfinite().nonzero().flatten()
        self._order = finite[bit_patterns[finite].argsort(stable=True)]  # bit pattern of each float16, ascending
        self.levels = bit_patterns[self._order]  # (L,)
        self._counts = torch.zeros(num_coefficients, 2**16, dtype=torch.int64)

    def add(self, values: Tensor, *, num_slices: int) -> None:
        """Take in ``(N, K)`` values that come from ``num_slices`` images."""
        exact = values.double()
        self.num_slices += num_slices
        self.count += len(values)
        self.sum += exact.sum(0)
        self.sum_of_squares += exact.square().sum(0)
        self.minimum = torch.minimum(self.minimum, exact.amin(0))
        self.maximum = torch.maximum(self.maximum, exact.amax(0))
        patterns = values.half().view(torch.int16).int() & 0xFFFF
        offsets = torch.arange(values.shape[1], dtype=torch.int32) * 2**16
        flat = torch.bincount((patterns + offsets).flatten(), minlength=self._counts.numel())
        self._counts += flat.view_as(self._counts)

    @property
    def counts(self) -> Tensor:
        """How often each of :attr:`levels` occurred, ``(K, L)``."""
        return self._counts[:, self._order]

    def percentile(self, q: float) -> Tensor:
        """Percentile q of each stream, ``(K,)``, linear between order statistics (NumPy's default)."""
        cumulative = self.counts.cumsum(1)  # (K, L)
        position = (self.count - 1) * q / 100
        below, above = math.floor(position), math.ceil(position)
        ranks = torch.tensor([below + 1, above + 1]).expand(len(cumulative), 2).contiguous()  # 1-based
        lower, upper = self.levels[torch.searchsorted(cumulative, ranks)].unbind(1)
        return lower + (position - below) * (upper - lower)

    def inside(self, low: Tensor, high: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        """Standard deviation and entropy of the values strictly inside ``(low, high)``; 0 where there are none."""
        kept = self.counts * ((self.levels > low[:, None]) & (self.levels < high[:, None]))  # (K, L)
        total = kept.sum(1, keepdim=True).clamp_min(1)
        probability = kept / total.double()
        mean = (probability * self.levels).sum(1, keepdim=True)
        std = (probability * (self.levels - mean).square()).sum(1).sqrt()

        bins = ((self.levels / eta + 1) * 50).floor().long()  # 100 bins of width 0.02, closed below
        bins = torch.where(self.levels == eta, 99, bins)  # the last bin is closed on both sides
        valid = (bins >= 0) & (bins < 100)
        mass = torch.zeros(len(kept), 100, dtype=torch.float64)
        mass.index_add_(1, bins[valid], kept[:, valid].double())
        mass /= mass.sum(1, keepdim=True).clamp_min(1)
        entropy = -(mass * (mass + 1e-9).log2()).sum(1).clamp_max(0)
        return std, entropy
