"""Progress bar of a training: loss, images per second, time left."""

import time
from typing import Any, cast

from ignite.engine import Engine, Events
from tqdm import tqdm

from ..parallel import process_count, process_rank


class TrainingProgress:
    """One bar for the whole run on rank 0, refreshed every ``every`` iterations; reads the loss only then.

    Args:
        batch_size: images per iteration and process, for the speed.
        every: iterations between refreshes.
    """

    def __init__(self, batch_size: int, every: int = 10) -> None:
        self.batch_size = batch_size
        self.every = every
        self.bar: tqdm[Any] | None = None
        self._time = 0.0
        self._iteration = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer whose output has ``loss`` (ignite handler interface)."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self.refresh)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, self.close)

    def start(self, engine: Engine) -> None:
        """Open the bar at the iteration the run starts from."""
        total = cast(int, engine.state.max_epochs) * cast(int, engine.state.epoch_length)
        if process_rank() == 0:
            self.bar = tqdm(total=total, initial=engine.state.iteration, desc="training", unit="step", mininterval=0.5)
        self._time, self._iteration = time.perf_counter(), engine.state.iteration

    def refresh(self, engine: Engine) -> None:
        """Show loss and speed."""
        if self.bar is None:
            return
        now, iteration = time.perf_counter(), engine.state.iteration
        images = (iteration - self._iteration) * self.batch_size * process_count()
        loss = cast(dict, engine.state.output)["loss"].item()
        speed = images / max(now - self._time, 1e-9)
        self.bar.set_postfix_str(f"loss {loss:.4f}, {speed:.0f} images/s", refresh=False)
        self.bar.update(iteration - self._iteration)
        self._time, self._iteration = now, iteration

    def close(self, engine: Engine, error: Exception | None = None) -> None:
        """Close the bar; an error that ended the run goes on its way."""
        if self.bar is not None:
            self.bar.close()
        if error is not None:
            raise error
