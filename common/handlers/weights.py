"""Load the weights of a bundle into a network that was built for them."""

from pathlib import Path

from ignite.engine import Engine, Events

from ..state_files import Checked, load_weights


class WeightsLoader:
    """Calls :func:`load_weights` when the engine starts, before anything is evaluated.

    MONAI's ``CheckpointLoader`` would load what fits and leave the rest as it is; this one refuses.

    Args:
        network: network to fill.
        path: file of the weights.
    """

    def __init__(self, network: Checked, path: str | Path) -> None:
        self.network = network
        self.path = path

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator or trainer (ignite handler interface)."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_weights(self.network, self.path)
