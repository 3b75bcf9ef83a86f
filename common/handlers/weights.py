"""Load the weights of a bundle into a network that was built for them."""

from pathlib import Path
from typing import Any, Protocol

from ignite.engine import Engine, Events

from ..state_files import load_state


class Checked(Protocol):
    """A network that can tell whether weights were made for it; ``DCTDenoiser`` is one."""

    def check_compatible(self, state_dict: dict[str, Any]) -> None: ...

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> Any: ...


def load_weights(network: Checked, path: str | Path) -> None:
    """Load a ``model.pt`` (plain state dict, or one under ``"model"``) into ``network``.

    Raises:
        FileNotFoundError: no file there.
        RuntimeError: not a readable file of plain tensors.
        ValueError: weights of another block size, truncation, image size, ...; each difference is named.
    """
    state = load_state(path)
    state = state.get("model", state)
    try:
        network.check_compatible(state)
    except ValueError as error:
        raise ValueError(f"{path} does not fit this network: {error}") from error
    network.load_state_dict(state, strict=True)


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
