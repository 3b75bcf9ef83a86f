"""How much of a codebook the images of a validation use."""

import logging
from typing import Any, Protocol, cast

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from ..metrics import codebook_usage as metric
from ..parallel import process_rank

logger = logging.getLogger(__name__)


class Coder(Protocol):
    """What the handler asks of an autoencoder; ``QuantizedAutoencoder`` has it."""

    num_embeddings: int

    def codes(self, image: Tensor) -> Tensor: ...


class CodebookUsage:
    """Adds ``code_usage`` and ``code_perplexity`` of all images of an evaluation to its metrics; warns of a collapse.

    Counted over the whole evaluation, since a few images can only use a few codes.

    Args:
        network: gives the codes of the evaluator's input images.
        least: share of the codes below which a warning is logged.
    """

    def __init__(self, network: Coder, least: float = 0.1) -> None:
        self.network, self.least = network, least
        self.usage = metric.CodebookUsage(network.num_embeddings)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose output holds ``image`` (B, 1, X, Y), the images that are reconstructed."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.usage.reset)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.count)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish)

    @torch.no_grad()
    def count(self, engine: Engine) -> None:
        """Count the codes of a batch."""
        output: Any = engine.state.output
        self.usage.update(self.network.codes(cast(Tensor, output["image"])))

    def finish(self, engine: Engine) -> None:
        """Put both figures among the metrics."""
        usage, perplexity = self.usage.compute()
        engine.state.metrics |= {"code_usage": usage, "code_perplexity": perplexity}
        if usage < self.least and process_rank() == 0:
            logger.warning(
                "Only %.1f %% of the %d codes are in use (perplexity %.1f): the codebook is collapsing. Lower the "
                "learning rate, let the restart of unused codes come earlier (restart_after), or take fewer codes.",
                100 * usage,
                self.network.num_embeddings,
                perplexity,
            )
