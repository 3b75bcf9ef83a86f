"""Exponential moving average of the weights."""

import copy

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from ..inferers.diffusion import unwrap


class EMA:
    """Keeps ``model``, a copy of ``network`` whose parameters are an exponential moving average of the trained ones.

    After n updates the rate is min(decay, (1 + n) / (10 + n)): the ramp forgets the random start quickly, so short runs
    are usable (with a constant rate of 0.9999, 82 % of the average after 2,000 steps would still be the start).
    Buffers are copied, not averaged.

    Args:
        network: the network that is trained, already on its device; DDP and ``torch.compile`` wrappers are taken off.
        decay: final rate per iteration.
        every: update only every so many iterations, with the rate to that power; saves time on large networks.
    """

    def __init__(self, network: nn.Module, decay: float = 0.9999, every: int = 1) -> None:
        self.network = unwrap(network)
        self.decay = decay
        self.every = every
        self.model = copy.deepcopy(self.network).eval().requires_grad_(False)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer (ignite handler interface)."""
        engine.add_event_handler(
            Events.ITERATION_COMPLETED(every=self.every), lambda: self.update(engine.state.iteration)
        )

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Move the average towards the network after iteration number ``iteration`` (1-based)."""
        rate = min(self.decay, (1 + iteration) / (10 + iteration)) ** self.every
        averages: list[Tensor] = list(self.model.parameters())
        currents: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(averages, currents, 1 - rate)
        buffers = list(self.model.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(self.network.buffers()))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Weights of the average, for the training checkpoint."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore the average from a training checkpoint."""
        self.model.load_state_dict(state)
