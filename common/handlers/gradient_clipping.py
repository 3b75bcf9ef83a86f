"""Gradient clipping between backward pass and optimizer step."""

from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import nn


class GradientClipping:
    """Scales the gradient to at most ``max_norm`` (global 2-norm); no host synchronisation.

    Args:
        network: its parameters' gradients are clipped together.
        max_norm: the largest norm allowed.
    """

    def __init__(self, network: nn.Module, max_norm: float = 1.0) -> None:
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer that works without gradient scaling (bf16 and fp32 need none)."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm, foreach=True)
