"""Auxiliary loss that spreads the tokens over the experts of a mixture layer."""

from collections.abc import Sequence

import torch
from torch import Tensor


def moe_balance_loss(router_probs: Sequence[Tensor], top_k: int) -> Tensor:
    """Mean over layers of ``E sum_i f_i P_i``: scalar, 1 when balanced, ``E / k`` when k experts take all tokens.

    ``P_i`` is the mean probability of expert i over all tokens, ``f_i`` the share of the choices that fell on it
    (``sum_i f_i = 1``). As in the published code f carries a straight-through gradient: ``f_i = mean(W_i) / k`` with
    ``W = hard - stop_gradient(P) + P``. A coefficient c here acts like c / k there, where ``sum_i f_i = k``.

    Args:
        router_probs: probabilities of each layer, ``(..., E)`` in float32.
        top_k: experts per token, k.

    Source: DCT-MoE, section 4.2, eq. 4.
    """
    if not router_probs:
        raise ValueError("moe_balance_loss: no router probabilities given; the network has no mixture layer.")
    return torch.stack([_layer_balance(probs.flatten(0, -2), top_k) for probs in router_probs]).mean()


def _layer_balance(probs: Tensor, top_k: int) -> Tensor:
    """Balance of one layer from ``(M, E)``."""
    num_experts = probs.shape[-1]
    hard = torch.zeros_like(probs).scatter_(-1, probs.topk(top_k, dim=-1).indices, 1.0)
    importance = probs.mean(dim=0)  # (E,)
    load = (hard.mean(dim=0) - importance.detach() + importance) / top_k
    return num_experts * (load * importance).sum()
