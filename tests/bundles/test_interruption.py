"""A training that is killed again and again ends with the very weights of one that was left alone."""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import run

sys.path.insert(0, str(Path(__file__).parent))
from command_line import command_line, start

from bundles import BUNDLES, FACTS, configs, tiny

EPOCHS = 14
LIMIT = 120.0  # seconds until a run that does not get to the moment of its kill is an error


def saved_files(folder: Path) -> dict[Path, int]:
    """Checkpoints and weights, with the time of their last change."""
    files = [*folder.glob("output/checkpoints/checkpoint_*.pt"), folder / "models" / "model.pt"]
    return {path: path.stat().st_mtime_ns for path in files if path.exists()}


def half_written(folder: Path) -> set[Path]:
    return {path for part in ("output/checkpoints", "models") for path in (folder / part).glob(".writing-*")}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the run does not get there"


def wait_for_moment(kind: str, folder: Path, alive: Callable[[], bool], chance: random.Random) -> None:
    """Return at a moment of this kind in the life of a run that has just been started."""
    files, leftovers = saved_files(folder), half_written(folder)
    if kind == "any":
        time.sleep(chance.uniform(0, 0.5))
    elif kind == "between":  # in an epoch, in validation, or in writing
        number = chance.randint(1, 2)
        wait_until(lambda: not alive() or len(saved_files(folder).items() - files.items()) >= number)
        time.sleep(chance.uniform(0, 0.05))
    else:  # while a checkpoint or the weights are being written
        number = chance.randint(1, 2)
        seen: set[Path] = set()

        def writing() -> bool:
            seen.update(half_written(folder) - leftovers)
            return len(seen) >= number

        wait_until(lambda: not alive() or writing())


def require_readable(folder: Path) -> None:
    for path in saved_files(folder):
        assert torch.load(path, weights_only=True), path


def require_equal(first: Any, second: Any, name: str = "") -> None:
    """Nested states are equal to the bit."""
    if isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True, msg=name)  # NaN: not measured yet
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), name
        for key in first:
            require_equal(first[key], second[key], f"{name}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), name
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            require_equal(one, other, f"{name}/{number}")
    else:
        assert first == second, name


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_ten_kills_change_nothing(
    bundle: str, data_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the killed runs and those that end are started as a user does.

    The others are forked from a process in which the imports are done, so that ten kills do not take ten times their
    time; what is killed is a process with a run in it all the same.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    chance, data = random.Random(0), data_of(bundle)
    settings = {"max_epochs": EPOCHS, "epoch_length": 3, "val_interval": 3}
    unbroken = command_line(bundle, ["train"], tiny(bundle, data, tmp_path / "unbroken", **settings))
    assert unbroken.returncode == 0, unbroken.stderr[-3000:]

    folder = tmp_path / "killed"
    options = tiny(bundle, data, folder, resume=True, **settings)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["monai.bundle", "torch.utils.tensorboard", "ignite.handlers"])
    inside = 0
    for kind in ("any", "writing", "between", "writing", "any", "writing", "between", "writing"):
        before = half_written(folder)
        fork = forks.Process(target=run, kwargs={"config_file": str(configs(bundle) / "train.json"), **options})
        fork.start()
        wait_for_moment(kind, folder, fork.is_alive, chance)
        fork.kill()
        fork.join()
        assert fork.exitcode == -signal.SIGKILL, f"{kind}: the run ended by itself"
        inside += bool(half_written(folder) - before)
        require_readable(folder)
    for kind in ("writing", "between"):
        before = half_written(folder)
        process = start(bundle, ["train"], options)
        wait_for_moment(kind, folder, lambda process=process: process.poll() is None, chance)
        os.killpg(process.pid, signal.SIGKILL)
        errors = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, errors[-3000:]
        inside += bool(half_written(folder) - before)
        require_readable(folder)
    assert inside >= 3, "too few kills fell into the writing of a file"
    assert saved_files(folder)[folder / "models" / "model.pt"]

    last = command_line(bundle, ["train"], options)
    assert last.returncode == 0, last.stderr[-3000:]
    assert "Resumed from" in last.stdout + last.stderr
    assert not half_written(folder)
    name = f"output/checkpoints/checkpoint_{EPOCHS:06d}.pt"
    for file in (name, "models/model.pt"):
        expected, found = (torch.load(tmp_path / part / file, weights_only=True) for part in ("unbroken", "killed"))
        require_equal(expected, found, file)


OTHERS = [(bundle, (name,)) for bundle in BUNDLES for name in FACTS[bundle].others]
ADVERSARIAL = [("med_dit", ("pix2pix", "cyclegan")), ("fqcdm", ("train_autoencoder", "train_joint"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "names"), [*OTHERS, *ADVERSARIAL], ids=lambda value: value if isinstance(value, str) else "+".join(value)
)
def test_a_training_in_two_parts_is_one_in_one(
    bundle: str, names: tuple[str, ...], data_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of the trainings beside train.json: the first part has ended by itself, in the same process."""
    files = [str(configs(bundle) / f"{name}.json") for name in names]
    more = FACTS[bundle].overlays.get(names[-1], {})
    schedule = {"decay_steps": 4, "constant_steps": 2}  # else they follow from the number of epochs
    for folder, epochs in (("whole", (2,)), ("parts", (1, 2))):
        for last in epochs:
            options = tiny(bundle, data_of(bundle), tmp_path / folder, config=names[0], max_epochs=last)
            run(config_file=files, **options | more | schedule, resume=last != epochs[0])
    for file in ("output/checkpoints/checkpoint_000002.pt", "models/model.pt"):
        expected, found = (torch.load(tmp_path / part / file, weights_only=True) for part in ("whole", "parts"))
        require_equal(expected, found, file)
