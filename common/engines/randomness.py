"""Random numbers as functions of (seed, iteration), so that a resumed run draws what an unbroken one would."""

import torch
from ignite.engine import Engine, Events

from ..parallel import process_rank
from ..seeds import Stream, derive_seed


class StepRandomness:
    """Starts every training iteration with random streams that depend on ``seed`` and the iteration number alone.

    Nothing has to be stored in a checkpoint, and what validation or another library drew in between has no influence.

    - :meth:`shared`: a generator that is the same on every process. What concerns samples (times, noise, flips) is
      drawn from it for the whole batch of all processes, each process keeping its rows: n processes with batch B
      therefore see exactly what one process with batch n*B sees.
    - PyTorch's global generator (dropout, router noise): a stream of its own per process.

    Args:
        seed: seed of the run, non-negative.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.iteration = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer (ignite handler interface)."""
        engine.add_event_handler(Events.ITERATION_STARTED, lambda: self.start(engine.state.iteration))

    def start(self, iteration: int) -> None:
        """Begin iteration number ``iteration`` (1-based, as ignite counts)."""
        self.iteration = iteration
        torch.manual_seed(derive_seed(Stream.PROCESS, self.seed, iteration, process_rank()))

    def shared(self, device: torch.device | str, *purpose: int) -> torch.Generator:
        """A generator on ``device``, equal on all processes, fresh for this iteration.

        It starts anew with each call; what is drawn in several places of an iteration and is to be independent has a
        ``purpose`` (a number) of its own in each.
        """
        return torch.Generator(device).manual_seed(derive_seed(Stream.STEP, self.seed, self.iteration, *purpose))
