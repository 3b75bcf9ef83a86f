"""One iteration of two players, a generator and a discriminator, for MONAI's ``AdversarialTrainer``."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from monai.engines import AdversarialTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..inferers.diffusion import unwrap
from ..inferers.precision import autocast
from ..parallel import process_count

Losses = dict[str, Tensor]


class AdversarialIteration(ABC):
    """A step of the discriminator, then a step of the generator against the discriminator it has become.

    Give it to an ``AdversarialTrainer`` as ``iteration_update``: MONAI's own iteration takes the images that are real
    from the generator's input, which a translation cannot, and lets the generator's step fill the gradients of the
    discriminator. It uses the trainer's networks, optimizers, losses and ``prepare_batch``, which gives source and
    target (B, 1, X, Y), optionally followed by () and a dictionary of what else the steps need. Losses are computed in
    fp32, the trainer's own ``amp`` stays off.

    The output holds scalars: ``loss``, the sum of what the steps of this iteration have minimized, and its parts by
    name, without their weights. The parts of a player that has no step in an iteration are absent.

    Args:
        critic_steps: iterations per step of the generator; the discriminator has a step in each, on a new batch.
        amp: run the networks in bf16 where the device has it.
    """

    def __init__(self, critic_steps: int = 1, amp: bool = False) -> None:
        if critic_steps < 1:
            raise ValueError(f"{type(self).__name__}: critic_steps={critic_steps} must be at least 1.")
        self.critic_steps = critic_steps
        self.amp = amp

    @abstractmethod
    def generate(self, network: nn.Module, batch: Mapping[str, Tensor], *, train: bool) -> Mapping[str, Tensor]:
        """All images that the two steps need, by name; without ``train`` those of the discriminator's step do.

        ``batch`` holds ``source``, ``target`` and what else ``prepare_batch`` gave.
        """

    def trains_discriminator(self, iteration: int) -> bool:
        """Whether the discriminator has a step in this iteration (counted from 1)."""
        return True

    @abstractmethod
    def discriminator_loss(self, engine: AdversarialTrainer, images: Mapping[str, Tensor]) -> tuple[Tensor, Losses]:
        """What the discriminator minimizes, and its parts; gradients may not reach the images' generator."""

    @abstractmethod
    def generator_loss(
        self, engine: AdversarialTrainer, judge: nn.Module, images: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses]:
        """What the generator minimizes, and its parts; ``judge`` is the discriminator, whose weights are constant."""

    def __call__(self, engine: AdversarialTrainer, batchdata: Mapping[str, Tensor]) -> Losses:
        state = engine.state
        require_synchronized(state.g_network, state.d_network)
        prepared = engine.prepare_batch(batchdata, state.device, engine.non_blocking, **engine.to_kwargs)
        batch = {"source": prepared[0], "target": prepared[1], **(prepared[3] if len(prepared) == 4 else {})}
        state.g_network.train()
        state.d_network.train()
        train_generator = state.iteration % self.critic_steps == 0
        with torch.set_grad_enabled(train_generator), autocast(state.device, self.amp):
            images = self.generate(state.g_network, batch, train=train_generator)
        images = {name: image.float() for name, image in images.items()} | batch

        total, losses = torch.zeros((), device=prepared[0].device), Losses()
        if self.trains_discriminator(state.iteration):
            total, losses = self.discriminator_loss(engine, images)
            _step(state.d_optimizer, total, engine.optim_set_to_none)
        if train_generator:
            with frozen(state.d_network) as judge:
                loss, parts = self.generator_loss(engine, judge, images)
                _step(state.g_optimizer, loss, engine.optim_set_to_none)
            total, losses = total + loss, losses | parts
        return {name: value.detach() for name, value in {"loss": total, **losses}.items()}

    def run(self, network: nn.Module, *images: Tensor) -> Any:
        """The network's answer, in bf16 if ``amp`` is on; the losses take it to fp32."""
        with autocast(images[0].device, self.amp):
            return network(*images)


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """``network`` without its wrappers, as a function with constant weights: gradients only pass through it."""
    module = unwrap(network)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield module
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def require_synchronized(*networks: nn.Module) -> None:
    """Raise ``RuntimeError`` if several processes train, but their gradients are not averaged."""
    if process_count() > 1 and not all(isinstance(network, DistributedDataParallel) for network in networks):
        raise RuntimeError(
            f"{process_count()} processes train, but generator and discriminator are not both in "
            "DistributedDataParallel, so each process would train networks of its own. Lay the recipe's overlay for "
            "several processes over it."
        )


def _step(optimizer: Optimizer, loss: Tensor, set_to_none: bool) -> None:
    optimizer.zero_grad(set_to_none=set_to_none)
    loss.backward()
    optimizer.step()
