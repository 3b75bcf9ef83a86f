"""Loss of a network that predicts the noise and, if wanted, the variance of the reverse steps."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from ..diffusion.gaussian import NoiseSchedule, clean_estimate, learned_log_variance, posterior


class LearnedVarianceLoss(nn.Module):
    """``mean((noise - prediction)^2) + mean(KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)))``, a float32 scalar.

    Called with the prediction ``(B, 2C, ...)``, noise first, then v of :func:`learned_log_variance`, and the target
    ``{"noise", "x0", "x_t": (B, C, ...), "t": (B,) int64, index into the schedule}``. The divergence, in bits and
    averaged over elements, teaches the variance only: the predicted mean in it carries no gradient. It stands at t = 0
    too, with the finite log-variance of :func:`posterior`; a likelihood of gray levels would mean nothing for latents.

    Args:
        schedule: of the diffusion; t counts its steps.
        learn_sigma: if False the prediction is ``(B, C, ...)`` and the second term is 0.
    Source: Nichol and Dhariwal 2021, eq. 16; with the average over t in place of the sum over T steps, their factor
        0.001 at T = 1000 becomes the 1 here.
    """

    def __init__(self, schedule: NoiseSchedule, learn_sigma: bool = True) -> None:
        super().__init__()
        self.schedule = schedule
        self.learn_sigma = learn_sigma

    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        terms = self.terms(pred, target)
        return terms["noise"] + terms["bound"]

    def terms(self, pred: Tensor, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The two parts: ``noise``, squared error, and ``bound``, bits per element."""
        noise = target["noise"].float()
        batch, channels, *space = noise.shape
        expected = (batch, 2 * channels if self.learn_sigma else channels, *space)
        if tuple(pred.shape) != expected:
            raise ValueError(
                f"LearnedVarianceLoss: prediction {tuple(pred.shape)}, expected {expected} for noise of shape "
                f"{tuple(noise.shape)} and learn_sigma={self.learn_sigma}; fit the network's out_channels."
            )
        if not self.learn_sigma:
            return {"noise": (pred.float() - noise).square().mean(), "bound": noise.new_zeros(())}
        estimate, v = pred.float().chunk(2, dim=1)  # each (B, C, ...)
        bound = self._divergence(estimate.detach(), v, target).mean() / math.log(2)
        return {"noise": (estimate - noise).square().mean(), "bound": bound}

    def _divergence(self, estimate: Tensor, v: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Kullback-Leibler divergence of the learned step from the true one, in nats, ``(B, C, ...)``."""
        x_t, t = target["x_t"].float(), target["t"]
        mean, log_variance = posterior(self.schedule, target["x0"].float(), x_t, t)
        learned_mean, _ = posterior(self.schedule, clean_estimate(self.schedule, x_t, estimate, t), x_t, t)
        learned = learned_log_variance(self.schedule, v, t)
        distance = (mean - learned_mean).square() * (-learned).exp()
        return 0.5 * (learned - log_variance - 1 + (log_variance - learned).exp() + distance)
