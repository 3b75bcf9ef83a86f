"""The translation loss at predictions whose error is known."""

import pytest
import torch
from torch import Tensor

from common.diffusion.residual_shift import residual_shift_schedule
from common.losses.translation import TranslationLoss

SCHEDULE = residual_shift_schedule()
BOTH = [TranslationLoss(), TranslationLoss("clipped", schedule=SCHEDULE)]
each_weight = pytest.mark.parametrize("loss", BOTH, ids=["none", "clipped"])


def target(image: Tensor, *t: int) -> dict[str, Tensor]:
    return {"image": image, "t": torch.tensor(t)}


@each_weight
def test_right_prediction_costs_nothing(loss: TranslationLoss) -> None:
    image = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert loss(image, target(image, 1, 3)).item() == 0


def test_unweighted_loss_is_the_mean_squared_error_at_any_time() -> None:
    image, pred = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    pred[0, 0, 0, 0] = 4.0
    for times in ((1, 2), (4, 4)):
        assert TranslationLoss()(pred, target(image, *times)).item() == pytest.approx(2.0)


@pytest.mark.parametrize(("t", "weight"), [(1, 12.97985), (2, 12.03789), (3, 0.2464790), (4, 0.0880898)])
def test_clipped_loss_weighs_each_image_by_its_time(t: int, weight: float) -> None:
    """Only the first image of two is wrong, by 1 everywhere."""
    image, pred = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    pred[0] = 1.0
    for other in (1, 4):
        assert BOTH[1](pred, target(image, t, other)).item() == pytest.approx(weight / 2, rel=1e-5)


@each_weight
def test_loss_is_a_float32_scalar_with_gradient_for_half_precision_predictions(loss: TranslationLoss) -> None:
    pred = torch.ones(2, 1, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    value = loss(pred, target(torch.zeros(2, 1, 4, 4), 2, 2))
    assert value.dtype == torch.float32
    assert value.shape == ()
    value.backward()
    assert pred.grad is not None
    assert (pred.grad > 0).all()


def test_unusable_settings_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="weight='bound' is unknown"):
        TranslationLoss("bound")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the `schedule`"):
        TranslationLoss("clipped")
    with pytest.raises(ValueError, match=r"prediction \(2, 1, 4, 4\) and target image \(2, 4, 4\)"):
        TranslationLoss()(torch.zeros(2, 1, 4, 4), target(torch.zeros(2, 4, 4), 1, 1))


def test_the_perceptual_term_is_added_with_its_factor() -> None:
    class Distance(torch.nn.Module):
        def forward(self, pred: Tensor, image: Tensor) -> Tensor:
            return (pred - image).abs().mean()

    pred, target = torch.full((2, 1, 4, 4), 0.75), {"image": torch.full((2, 1, 4, 4), 0.25), "t": torch.tensor([1, 2])}
    loss = TranslationLoss(perceptual=Distance(), perceptual_weight=3.0)
    assert loss(pred, target).item() == pytest.approx(0.25 + 3 * 0.5)
    assert TranslationLoss(perceptual=Distance())(pred, target).item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match="needs a `perceptual` distance"):
        TranslationLoss(perceptual_weight=1.0)
