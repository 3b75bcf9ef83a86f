"""The alarm goes off when the adaptive weight needs its cap most of the time, not before."""

import logging

import pytest
import torch
from ignite.engine import Engine

from common.handlers.adversarial_alarm import AdversarialAlarm
from common.losses.adaptive_weight import AdaptiveWeight


@pytest.mark.parametrize(("capped", "expected"), [(2, False), (3, True)])
def test_a_weight_at_its_cap_in_most_iterations_is_warned_of(
    capped: int, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    weight = AdaptiveWeight(weight=1.0, cap=5.0)
    layer = torch.ones(3, requires_grad=True)

    def step(engine: Engine, slope: float) -> None:
        weight(layer.sum(), slope * layer.sum(), layer)  # 1 / slope

    trainer = Engine(step)
    AdversarialAlarm(weight).attach(trainer)
    with caplog.at_level(logging.WARNING):
        trainer.run([1e-3] * capped + [1.0] * (5 - capped), max_epochs=1)
    assert ("at its cap of 5" in caplog.text) == expected
