"""A loss that is not finite ends the run with the place and the remedy, before anything is saved."""

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from common.handlers.checkpoint import TrainingCheckpoint
from common.handlers.guard import NonFiniteGuard, NonFiniteLossError


def run(folder: Path, losses: list[float], every: int, spoiled_after: int | None = None) -> None:
    network = nn.Linear(1, 1)

    def step(engine: Engine, batch: dict) -> dict:
        if engine.state.iteration == spoiled_after:
            nn.init.constant_(network.bias, float("nan"))
        return {"loss": torch.tensor(losses[engine.state.iteration - 1])}

    engine = Engine(step)
    guard = NonFiniteGuard(network, lambda index: f"case {index}", folder / "checkpoints", every=every)
    guard.attach(engine)
    TrainingCheckpoint(
        folder / "checkpoints",
        {"network": network},
        network.state_dict,
        folder / "model.pt",
        before_save=guard.check_all,
    ).attach(engine)
    batches = [{"index": torch.tensor([10 * i, 10 * i + 1])} for i in range(4)]
    engine.run(batches, max_epochs=len(losses) // 4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_first_bad_iteration_is_named(tmp_path: Path, bad: float, every: int) -> None:
    losses = [1.0] * 8
    losses[5] = losses[6] = bad
    with pytest.raises(NonFiniteLossError) as error:
        run(tmp_path, losses, every)
    message = str(error.value)
    assert f"became {bad} in iteration 6" in message
    assert "case 10; case 11" in message
    assert "checkpoint_000001.pt" in message
    assert "--resume True" in message


def test_nothing_is_saved_after_a_bad_loss(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="No checkpoint was written yet"):
        run(tmp_path, [1.0, float("nan"), 1.0, 1.0], every=100)
    assert not (tmp_path / "model.pt").exists()


def test_weights_spoiled_by_the_last_step_of_an_epoch_are_not_saved(tmp_path: Path) -> None:
    """The loss of that step was still finite."""
    with pytest.raises(NonFiniteLossError, match=r"weights are no longer finite.*checkpoint_000001\.pt"):
        run(tmp_path, [1.0] * 8, every=1, spoiled_after=8)
    assert torch.isfinite(torch.load(tmp_path / "model.pt", weights_only=True)["bias"]).all()


def test_finite_losses_pass(tmp_path: Path) -> None:
    run(tmp_path, [1.0] * 8, every=3)
