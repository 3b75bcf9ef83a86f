"""Which parameters decay; the learning-rate curve."""

import math

import pytest
import torch
from torch import nn

from common.engines.optimization import LearningRateRule, adamw, learning_rate_schedule, warmup_schedule
from common.networks.blocks.feature_quantizer import FeatureQuantizer
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


# By name


def test_codes_of_a_quantizer_do_not_decay() -> None:
    quantizer = FeatureQuantizer(num_embeddings=5, embedding_dim=3)
    decay, exempt = adamw(quantizer, lr=1e-3, weight_decay=0.05).param_groups
    assert not decay["params"]
    assert exempt["params"] == [quantizer.codebook]
    assert exempt["weight_decay"] == 0


@pytest.mark.parametrize(("rule", "total_steps"), [("cosine", 20), ("constant", None)])
def test_cosine_and_constant_are_the_warm_up_with_and_without_its_end(
    rule: LearningRateRule, total_steps: int | None
) -> None:
    expected = curve(21, warmup_steps=4, total_steps=total_steps, final_factor=0.1)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = learning_rate_schedule(optimizer, rule, warmup_steps=4, total_steps=20, final_factor=0.1)
    rates = []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected)
    assert rates[20] == pytest.approx(0.2 if rule == "cosine" else 2.0)


def test_a_plateau_halves_the_rate_after_more_validations_without_a_lower_value_than_there_is_patience_for() -> None:
    """Values: best, three that are not better, one that is, four that are not; patience 2."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = learning_rate_schedule(optimizer, "plateau", patience=2, warmup_steps=4, total_steps=3)
    rates = []
    for value in (0.5, 0.6, 0.5, 0.7, 0.4, 0.5, 0.4, 0.9, 0.5):
        schedule.step(value)  # type: ignore[arg-type]
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [2, 2, 2, 1, 1, 1, 1, 0.5, 0.5]


def test_a_plateau_leaves_a_millionth() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=3e-6)
    schedule = learning_rate_schedule(optimizer, "plateau", patience=0)
    for _ in range(5):
        schedule.step(1.0)  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


def test_an_unknown_rule_is_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    with pytest.raises(ValueError, match="rule='linear'; choose one of cosine, constant, plateau"):
        learning_rate_schedule(optimizer, "linear")  # type: ignore[arg-type]
