"""Tiny GANs for tests, trained as the recipes do; as a script, in as many processes as torchrun starts."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import AdversarialTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam

from common.engines.adversarial import AdversarialIteration
from common.engines.cycle import CycleIteration
from common.engines.image_pool import ImagePool
from common.engines.optimization import linear_decay_schedule
from common.engines.pix2pix import Pix2PixIteration
from common.engines.prepare_batch import PairPrepareBatch
from common.engines.randomness import StepRandomness
from common.engines.unpaired_batch import UnpairedPrepareBatch
from common.handlers.checkpoint import TrainingCheckpoint
from common.losses.adversarial import CrossEntropyGAN, LeastSquaresGAN, WassersteinGAN
from common.networks.nets.cycle_pair import DiscriminatorPair, GeneratorPair

SIZE, BATCH, EPOCH_LENGTH = 8, 4, 3


class InterruptedTrainingError(Exception):
    """Ends a training in the middle of an epoch."""


class Pairs:
    """Pairs of images of random numbers in [-1, 1], as ``SliceDataset`` gives them."""

    def __init__(self, number: int = 24) -> None:
        images = 2 * torch.rand(2, number, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) - 1
        self.source, self.target = images

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {"source": self.source[list(indices)], "target": self.target[list(indices)]}


class Batches:
    """The batches of an epoch, which begins where the former has ended; each process has every n-th row."""

    def __init__(self, pairs: Pairs, epoch: int) -> None:
        self.pairs, self.epoch = pairs, epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rank, count = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for number in range(self.epoch * EPOCH_LENGTH, (self.epoch + 1) * EPOCH_LENGTH):
            rows = [(number * BATCH + row) % len(self.pairs) for row in range(BATCH)]
            yield self.pairs.__getitems__(rows[rank::count])

    def __len__(self) -> int:
        return EPOCH_LENGTH


def generator(dropout: float = 0.0, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    last = nn.Conv2d(4, 1, 3, padding=1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Dropout(dropout), last, nn.Tanh())


def discriminator(in_channels: int = 1, seed: int = 1) -> nn.Module:
    """Without a bias in front of the norm: its gradient would be a rounding error, which Adam makes a whole step."""
    torch.manual_seed(seed)
    first = nn.Conv2d(in_channels, 4, 4, stride=2, bias=False)
    return nn.Sequential(first, nn.InstanceNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 2))


def trainer(
    iteration: AdversarialIteration,
    networks: tuple[nn.Module, nn.Module],
    gan: nn.Module,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer] | None = None,
    **options: Any,
) -> AdversarialTrainer:
    """MONAI's trainer as the recipes build it; without optimizers its networks stay as they are."""
    g_optimizer, d_optimizer = optimizers or (SGD(network.parameters(), lr=0.0) for network in networks)
    return AdversarialTrainer(
        **{
            "device": torch.device("cpu"),
            "max_epochs": 1,
            "train_data_loader": Batches(Pairs(), 0),
            "prepare_batch": PairPrepareBatch(),
            **options,
        },
        g_network=networks[0],
        g_optimizer=g_optimizer,
        g_loss_function=gan.generator,
        d_network=networks[1],
        d_optimizer=d_optimizer,
        d_loss_function=gan.discriminator,
        recon_loss_function=nn.L1Loss(),
        iteration_update=iteration,
        decollate=False,
        optim_set_to_none=True,
    )


def train(
    kind: str, folder: Path, epochs: int, *, resume: bool = False, stop_after: int | None = None, dropout: float = 0.0
) -> dict[str, Tensor]:
    """Train a GAN with all that the recipes have; returns all its final weights.

    Args:
        kind: ``pix2pix``, ``lsgan`` or ``wgan-gp``.
        folder: of the checkpoints.
        epochs: of three iterations.
        resume: go on from the last checkpoint.
        stop_after: iteration in which the training is interrupted.
        dropout: of the generators.
    """
    randomness, pairs = StepRandomness(seed=0), Pairs()
    objects: dict[str, Any] = {}
    gan: nn.Module
    iteration: AdversarialIteration
    if kind == "pix2pix":
        gan, prepare_batch = CrossEntropyGAN(), PairPrepareBatch()
        iteration = Pix2PixIteration()
        networks = generator(dropout), discriminator(2)
    else:
        wasserstein = kind == "wgan-gp"
        gan = WassersteinGAN() if wasserstein else LeastSquaresGAN()
        prepare_batch = UnpairedPrepareBatch(pairs, randomness)
        objects = {"source_pool": ImagePool(6), "target_pool": ImagePool(6)}
        special = {"discriminator_weight": 1.0, "penalty_weight": 10.0, "critic_steps": 2} if wasserstein else {}
        iteration = CycleIteration(randomness, **objects, **special)
        networks = (
            GeneratorPair(generator(dropout), generator(dropout, seed=2)),
            DiscriminatorPair(discriminator(), discriminator(seed=3)),
        )
    optimizers = [Adam(network.parameters(), lr=0.01, betas=(0.5, 0.999)) for network in networks]
    schedules = [linear_decay_schedule(optimizer, 6, 100) for optimizer in optimizers]
    objects |= dict(zip(("generators", "discriminator"), networks, strict=True))
    objects |= dict(zip(("g_optimizer", "d_optimizer"), optimizers, strict=True))
    objects |= dict(zip(("g_schedule", "d_schedule"), schedules, strict=True))
    wrapped = networks
    if dist.is_initialized():
        wrapped = tuple(DistributedDataParallel(network) for network in networks)
    engine = trainer(
        iteration,
        wrapped,
        gan,
        (optimizers[0], optimizers[1]),
        prepare_batch=prepare_batch,
        max_epochs=epochs,
        epoch_length=EPOCH_LENGTH,
    )
    randomness.attach(engine)
    TrainingCheckpoint(
        folder / "checkpoints",
        objects,
        weights=networks[0].state_dict,
        weights_path=folder / "model.pt",
        resume=resume,
    ).attach(engine)

    @engine.on(Events.EPOCH_STARTED)
    def choose_batches() -> None:
        engine.set_data(Batches(pairs, engine.state.epoch - 1))

    @engine.on(Events.ITERATION_STARTED)
    def interrupt() -> None:
        if engine.state.iteration == stop_after:
            raise InterruptedTrainingError

    @engine.on(Events.ITERATION_COMPLETED)
    def step() -> None:
        for schedule in schedules:
            schedule.step()

    try:
        engine.run()
    except InterruptedTrainingError:
        return {}
    return {
        f"{part}.{name}": value.clone()
        for part, network in zip(("generators", "discriminator"), networks, strict=True)
        for name, value in network.state_dict().items()
    }


def main() -> None:
    """``gans.py FOLDER KIND ...``: train each for two epochs, resume for a third, save what this process ends with."""
    folder = Path(sys.argv[1])
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if dist.is_initialized() else 0
    for kind in sys.argv[2:]:
        train(kind, folder / kind, 2)
        torch.save(train(kind, folder / kind, 3, resume=True), folder / kind / f"rank{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
