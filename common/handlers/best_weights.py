"""The weights of the best validation."""

import copy
import math
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor

from .checkpoint import Stateful


class BestWeights:
    """Keeps a copy of the weights whenever a validation is better than all before it.

    Attach it to the evaluator; put it among the objects of the training checkpoint, so that a resumed run knows the
    best so far, and the ``ValidationHandler`` in front of the checkpoint, so that a save sees the validation of its
    epoch.

    Args:
        network: whose ``state_dict`` to keep.
        metric: name of the evaluator's metric; a higher value is better. A value that is not a number never is.
    """

    def __init__(self, network: Stateful, metric: str) -> None:
        self.network, self.metric = network, metric
        self.best = -math.inf
        self._weights: dict[str, Tensor] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator (ignite handler interface)."""
        engine.add_event_handler(Events.COMPLETED, self.compare)

    def compare(self, engine: Engine) -> None:
        """Keep the weights if this evaluation is the best."""
        value = float(engine.state.metrics[self.metric])
        if value > self.best:
            self.best = value
            self._weights = copy.deepcopy(self.network.state_dict())

    def weights(self) -> dict[str, Any]:
        """The best weights, or the present ones before the first validation."""
        return self.network.state_dict() if self._weights is None else self._weights

    def state_dict(self) -> dict[str, Any]:
        """For the training checkpoint."""
        return {"best": self.best, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from a training checkpoint."""
        self.best, self._weights = state["best"], state["weights"]
