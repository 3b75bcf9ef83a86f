"""Checkpoints are whole or absent, and a run that resumes is the run that was not interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from common.engines.randomness import StepRandomness
from common.handlers.checkpoint import TrainingCheckpoint, find_checkpoints
from common.state_files import load_state, save_state


def train(
    folder: Path,
    epochs: int,
    *,
    resume: bool = False,
    interval: int = 1,
    stop_after: int | None = None,
    settings: dict | None = None,
    record: Callable[[], None] | None = None,
) -> dict:
    """Noisy gradient descent on two numbers, 4 iterations per epoch; returns the final weights."""
    network = nn.Linear(2, 1)
    nn.init.ones_(network.weight)
    nn.init.zeros_(network.bias)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)

    def step(engine: Engine, batch: int) -> None:
        if engine.state.iteration == stop_after:
            raise KeyboardInterrupt
        optimizer.zero_grad()
        network(torch.randn(3, 2)).square().mean().backward()
        optimizer.step()

    engine = Engine(step)
    StepRandomness(seed=0).attach(engine)
    TrainingCheckpoint(
        folder / "checkpoints",
        {"network": network, "optimizer": optimizer},
        weights=network.state_dict,
        weights_path=folder / "model.pt",
        interval=interval,
        resume=resume,
        settings=settings,
        record=record,
    ).attach(engine)
    try:
        engine.run(range(4), max_epochs=epochs)
    except KeyboardInterrupt:
        return {}
    return network.state_dict()


@pytest.mark.parametrize("stop_after", [1, 4, 5, 11, 16])
def test_resumed_run_equals_the_unbroken_one(tmp_path: Path, stop_after: int) -> None:
    unbroken = train(tmp_path / "a", epochs=5)
    assert train(tmp_path / "b", epochs=5, stop_after=stop_after) == {}
    resumed = train(tmp_path / "b", epochs=5, resume=True)
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)
    saved = torch.load(tmp_path / "b" / "model.pt", weights_only=True)
    assert all(torch.equal(unbroken[name], saved[name]) for name in unbroken)


def test_only_the_newest_are_kept_and_the_last_epoch_is_saved(tmp_path: Path) -> None:
    train(tmp_path, epochs=7, interval=3)
    assert [path.name for path in find_checkpoints(tmp_path / "checkpoints")] == [
        "checkpoint_000006.pt",
        "checkpoint_000007.pt",
    ]


def test_finished_run_resumes_to_nothing_new(tmp_path: Path) -> None:
    first = train(tmp_path, epochs=3)
    again = train(tmp_path, epochs=3, resume=True)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_resuming_writes_the_weights_that_a_kill_prevented(tmp_path: Path) -> None:
    """A kill after the last checkpoint, before its weights: nothing is left to train, the weights still come."""
    final = train(tmp_path, epochs=3)
    save_state({}, tmp_path / "model.pt")
    train(tmp_path, epochs=3, resume=True)
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(final[name], saved[name]) for name in final)


def test_nothing_is_saved_unless_all_processes_are_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not finite on one process has spoiled the gradient, and so the weights, of all."""

    def lost_peer() -> None:
        raise ConnectionError("the other process has ended")

    network = nn.Linear(2, 1)
    checkpoint = TrainingCheckpoint(tmp_path, {"network": network}, network.state_dict, tmp_path / "model.pt")
    monkeypatch.setattr("common.handlers.checkpoint.wait_for_all", lost_peer)
    with pytest.raises(ConnectionError):
        checkpoint.save(Engine(lambda engine, batch: None))
    assert not list(tmp_path.iterdir())


def test_what_belongs_to_the_weights_is_recorded_with_every_save_and_not_before(tmp_path: Path) -> None:
    saved: list[list[str]] = []

    def record() -> None:
        assert (tmp_path / "model.pt").is_file()
        saved.append([path.name for path in find_checkpoints(tmp_path / "checkpoints")][-1:])

    train(tmp_path, epochs=4, stop_after=3, record=record)
    assert saved == []
    train(tmp_path, epochs=3, interval=2, record=record)
    assert saved == [["checkpoint_000002.pt"], ["checkpoint_000003.pt"]]


def test_new_run_keeps_the_former_checkpoints_aside(tmp_path: Path) -> None:
    train(tmp_path, epochs=4)
    train(tmp_path, epochs=2)
    assert [p.name for p in find_checkpoints(tmp_path / "checkpoints")] == [
        "checkpoint_000001.pt",
        "checkpoint_000002.pt",
    ]
    assert find_checkpoints(tmp_path / "checkpoints.previous")[-1].name == "checkpoint_000004.pt"


def test_other_epoch_length_or_recipe_is_refused(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    path = find_checkpoints(tmp_path / "checkpoints")[0]
    state = load_state(path)
    save_state({**state, "progress": {"epoch": 1, "epoch_length": 9, "settings": {}}}, path)
    with pytest.raises(RuntimeError, match=r"epochs of 9 iterations, this run has 4"):
        train(tmp_path, epochs=2, resume=True)
    save_state({key: value for key, value in state.items() if key != "optimizer"}, path)
    with pytest.raises(RuntimeError, match="written by another recipe"):
        train(tmp_path, epochs=2, resume=True)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    """The optimizer's state would silently win over a new learning rate."""
    train(tmp_path, epochs=1, settings={"learning_rate": 0.1, "seed": 0})
    with pytest.raises(RuntimeError, match=r"learning_rate: 0\.1 then, 0\.2 now\)"):
        train(tmp_path, epochs=2, resume=True, settings={"learning_rate": 0.2, "seed": 0})
    train(tmp_path, epochs=2, resume=True, settings={"learning_rate": 0.1, "seed": 0})


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*model\.pt"):
        load_state(tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RuntimeError, match=r"model\.pt is not a readable checkpoint"):
        load_state(tmp_path / "model.pt")
    torch.save(nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(RuntimeError, match="plain tensors"):
        load_state(tmp_path / "model.pt")


WRITER = """
import sys, torch
from common.state_files import save_state
print("ready", flush=True)
number = 0
while True:
    number += 1
    save_state({"number": torch.full((400_000,), number)}, sys.argv[1])
"""


def test_kill_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    """Nearly all of the child's time goes into writing, so nearly every kill falls into it."""
    path = tmp_path / "model.pt"
    save_state({"number": torch.zeros(400_000)}, path)
    for delay in (0.05, 0.11, 0.17, 0.23):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        values = load_state(path)["number"]
        assert (values == values[0]).all()


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_state({"x": torch.ones(1)}, path)
    with pytest.raises(Exception, match="pickle"):
        save_state({"x": lambda: None}, path)
    assert load_state(path)["x"].item() == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
