"""The objectives of adversarial training at logits whose cost is computed by hand."""

import math

import pytest
import torch
from monai.losses import PatchAdversarialLoss
from torch import Tensor
from torch.nn import functional as F

from common.losses.adversarial import CrossEntropyGAN, HingeGAN, LeastSquaresGAN, WassersteinGAN

REAL = torch.tensor([2.0, -1.0, 0.5, 1.0]).reshape(2, 1, 1, 2)
FAKE = torch.tensor([-3.0, 0.0, 1.0, -0.5]).reshape(2, 1, 1, 2)
Objective = LeastSquaresGAN | CrossEntropyGAN | WassersteinGAN | HingeGAN
each_objective = pytest.mark.parametrize(
    "objective", [LeastSquaresGAN(), CrossEntropyGAN(), WassersteinGAN(), HingeGAN()]
)


def test_least_squares_have_their_hand_values() -> None:
    objective = LeastSquaresGAN()
    assert objective.generator(FAKE).item() == pytest.approx((16 + 1 + 0 + 2.25) / 4)
    real, fake = (1 + 4 + 0.25 + 0) / 4, (9 + 0 + 1 + 0.25) / 4
    assert objective.discriminator(REAL, FAKE).item() == pytest.approx(real + fake)


def test_least_squares_see_negative_logits_as_they_are() -> None:
    """A LeakyReLU on the logits would shrink -3 and nearly stop its gradient, which is 2 (logit - 1)."""
    logit = torch.tensor([[-3.0]], requires_grad=True)
    value = LeastSquaresGAN().generator(logit)
    value.backward()
    assert value.item() == 16
    assert logit.grad is not None
    assert logit.grad.item() == -8


def test_cross_entropy_has_its_hand_values() -> None:
    """-log sigmoid(x) = log(1 + e^-x) and -log(1 - sigmoid(x)) = log(1 + e^x)."""

    def mean(logits: Tensor, sign: int) -> float:
        return sum(math.log1p(math.exp(sign * x)) for x in logits.flatten().tolist()) / 4

    objective = CrossEntropyGAN()
    assert objective.generator(FAKE).item() == pytest.approx(mean(FAKE, -1), rel=1e-6)
    assert objective.discriminator(REAL, FAKE).item() == pytest.approx(mean(REAL, -1) + mean(FAKE, 1), rel=1e-6)


def test_cross_entropy_has_the_gradient_of_the_logistic_loss() -> None:
    ours, reference = (FAKE.clone().requires_grad_() for _ in range(2))
    CrossEntropyGAN().generator(ours).backward()
    F.binary_cross_entropy_with_logits(reference, torch.ones_like(reference)).backward()
    assert ours.grad is not None
    assert reference.grad is not None
    torch.testing.assert_close(ours.grad, reference.grad)


def test_wasserstein_has_its_hand_values() -> None:
    objective = WassersteinGAN()
    assert objective.generator(FAKE).item() == pytest.approx(2.5 / 4)
    assert objective.discriminator(REAL, FAKE).item() == pytest.approx((-2.5 - 2.5) / 4)


def test_hinge_has_its_hand_values() -> None:
    objective = HingeGAN()
    assert objective.generator(FAKE).item() == pytest.approx(2.5 / 4)
    real, fake = (0 + 2 + 0.5 + 0) / 4, (0 + 1 + 2 + 0.5) / 4
    assert objective.discriminator(REAL, FAKE).item() == pytest.approx(real + fake)


@pytest.mark.parametrize(("logit", "half"), [(3.0, 2.0), (0.0, 1.0)], ids=["takes all for real", "knows nothing"])
def test_half_of_the_hinge_is_the_published_loss(logit: float, half: float) -> None:
    """A loss that stays at 1 means a discriminator that knows nothing."""
    logits = torch.full((2, 1, 3, 3), logit)
    assert 0.5 * HingeGAN().discriminator(logits, logits).item() == half


def test_a_confident_hinge_keeps_its_gradient() -> None:
    """MONAI's puts a tanh on the logits: a fake that is taken for real at logit 3 costs 1.995, not 4, with no slope."""
    logit = torch.tensor([[3.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(HingeGAN().discriminator(torch.tensor([[3.0]]), logit), logit)
    assert slope.item() == 1
    theirs = PatchAdversarialLoss(criterion="hinge")(logit, target_is_real=False, for_discriminator=True)
    (flat,) = torch.autograd.grad(theirs, logit)
    assert flat.item() < 0.02


@pytest.mark.parametrize(
    ("objective", "generator", "discriminator"),
    [
        (LeastSquaresGAN(), 0.25, 0.5),
        (CrossEntropyGAN(), math.log(2), 2 * math.log(2)),
        (WassersteinGAN(), -0.5, 0.0),
        (HingeGAN(), -0.5, 0.5 + 1.5),
    ],
)
def test_undecided_discriminator_has_its_known_cost(
    objective: Objective, generator: float, discriminator: float
) -> None:
    """Half way between the labels for least squares, at p = 1/2 for cross entropy."""
    undecided = torch.full((2, 1, 3, 3), 0.0 if isinstance(objective, CrossEntropyGAN) else 0.5)
    assert objective.generator(undecided).item() == pytest.approx(generator)
    assert objective.discriminator(undecided, undecided).item() == pytest.approx(discriminator)


@each_objective
def test_players_pull_the_fake_logits_apart_and_the_discriminator_lifts_the_real_ones(objective: Objective) -> None:
    real, fake = torch.full((2, 1, 3, 3), 0.5).requires_grad_(), torch.full((2, 1, 3, 3), 0.5).requires_grad_()
    (up,) = torch.autograd.grad(objective.generator(fake), fake)
    lifted, down = torch.autograd.grad(objective.discriminator(real, fake), (real, fake))
    assert (up < 0).all()
    assert (lifted < 0).all()
    assert (down > 0).all()


@each_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_objectives_are_computed_in_float32_under_autocast(objective: Objective, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (5 * torch.randn(2, 2, 1, 8, 8, generator=generator)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = objective.generator(fake), objective.discriminator(real, fake)
    expected = objective.generator(fake.float()), objective.discriminator(real.float(), fake.float())
    for value, exact in zip(values, expected, strict=True):
        assert value.dtype == torch.float32
        assert value.item() == exact.item()


@pytest.mark.parametrize("objective", [LeastSquaresGAN(), CrossEntropyGAN()])
def test_autocast_is_off_while_logits_are_compared_with_labels(objective: LeastSquaresGAN | CrossEntropyGAN) -> None:
    """On a GPU PyTorch refuses binary cross entropy of probabilities under autocast."""
    states: list[bool] = []
    hook = objective.distance.register_forward_pre_hook(lambda *_: states.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective.generator(FAKE)
        objective.discriminator(REAL, FAKE)
    hook.remove()
    assert states == [False, False, False]
