"""The loss of filling in: means of squared errors, by hand."""

import pytest
import torch

from common.losses.context import ContextLoss


def case() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two images of four pixels, of which one and two are hidden; errors 3 | 1, 1, 2 and 1, 2 | 0, 4."""
    image = torch.zeros(2, 1, 2, 2)
    pred = torch.tensor([[[[3.0, 1.0], [-1.0, 2.0]]], [[[1.0, -2.0], [0.0, 4.0]]]])
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]], [[[1.0, 1.0], [0.0, 0.0]]]])
    return pred, {"image": image, "mask": mask}


@pytest.mark.parametrize("outside", [0.0, 0.1])
def test_the_hidden_part_counts_whole_and_the_rest_a_little(outside: float) -> None:
    pred, target = case()
    expected = ((9 + outside * 6 / 3) + (5 / 2 + outside * 16 / 2)) / 2
    assert ContextLoss(outside)(pred, target).item() == pytest.approx(expected)


def test_the_loss_of_a_batch_is_the_mean_of_its_images() -> None:
    pred, target = case()
    single = [
        ContextLoss()(pred[i : i + 1], {key: value[i : i + 1] for key, value in target.items()}) for i in range(2)
    ]
    torch.testing.assert_close(ContextLoss()(pred, target), torch.stack(single).mean())


def test_no_hidden_pixel_is_no_division_by_zero() -> None:
    pred, target = case()
    loss = ContextLoss(0.1)(pred[:1], {"image": target["image"][:1], "mask": torch.zeros(1, 1, 2, 2)})
    assert loss.item() == pytest.approx(0.1 * 15 / 4)


def test_images_of_other_shapes_are_refused() -> None:
    pred, target = case()
    with pytest.raises(ValueError, match="differ in shape"):
        ContextLoss()(pred[:1], target)
    with pytest.raises(ValueError, match="must not be negative"):
        ContextLoss(-1)
