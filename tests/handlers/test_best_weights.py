"""The weights of the best validation are kept, over an interruption, too."""

import math

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from common.handlers.best_weights import BestWeights


def validated(best: BestWeights, network: nn.Linear, scores: list[float]) -> None:
    """One validation for each score; the weight of the network is the score."""
    evaluator = Engine(lambda engine, batch: None)
    best.attach(evaluator)
    for score in scores:
        nn.init.constant_(network.weight, score)
        evaluator.state.metrics = {"dice": score}
        evaluator.fire_event(Events.COMPLETED)


@pytest.mark.parametrize(
    ("scores", "expected"), [([0.2, 0.7, 0.5], 0.7), ([0.2, 0.3], 0.3), ([0.4, math.nan, 0.1], 0.4), ([math.nan], None)]
)
def test_the_highest_score_wins_and_a_missing_one_never(scores: list[float], expected: float | None) -> None:
    network = nn.Linear(1, 1, bias=False)
    best = BestWeights(network, "dice")
    validated(best, network, scores)
    wanted = network.weight.item() if expected is None else expected
    assert best.weights()["weight"].item() == pytest.approx(wanted, nan_ok=True)


def test_a_resumed_run_knows_the_best_so_far() -> None:
    network = nn.Linear(1, 1, bias=False)
    first = BestWeights(network, "dice")
    validated(first, network, [0.9])
    again = BestWeights(network, "dice")
    again.load_state_dict(first.state_dict())
    validated(again, network, [0.5])
    torch.testing.assert_close(again.weights()["weight"], torch.full((1, 1), 0.9))
