"""Whole, atomic training checkpoints; resuming; and the weights that users get."""

import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from ignite.engine import Engine, Events

from ..atomic import TEMPORARY_PREFIX
from ..parallel import process_rank, wait_for_all
from ..state_files import load_state, save_state

logger = logging.getLogger(__name__)


class Stateful(Protocol):
    """Anything with a state to save, such as a network, an optimizer or a schedule."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def find_checkpoints(directory: Path) -> list[Path]:
    """Whole training checkpoints in ``directory``, oldest first."""
    found = [path for path in directory.glob("checkpoint_*.pt") if re.fullmatch(r"checkpoint_\d+", path.stem)]
    return sorted(found, key=lambda path: int(path.stem.split("_")[1]))


class TrainingCheckpoint:
    """Saves everything a run needs to go on, and goes on from it.

    Every ``interval`` epochs, and at the end, writes ``checkpoint_<epoch>.pt`` with the state of ``objects`` and the
    epoch, and ``weights_path`` with the weights for inference. Each file is written beside its place and renamed, so a
    kill at any moment leaves the former one. Random streams need no state: they are functions of seed, epoch and
    iteration (``common.engines.randomness``). Rank 0 writes. MONAI's ``CheckpointSaver`` is not used because it removes
    the former file before it writes the next one of the same name.

    Args:
        directory: folder of the checkpoints.
        objects: what to save, by name; must hold everything that changes during training.
        weights: gives the state dict for inference (plain tensors), e.g. ``ema.state_dict``.
        weights_path: file for these weights, overwritten at every save.
        interval: epochs between saves.
        resume: continue from the last whole checkpoint in ``directory``; from the start if there is none. Without it a
            folder that holds checkpoints of a former run is renamed to ``<directory>.previous`` when the run starts.
        keep: how many checkpoints to keep.
        settings: options that an interrupted run may not be resumed with other values of, by name.
        before_save: called before each save; an exception it raises prevents the save.
        record: called by rank 0 with each save, to write down what belongs to these weights; a run that ends before
            its first save has left what was recorded of the former weights.
    """

    def __init__(
        self,
        directory: str | Path,
        objects: Mapping[str, Stateful],
        weights: Callable[[], dict[str, Any]],
        weights_path: str | Path,
        interval: int = 1,
        resume: bool = False,
        keep: int = 2,
        settings: Mapping[str, Any] | None = None,
        before_save: Callable[[], None] | None = None,
        record: Callable[[], None] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.objects = dict(objects)
        self.weights = weights
        self.weights_path = Path(weights_path)
        self.interval = interval
        self.resume = resume
        self.keep = keep
        self.settings = dict(settings or {})
        self.before_save = before_save
        self.record = record

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer (ignite handler interface)."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.save)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Restore the last checkpoint, or make room for a new run."""
        existing = find_checkpoints(self.directory)
        if self.resume and existing:
            self.restore(engine, existing[-1])
        elif self.resume:
            logger.info("No checkpoint in %s yet: training starts from the beginning.", self.directory)
        elif existing and process_rank() == 0:
            previous = self.directory.with_name(self.directory.name + ".previous")
            shutil.rmtree(previous, ignore_errors=True)
            self.directory.rename(previous)
            logger.info("Checkpoints of an earlier run were moved to %s.", previous)
        if process_rank() == 0:  # what a kill in the middle of writing left; the run has both folders to itself
            for folder in (self.directory, self.weights_path.parent):
                for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
                    leftover.unlink()
        wait_for_all()

    def restore(self, engine: Engine, path: Path) -> None:
        """Load ``path`` into the objects and the engine's counters."""
        state = load_state(path, map_location="cpu")
        if state.keys() != {*self.objects, "progress"}:
            raise RuntimeError(
                f"{path} holds {sorted(state)} but this run needs {sorted([*self.objects, 'progress'])}: it was "
                "written by another recipe. Give this run an `output_dir` of its own, or set `resume` to false."
            )
        epoch_length = engine.state.epoch_length
        if state["progress"]["epoch_length"] != epoch_length:
            raise RuntimeError(
                f"{path} was trained with epochs of {state['progress']['epoch_length']} iterations, this run has "
                f"{epoch_length}: give the same data set, `batch_size` and `epoch_length` to resume."
            )
        before = state["progress"]["settings"]
        changed = [name for name in self.settings if before.get(name) != self.settings[name]]
        if changed:
            differences = "; ".join(f"{name}: {before.get(name)} then, {self.settings[name]} now" for name in changed)
            raise RuntimeError(
                f"{path} comes from a run with other settings ({differences}). Resume with the settings of then, or "
                "start anew with a new `output_dir`."
            )
        for name, item in self.objects.items():
            try:
                item.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise RuntimeError(
                    f"`{name}` in {path} does not fit this run: {error}\nResume with the settings the run was started "
                    "with, or give a new `output_dir`."
                ) from error
        engine.state.epoch = state["progress"]["epoch"]
        engine.state.iteration = state["progress"]["epoch"] * epoch_length
        if process_rank() == 0:  # a kill between the two files of a save leaves older weights beside the checkpoint
            save_state(self.weights(), self.weights_path)
            if self.record is not None:
                self.record()
        logger.info("Resumed from %s: %d epochs are done.", path, engine.state.epoch)
        if engine.state.epoch >= cast(int, engine.state.max_epochs):
            logger.warning("The run is complete; raise `max_epochs` to train longer.")

    def save(self, engine: Engine) -> None:
        """Write checkpoint and weights of the epoch that has just ended."""
        if self.before_save is not None:
            self.before_save()
        wait_for_all()  # a process whose check has failed does not come here, and nothing is written then
        if process_rank() != 0:
            return
        path = self.directory / f"checkpoint_{engine.state.epoch:06d}.pt"
        progress = {
            "epoch": engine.state.epoch,
            "epoch_length": engine.state.epoch_length,
            "settings": self.settings,
        }
        save_state({name: item.state_dict() for name, item in self.objects.items()} | {"progress": progress}, path)
        save_state(self.weights(), self.weights_path)
        if self.record is not None:
            self.record()
        for old in find_checkpoints(self.directory)[: -self.keep]:
            old.unlink()

    def finish(self, engine: Engine) -> None:
        """Save the last epoch, unless it has just been saved."""
        if engine.state.epoch % self.interval:
            self.save(engine)
