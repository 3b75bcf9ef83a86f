"""The denoiser's error on held-out latents, measured the same way every time."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from ..diffusion.gaussian import NoiseSchedule, marginal
from ..inferers.diffusion import unwrap
from ..parallel import process_count, process_rank, sum_over_processes
from ..pictures import evenly_spaced
from ..seeds import Stream, derive_seed

_BATCH = 32


class Denoiser(Protocol):
    """What is asked of a network besides its call; ``LabelGuidedSynthesizer`` has it."""

    schedule: NoiseSchedule

    def guide(self, label: Tensor) -> Tensor: ...

    def standardize(self, latent: Tensor) -> Tensor: ...


class Latents(Protocol):
    """Latents and label maps; ``LabelledLatents`` has them."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]: ...


class NoiseError:
    """Mean squared error of the predicted noise, as metric ``noise_error`` of an evaluator.

    Step and noise of each item are the same in every validation, so that figures differ by the network alone and a
    plateau can be told from luck. The steps of the ``number`` items are one from each of as many equal parts of 0..T-1.

    Args:
        network: a synthesizer, usually the average of the trained one.
        dataset: held-out latents; ``number`` of them, evenly spread, are used.
        number: how many.
        seed: of steps and noise.
    """

    def __init__(self, network: Callable[..., Any], dataset: Latents, number: int = 64, seed: int = 0) -> None:
        if number < 1:
            raise ValueError(f"NoiseError: number={number} of latents must be at least 1.")
        self.network = network
        self.dataset = dataset
        self.seed = seed
        self.chosen = evenly_spaced(len(dataset), number)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator (ignite handler interface)."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.measure)

    def measure(self, engine: Engine) -> None:
        """Write the metric."""
        engine.state.metrics["noise_error"] = self.error()

    @torch.no_grad()
    def error(self) -> float:
        """Mean over the chosen items and all elements of their latents; the processes share the work."""
        module = cast(nn.Module, unwrap(self.network))
        device = next(module.parameters()).device
        training = module.training
        module.eval()
        mine = range(process_rank(), len(self.chosen), process_count())
        total = torch.zeros(2, dtype=torch.float64, device=device)  # sum of squares, number of elements
        for start in range(0, len(mine), _BATCH):
            total += self._sums(module, list(mine[start : start + _BATCH]), device)
        module.train(training)
        squares, count = sum_over_processes(total).tolist()
        return squares / count

    def _sums(self, module: nn.Module, ranks: list[int], device: torch.device) -> Tensor:
        """Sum of squared errors of some of the chosen items, and how many elements they have."""
        denoiser = cast(Denoiser, module)
        batch = self.dataset.__getitems__([self.chosen[rank] for rank in ranks])
        x0 = denoiser.standardize(batch["latent"].to(device))
        steps = denoiser.schedule.num_steps
        drawn = [self._draw(rank, steps, x0.shape[1:]) for rank in ranks]
        t = torch.tensor([step for step, _ in drawn], device=device)
        noise = torch.stack([noise for _, noise in drawn]).to(device)
        x_t = marginal(denoiser.schedule, x0, noise, t)
        squares = (module(x_t, t, denoiser.guide(batch["label"].to(device))).double() - noise).square()
        return torch.stack([squares.sum(), torch.tensor(float(squares.numel()), dtype=torch.float64, device=device)])

    def _draw(self, rank: int, steps: int, shape: Sequence[int]) -> tuple[int, Tensor]:
        """Step and noise of the item that is the ``rank``-th chosen one."""
        generator = torch.Generator().manual_seed(derive_seed(Stream.SCORE, self.seed, rank))
        part = (rank + float(torch.rand((), generator=generator))) / len(self.chosen)  # in 0..1
        return min(int(part * steps), steps - 1), torch.randn(*shape, generator=generator)
