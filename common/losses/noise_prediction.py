"""Weighted squared error of a predicted noise."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..diffusion.continuous import VPSchedule, residual_coefficients
from ..frequency.statistics import CoefficientStatistics, frequency_weights
from .moe_balance import moe_balance_loss

LossWeight = Literal["none", "entropy_linear", "entropy_exp", "unit_variance"]


class NoisePredictionLoss(nn.Module):
    """``mean(w (noise - prediction)**2)`` over batch, tokens and features, plus the routers' balance.

    Called with the prediction ``{"noise": (B, T, F), "router": [(B, N, E), ...]}`` and the target
    ``{"noise": (B, T, F), "t": (B,)}``; returns a float32 scalar. The weight w of a feature depends on its coefficient:

    - ``none``: 1, the paper's text;
    - ``entropy_linear``, ``entropy_exp``: by the coefficient's entropy, mean 1 (the published runs);
    - ``unit_variance``: ``1 / max(floor, alpha**2 s**2 / V)``, ``V = alpha**2 s**2 + sigma**2``, at the time of each
      image: the error of the output of an ``eps_residual`` network, whose target then has unit variance.

    Args:
        weight: which w.
        statistics: of the coefficients; not needed for ``none``.
        schedule: of the noise; needed for ``unit_variance`` only.
        temperature: of ``entropy_exp``.
        floor: smallest variance ratio of ``unit_variance``; bounds w where the signal has vanished.
        balance_coefficient: weight of :func:`moe_balance_loss`.
        top_k: experts per token.
    """

    def __init__(
        self,
        weight: LossWeight = "none",
        *,
        statistics: CoefficientStatistics | None = None,
        schedule: VPSchedule | None = None,
        temperature: float = 1.0,
        floor: float = 0.02,
        balance_coefficient: float = 0.002,
        top_k: int = 2,
    ) -> None:
        super().__init__()
        if weight not in get_args(LossWeight):
            raise ValueError(
                f"NoisePredictionLoss: weight={weight!r} is unknown; choose one of {', '.join(get_args(LossWeight))}."
            )
        if weight != "none" and statistics is None:
            raise ValueError(f"NoisePredictionLoss: weight={weight!r} needs the `statistics` of the coefficients.")
        if weight == "unit_variance" and schedule is None:
            raise ValueError("NoisePredictionLoss: weight='unit_variance' needs the `schedule` of the noise.")
        self.weight, self.schedule, self.floor = weight, schedule, floor
        self.balance_coefficient, self.top_k = balance_coefficient, top_k
        per_coefficient = torch.ones(1)
        if statistics is not None:
            if weight == "unit_variance":
                per_coefficient = statistics.std / statistics.eta  # s, in token units
            else:
                per_coefficient = frequency_weights(statistics, weight, temperature)
        self.register_buffer("per_coefficient", per_coefficient, persistent=False)  # (K,)

    def forward(self, pred: Mapping[str, Any], target: Mapping[str, Tensor]) -> Tensor:
        terms = self.terms(pred, target)
        return terms["noise"] + self.balance_coefficient * terms["balance"]

    def terms(self, pred: Mapping[str, Any], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The two parts, before the coefficient: ``noise`` and ``balance`` (0 for a dense network)."""
        noise = target["noise"].float()
        if pred["noise"].shape != noise.shape:
            raise ValueError(
                f"NoisePredictionLoss: prediction {tuple(pred['noise'].shape)} and target {tuple(noise.shape)} differ "
                "in shape; broadcasting them would average the wrong pairs."
            )
        error = (pred["noise"].float() - noise).square()  # (B, T, F)
        router = pred.get("router") or []
        return {
            "noise": (self._weights(target["t"], noise.shape[-1]) * error).mean(),
            "balance": moe_balance_loss(router, self.top_k) if router else error.new_zeros(()),
        }

    def _weights(self, t: Tensor, num_features: int) -> Tensor:
        """w, ``(F,)`` or, where it depends on t, ``(B, 1, F)``."""
        self.to(t.device)  # copies once, at the first call
        num_coefficients = len(self.get_buffer("per_coefficient"))
        if num_features % num_coefficients:
            raise ValueError(
                f"NoisePredictionLoss: {num_features} features per token are not whole blocks of the statistics' "
                f"{num_coefficients} coefficients; network and statistics must use the same block and dropped."
            )
        values = self.get_buffer("per_coefficient").repeat(num_features // num_coefficients)  # (F,)
        if self.schedule is None or self.weight != "unit_variance":
            return values
        coefficients = residual_coefficients(self.schedule, t, torch.zeros_like(values)[None], values[None])
        return 1 / coefficients.out.square().clamp_min(self.floor)  # (B, 1, F)
