"""Stops a training that has gone wrong, and says where."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from .checkpoint import find_checkpoints


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number."""


class NonFiniteGuard:
    """Ends the run when the loss is not finite, naming the iteration, the slices of its batch and the last checkpoint.

    Losses are kept on the device and looked at together every ``every`` iterations and before a checkpoint is written,
    so that the GPU is not stopped in each step and a spoiled network never replaces a good one.

    Args:
        describe: text for the data-set index of a slice, e.g. ``SliceDataset.describe``.
        checkpoint_dir: folder of the run's checkpoints, to name the last one.
        every: iterations between looks.
    """

    def __init__(self, describe: Callable[[int], str], checkpoint_dir: str | Path, every: int = 1) -> None:
        self.describe = describe
        self.checkpoint_dir = Path(checkpoint_dir)
        self.every = every
        self._pending: list[tuple[int, Tensor, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer whose output has ``loss`` and whose batch has ``index``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self.check)

    def note(self, engine: Engine) -> None:
        """Remember the loss of the iteration that has just ended."""
        output, batch = cast(dict, engine.state.output), cast(dict, engine.state.batch)
        self._pending.append((engine.state.iteration, output["loss"].detach(), batch["index"]))

    def check(self) -> None:
        """Look at all losses since the last look; raise :class:`NonFiniteLossError` for the first bad one."""
        pending, self._pending = self._pending, []
        if not pending or bool(torch.isfinite(torch.stack([loss for _, loss, _ in pending])).all()):
            return
        iteration, loss, index = next(item for item in pending if not torch.isfinite(item[1]))
        cases = sorted({self.describe(int(i)) for i in index})
        shown = "; ".join(cases[:8]) + (f"; and {len(cases) - 8} more" if len(cases) > 8 else "")
        checkpoints = find_checkpoints(self.checkpoint_dir)
        remedy = f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "no checkpoint was written yet"
        raise NonFiniteLossError(
            f"The loss became {loss.item()} in iteration {iteration}; {remedy}. Slices of that batch: {shown}. "
            "Check these files with scripts/check_dataset.py, or lower `learning_rate`, then start again with "
            "`--resume true`."
        )
