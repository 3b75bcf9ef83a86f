"""The gradient penalty for critics whose gradients are known."""

import pytest
import torch
from torch import Tensor, nn

from common.losses.gradient_penalty import gradient_penalty


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


REAL, FAKE, U = normal(0, 3, 2, 4, 5), normal(1, 3, 2, 4, 5), torch.tensor([0.0, 0.3, 1.0])
SLOPE = normal(2, 2, 4, 5)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 7.0])
def test_linear_critic_has_the_penalty_of_its_slope(scale: float) -> None:
    """D(x) = <a, x>: (|a| - 1)^2, wherever the points lie."""
    penalty = gradient_penalty(lambda x: (scale * SLOPE * x).sum(dim=(1, 2, 3)), REAL, FAKE, U)
    assert penalty.item() == pytest.approx((scale * SLOPE.norm().item() - 1) ** 2, rel=1e-5)


def test_critic_of_unit_slope_is_not_penalized() -> None:
    penalty = gradient_penalty(lambda x: (SLOPE / SLOPE.norm() * x).sum(dim=(1, 2, 3)), REAL, FAKE, U)
    assert penalty.item() == pytest.approx(0, abs=1e-10)


def test_gradient_is_taken_between_fake_and_real_as_u_says() -> None:
    """D(x) = |x|^2 / 2 has the gradient x itself."""
    points = U[:, None, None, None] * REAL + (1 - U[:, None, None, None]) * FAKE
    expected = (points.flatten(1).norm(dim=1) - 1).square().mean().item()
    penalty = gradient_penalty(lambda x: 0.5 * x.square().sum(dim=(1, 2, 3)), REAL, FAKE, U)
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    at_ends = [
        gradient_penalty(lambda x: 0.5 * x.square().sum((1, 2, 3)), REAL, FAKE, u * torch.ones(3)) for u in (0, 1)
    ]
    for value, end in zip(at_ends, (FAKE, REAL), strict=True):
        assert value.item() == pytest.approx((end.flatten(1).norm(dim=1) - 1).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 6])
def test_score_of_an_image_is_the_mean_of_its_logit_map(size: int) -> None:
    """As in the critic's objective: a map of equal logits counts like one logit."""
    penalty = gradient_penalty(
        lambda x: (SLOPE * x).sum(dim=(1, 2, 3))[:, None, None, None].expand(-1, 1, size, size), REAL, FAKE, U
    )
    assert penalty.item() == pytest.approx((SLOPE.norm().item() - 1) ** 2, rel=1e-5)


def test_penalty_drives_the_slope_of_a_critic_to_one() -> None:
    """Its gradient reaches the critic's weights, also where the caller records none."""
    torch.manual_seed(0)
    linear = nn.Linear(40, 1)
    critic = nn.Sequential(nn.Flatten(), linear)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        with torch.no_grad():
            penalty = gradient_penalty(critic, REAL, FAKE, U)
        penalty.backward()
        optimizer.step()
    assert linear.weight.norm().item() == pytest.approx(1, abs=1e-4)


def test_gradient_of_the_penalty_does_not_reach_the_images() -> None:
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    weight = torch.ones((), requires_grad=True)
    gradient_penalty(lambda x: weight * x.square().flatten(1).sum(dim=1), real, fake, U).backward()
    assert weight.grad is not None
    assert real.grad is None
    assert fake.grad is None


def test_critic_with_nonlinear_layers_has_the_right_second_derivative() -> None:
    """Against central differences of the penalty along its own gradient."""
    torch.manual_seed(0)
    first = nn.Conv2d(2, 4, 3)
    critic, weight = nn.Sequential(first, nn.InstanceNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 2)), first.weight
    gradient_penalty(critic, REAL, FAKE, U).backward()
    assert weight.grad is not None
    direction, step = weight.grad / weight.grad.norm(), 1e-3
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(gradient_penalty(critic, REAL, FAKE, U).item())
        with torch.no_grad():
            weight -= sign * step * direction
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(weight.grad.norm().item(), rel=0.02)


def test_penalty_is_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = gradient_penalty(critic, REAL, FAKE, U)
    assert value.dtype == torch.float32
    assert value.item() == gradient_penalty(critic, REAL, FAKE, U).item()
    assert gradient_penalty(critic, REAL.bfloat16(), FAKE.bfloat16(), U).dtype == torch.float32


def test_shapes_that_would_broadcast_are_refused() -> None:
    critic = nn.Conv2d(2, 1, 2)
    with pytest.raises(ValueError, match=r"real \(3, 2, 4, 5\) and fake \(1, 2, 4, 5\) must have one shape"):
        gradient_penalty(critic, REAL, FAKE[:1], U)
    with pytest.raises(ValueError, match=r"u \(1,\) must be \(B,\)"):
        gradient_penalty(critic, REAL, FAKE, U[:1])
