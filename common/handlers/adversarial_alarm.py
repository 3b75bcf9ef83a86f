"""A word of warning when the adversarial term of a training runs away."""

import logging

from ignite.engine import Engine, Events

from ..losses.adaptive_weight import AdaptiveWeight
from ..parallel import process_rank

logger = logging.getLogger(__name__)


class AdversarialAlarm:
    """Warns after an epoch in which the adaptive weight was at its cap most of the time.

    The discriminator then gives the generator hardly any gradient, which the weight blows up: reconstructions are about
    to be ruined.

    Args:
        weight: of the adversarial loss.
        share: of the last 100 iterations at the cap from which on to warn.
    """

    def __init__(self, weight: AdaptiveWeight, share: float = 0.5) -> None:
        self.weight, self.share = weight, share

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer (ignite handler interface)."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.warn)

    def warn(self) -> None:
        """Log the warning on rank 0."""
        alarm = self.weight.alarm
        if alarm > self.share and process_rank() == 0:
            logger.warning(
                "The weight of the adversarial loss was at its cap of %g in %.0f %% of the last iterations: the "
                "discriminator has little to say. Lower its learning rate, start it later (disc_start_share), or fix "
                "the weight (lambda_mode 'fixed').",
                self.weight.cap,
                100 * alarm,
            )
