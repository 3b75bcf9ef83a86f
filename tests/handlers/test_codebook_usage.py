"""Use of the codes by all images of a validation; a codebook that collapses is named."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from torch import Tensor

from common.engines.prepare_batch import ReferencePrepareBatch
from common.handlers.codebook_usage import CodebookUsage
from common.inferers.reconstruction import ReconstructionInferer

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from tiny_synthesizers import autoencoder, images


class Coder:
    """The levels of an image are its codes."""

    def __init__(self, num_embeddings: int) -> None:
        self.num_embeddings = num_embeddings

    def codes(self, image: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return image[:, 0].long()


def evaluator(usage: CodebookUsage) -> Engine:
    """Its batches are lists of codes; each becomes an image of one pixel."""

    def step(engine: Engine, codes: list[int]) -> None:
        engine.state.output = {"image": torch.tensor(codes, dtype=torch.float32).reshape(-1, 1, 1, 1)}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    usage.attach(engine)
    return engine


def test_all_batches_of_an_evaluation_count_and_none_of_the_former() -> None:
    engine = evaluator(CodebookUsage(Coder(8)))
    engine.run([[0, 1], [2, 3], [4, 5], [6, 7]])
    assert engine.state.metrics["code_usage"] == 1
    assert engine.state.metrics["code_perplexity"] == pytest.approx(8)
    engine.run([[0, 0, 0], [2]])
    assert engine.state.metrics["code_usage"] == 0.25
    assert engine.state.metrics["code_perplexity"] == pytest.approx(4 / 3**0.75)


def test_the_figures_stand_beside_the_metrics_before_what_follows_reads_them() -> None:
    engine = evaluator(CodebookUsage(Coder(2)))
    engine.state.metrics["psnr"] = 30.0
    seen: list[dict] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(dict(engine.state.metrics)))
    engine.run([[0, 1]])
    assert seen[0] == pytest.approx({"psnr": 30, "code_usage": 1, "code_perplexity": 2})


@pytest.mark.parametrize(("number", "warned"), [(9, False), (10, False), (11, True)])
def test_less_than_a_tenth_is_a_warning(number: int, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        evaluator(CodebookUsage(Coder(number))).run([[3, 3], [3]])
    assert bool(caplog.messages) == warned
    if warned:
        (message,) = caplog.messages
        assert message.startswith("Only 9.1 % of the 11 codes are in use (perplexity 1.0): the codebook is collapsing.")


def test_codes_are_those_of_the_images_that_a_validation_reconstructs() -> None:
    """As the recipe validates: grey levels become [0, 1]; the last batch is a smaller one."""
    network, levels = autoencoder(), (255 * images(7)).round()
    batches = [{"image": part, "index": torch.arange(len(part))} for part in levels.split(3)]
    engine = SupervisedEvaluator(
        device="cpu",
        val_data_loader=batches,
        network=network,
        inferer=ReconstructionInferer(),
        prepare_batch=ReferencePrepareBatch(),
        val_handlers=[CodebookUsage(network)],
        decollate=False,
    )
    engine.run()
    p = torch.bincount(network.codes(levels / 255).flatten(), minlength=7).double()
    p = p / p.sum()
    assert (p > 0).sum() > 1
    assert engine.state.metrics["code_usage"] == pytest.approx((p > 0).double().mean().item())
    assert engine.state.metrics["code_perplexity"] == pytest.approx(float((-torch.xlogy(p, p)).sum().exp()))
