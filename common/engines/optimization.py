"""Optimizers and learning-rate schedules of the recipes."""

import math
from typing import Literal, get_args

import torch
from torch import nn

LearningRateRule = Literal["cosine", "constant", "plateau"]

_NO_WEIGHTS = ("position_embedding", "codebook")  # matrices by shape only


def adamw(
    network: nn.Module, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.03
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases, norms, embeddings of positions and codebooks are exempt.

    Decay would pull the codes of a quantizer towards 0, whatever the latents are.

    Args:
        network: its trainable parameters are optimized.
        lr: learning rate.
        betas: decay rates of the two moments.
        weight_decay: decoupled decay of the weight matrices.
    """
    decay: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        own_name = name.rsplit(".", 1)[-1]
        is_matrix = parameter.ndim > 1 and own_name not in _NO_WEIGHTS and "bias" not in own_name
        (decay if is_matrix else exempt).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def warmup_schedule(
    optimizer: torch.optim.Optimizer, warmup_steps: int, total_steps: int | None = None, final_factor: float = 0.02
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then constant, or a cosine down to ``final_factor`` if ``total_steps`` is given.

    Call ``step()`` once per iteration. Factor of the n-th iteration (from 0): (n+1)/warmup_steps while warming up; then
    final + (1 - final) (1 + cos(pi p)) / 2 with p the share of the remaining steps that is done.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if total_steps is None:
            return 1.0
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer,
    rule: LearningRateRule = "cosine",
    *,
    warmup_steps: int = 0,
    total_steps: int | None = None,
    final_factor: float = 0.02,
    patience: int = 10,
) -> torch.optim.lr_scheduler.LRScheduler:
    """:func:`warmup_schedule` with or without its cosine, or ``ReduceLROnPlateau``, which is fed after validations.

    On a plateau the rate is halved, down to 1e-6, once more than ``patience`` validations in a row have not been lower
    than the best one; the other arguments have no effect then.
    """
    if rule not in get_args(LearningRateRule):
        raise ValueError(
            f"learning_rate_schedule: rule={rule!r}; choose one of {', '.join(get_args(LearningRateRule))}."
        )
    if rule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, min_lr=1e-6)
    return warmup_schedule(optimizer, warmup_steps, total_steps if rule == "cosine" else None, final_factor)


def linear_decay_schedule(
    optimizer: torch.optim.Optimizer, constant_steps: int, total_steps: int | None
) -> torch.optim.lr_scheduler.LambdaLR:
    """Constant, then linear to 0 if ``total_steps`` is given, as GANs are trained (Zhu et al. 2017, section 4).

    Call ``step()`` once per iteration. Factor of the n-th iteration (from 0): 1 up to ``constant_steps``, then
    (total_steps - n) / (total_steps - constant_steps), which would be 0 in the first iteration after the last. The
    optimizer may have fewer steps than the schedule, as that of a generator behind its critic has.
    """
    if constant_steps < 0 or (total_steps is not None and total_steps <= constant_steps):
        raise ValueError(
            f"linear_decay_schedule: 0 <= constant_steps < total_steps is needed, not {constant_steps} and "
            f"{total_steps}."
        )

    def factor(step: int) -> float:
        if total_steps is None:
            return 1.0
        return min(1.0, max(0, total_steps - step) / (total_steps - constant_steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    optimizer.step()  # without gradients, so nothing changes; PyTorch warns if an optimizer waits for its first step
    return schedule
