"""Plain squared error of the noise, or the same error of v at every step."""

import pytest
import torch

from common.diffusion.gaussian import linear_schedule
from common.losses.guided_noise import GuidedNoiseLoss

SCHEDULE = linear_schedule(100, 1e-3, 0.2)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def test_plain_is_the_mean_squared_error() -> None:
    noise, pred = draw(4, 2, 3, 3), draw(4, 2, 3, 3) + 0.5
    loss = GuidedNoiseLoss(SCHEDULE)(pred, {"noise": noise, "t": torch.tensor([0, 10, 50, 99])})
    torch.testing.assert_close(loss, torch.tensor(0.25))


@pytest.mark.parametrize("step", [0, 25, 60, 99])
def test_unit_variance_is_the_squared_error_of_v(step: int) -> None:
    """``noise = sqrt(1 - A) x_t + sqrt(A) v`` with ``v = sqrt(A) noise - sqrt(1 - A) x0``, by hand."""
    x0, noise, error = draw(2, 3, 4, 4).double(), draw(2, 3, 4, 5)[..., :4].double(), draw(2, 3, 4, 6)[..., :4].double()
    a = SCHEDULE.alpha_bar[step]
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
    v = a.sqrt() * noise - (1 - a).sqrt() * x0
    pred = (1 - a).sqrt() * x_t + a.sqrt() * (v + error)
    loss = GuidedNoiseLoss(SCHEDULE, "unit_variance")(
        pred.float(), {"noise": noise.float(), "t": torch.full((2,), step)}
    )
    torch.testing.assert_close(loss, error.square().mean().float(), rtol=2e-3, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="weight='snr'"):
        GuidedNoiseLoss(SCHEDULE, "snr")
    with pytest.raises(ValueError, match="differ in shape"):
        GuidedNoiseLoss(SCHEDULE)(draw(2, 3, 4, 4), {"noise": draw(2, 1, 4, 4), "t": torch.tensor([1, 2])})
