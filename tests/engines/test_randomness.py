"""Random streams of a training are functions of seed and iteration."""

import torch
from ignite.engine import Engine

from common.engines.randomness import StepRandomness
from common.seeds import Stream, derive_seed


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derive_seed(stream, a, b) for stream in Stream for a in range(5) for b in range(5)}
    seeds |= {derive_seed(stream, a) for stream in Stream for a in range(5)}
    seeds |= {derive_seed(stream, a, b, 0) for stream in Stream for a in range(5) for b in range(5)}
    assert len(seeds) == len(Stream) * (25 + 5 + 25)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_do_not_depend_on_what_was_drawn_before() -> None:
    """Iteration 7 draws the same after six iterations as in a run that starts there."""

    def draws(first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        randomness = StepRandomness(seed=3)
        for iteration in range(first, last + 1):
            randomness.start(iteration)
            drawn = torch.rand(4), torch.randn(5, generator=randomness.shared("cpu"))
        return drawn

    for unbroken, resumed in zip(draws(1, 7), draws(7, 7), strict=True):
        assert torch.equal(unbroken, resumed)


def test_iterations_and_seeds_give_different_numbers() -> None:
    def numbers(seed: int, iteration: int) -> torch.Tensor:
        randomness = StepRandomness(seed)
        randomness.start(iteration)
        return torch.randn(8, generator=randomness.shared("cpu"))

    assert not torch.equal(numbers(0, 1), numbers(0, 2))
    assert not torch.equal(numbers(0, 1), numbers(1, 1))


def test_engine_starts_every_iteration() -> None:
    randomness = StepRandomness(seed=0)
    seen = []
    engine = Engine(lambda engine, batch: seen.append((randomness.iteration, torch.rand(()).item())))
    randomness.attach(engine)
    engine.run([0, 1, 2], max_epochs=2)
    assert [iteration for iteration, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert len({value for _, value in seen}) == 6
