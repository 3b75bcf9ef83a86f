"""Volume-wise Dice of an evaluation of slices, as metrics of the engine."""

from collections.abc import Sequence
from typing import Any, cast

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from numpy.typing import NDArray

from ..metrics.volume_dice import VolumeDice, class_means


class ValidationDice:
    """Gives the engine the metrics ``dice_<class>``, means over the volumes that have the class, and ``mean_dice``.

    For an evaluator of slices whose output has class indices as ``pred`` and ``label`` (B, 1, X, Y), and whose batch
    has ``index``. ``mean_dice`` is the mean over the classes; a class that no volume has is left out.

    Args:
        origin: of the evaluated data set, see :class:`VolumeDice`.
        class_names: of index 0, 1, ...; the first is the background.
    """

    def __init__(self, origin: NDArray[Any], class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self.dice = VolumeDice(origin, len(self.class_names))

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator (ignite handler interface), before handlers that read the metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.dice.reset)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def collect(self, engine: Engine) -> None:
        """Add the slices of a batch."""
        output, batch = cast(dict, engine.state.output), cast(dict, engine.state.batch)
        self.dice.update(output["pred"], output["label"], batch["index"])

    def write(self, engine: Engine) -> None:
        """Set the metrics."""
        means = class_means(self.dice.compute())
        engine.state.metrics["mean_dice"] = float(means.nanmean())
        for name, value in zip(self.class_names[1:], means.tolist(), strict=True):
            if value == value:  # not NaN
                engine.state.metrics[f"dice_{name}"] = value
