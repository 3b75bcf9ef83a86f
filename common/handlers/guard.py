"""Stops a training that has gone wrong, and says where."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor, nn

from ..parallel import process_count
from .checkpoint import find_checkpoints


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number."""


class NonFiniteGuard:
    """Ends the run when the loss is not finite, naming the iteration, the slices of its batch and the last checkpoint.

    Losses are kept on the device and looked at together every ``every`` iterations, so that the GPU is not stopped in
    each step. Before a checkpoint is written, :meth:`check_all` looks at the weights, too, on every process: a loss is
    taken before the step it leads to, and a gradient that is not finite on one process spoils the weights of all.

    Args:
        network: the network that is trained.
        describe: text for the data-set index of a slice, e.g. ``SliceDataset.describe``.
        checkpoint_dir: folder of the run's checkpoints, to name the last one.
        every: iterations between looks.
    """

    def __init__(
        self, network: nn.Module, describe: Callable[[int], str], checkpoint_dir: str | Path, every: int = 1
    ) -> None:
        self.network = network
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
        raise NonFiniteLossError(
            f"The loss became {loss.item()} in iteration {iteration}. Slices of that batch: {shown}. {self._remedy()}"
        )

    def check_all(self) -> None:
        """:meth:`check`, and raise on every process if the weights of any are not finite."""
        self.check()
        norms = torch._foreach_norm([parameter.detach() for parameter in self.network.parameters()])
        finite = torch.isfinite(torch.stack(norms)).all().int()
        if process_count() > 1:
            dist.all_reduce(finite, op=dist.ReduceOp.MIN)
        if not finite:
            raise NonFiniteLossError(f"The weights are no longer finite after the last step. {self._remedy()}")

    def _remedy(self) -> str:
        checkpoints = find_checkpoints(self.checkpoint_dir)
        last = f"The last good checkpoint is {checkpoints[-1]}" if checkpoints else "No checkpoint was written yet"
        return (
            f"{last}. Check the files with scripts/check_dataset.py and go on with --resume True, or start anew with a "
            "lower --learning_rate."
        )
