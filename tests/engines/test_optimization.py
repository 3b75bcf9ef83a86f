"""Which parameters decay; the learning-rate curve."""

import math

import pytest
import torch
from torch import nn

from common.engines.optimization import adamw, warmup_schedule
from common.networks.nets.u_vit import u_vit


def test_only_matrices_decay() -> None:
    network = u_vit("tiny", num_features=8, grid=(2, 2))
    decay, exempt = adamw(network, lr=1e-3).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decaying = {names[id(p)] for p in decay["params"]}
    free = {names[id(p)] for p in exempt["params"]}
    assert decaying | free == set(names.values())
    assert "position_embedding" in free
    assert not any("bias" in name or "norm" in name or "embedding" in name for name in decaying)
    assert all("bias" in name or "norm" in name or "embedding" in name for name in free)
    experts = {name for name, parameter in network.named_parameters() if parameter.ndim == 3} - {"position_embedding"}
    assert experts
    assert experts <= decaying
    assert exempt["weight_decay"] == 0


def curve(steps: int, **options: object) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = warmup_schedule(optimizer, **options)  # type: ignore[arg-type]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_warm_up_is_linear_then_constant() -> None:
    assert curve(8, warmup_steps=4) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0])


def test_cosine_ends_at_the_final_factor() -> None:
    rates = curve(21, warmup_steps=4, total_steps=20, final_factor=0.1)
    assert rates[4] == pytest.approx(2.0)
    assert rates[12] == pytest.approx(2 * (0.1 + 0.9 * 0.5))  # half-way: cos = 0
    assert rates[8] == pytest.approx(2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))))
    assert rates[20] == pytest.approx(0.2)
