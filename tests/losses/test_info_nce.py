"""The contrastive loss at similarities that are known."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.losses.info_nce import InfoNCELoss, Pool, Positives


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def orthogonal(count: int, tokens: int = 2) -> Tensor:
    """Embeddings ``(count, tokens, count)`` of which any two images have similarity 0, flattened or averaged."""
    return torch.eye(count)[:, None].expand(count, tokens, count) * torch.arange(1, count + 1)[:, None, None]


@pytest.mark.parametrize("positives", ["pairs", "self"])
@pytest.mark.parametrize("pool", ["flatten", "mean"])
def test_images_that_all_look_alike_cost_log_b(pool: Pool, positives: Positives) -> None:
    batch = 64 if positives == "pairs" else 32
    loss = InfoNCELoss(pool=pool, positives=positives)(normal(0, 1, 5, 8).expand(batch, 5, 8))
    assert loss.item() == pytest.approx(3.4657359, abs=1e-5)


def test_self_positives_leave_nothing_to_learn_for_orthogonal_images() -> None:
    loss = InfoNCELoss(positives="self")(orthogonal(32)).item()
    assert loss == pytest.approx(math.log1p(31 * math.exp(-1 / 0.07)), abs=1e-10)
    assert loss == pytest.approx(1.937e-5, abs=1e-8)


@pytest.mark.parametrize("pool", ["flatten", "mean"])
def test_equal_views_of_orthogonal_images_cost_little(pool: Pool) -> None:
    images = orthogonal(32)
    loss = InfoNCELoss(pool=pool)(torch.cat([images, 3 * images])).item()
    assert loss == pytest.approx(1.937e-5, abs=1e-8)
    assert loss < 0.1 * math.log(32)


def test_views_of_other_images_cost_more_than_guessing() -> None:
    images = orthogonal(32)
    assert InfoNCELoss()(torch.cat([images, images.roll(1, 0)])).item() > math.log(32)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_paired_loss_is_the_mean_of_both_cross_entropies(tau: float) -> None:
    tokens = normal(0, 12, 3, 4)
    a, b = F.normalize(tokens.flatten(1), dim=1).chunk(2)
    similarity, images = a @ b.T / tau, torch.arange(6)
    expected = 0.5 * (F.cross_entropy(similarity, images) + F.cross_entropy(similarity.T, images))
    assert InfoNCELoss(tau)(tokens).item() == pytest.approx(expected.item(), rel=1e-5)
    assert F.cross_entropy(similarity, images).item() != pytest.approx(expected.item(), rel=1e-3)


def test_self_loss_is_the_printed_formula() -> None:
    tokens = normal(0, 6, 3, 4)
    e = F.normalize(tokens.flatten(1), dim=1)
    similarity = (e @ e.T / 0.5).exp()
    expected = -(similarity.diagonal() / similarity.sum(1)).log().mean()
    assert InfoNCELoss(tau=0.5, positives="self")(tokens).item() == pytest.approx(expected.item(), rel=1e-5)


def test_positive_of_the_self_loss_carries_no_gradient() -> None:
    """The gradient is that of the repulsion alone, in which 1 / tau stands for the similarity of an image to itself."""
    tokens = normal(0, 6, 3, 4).requires_grad_()
    (whole,) = torch.autograd.grad(InfoNCELoss(tau=0.5, positives="self")(tokens), tokens)
    e = F.normalize(tokens.flatten(1), dim=1)
    constant = (e @ e.T / 0.5).masked_fill(torch.eye(6, dtype=torch.bool), 1 / 0.5)
    (repulsion,) = torch.autograd.grad(constant.logsumexp(1).mean(), tokens)
    torch.testing.assert_close(whole, repulsion, rtol=1e-4, atol=1e-6)
    assert repulsion.abs().max() > 1e-2


def test_flattened_tokens_see_their_order_and_averaged_ones_do_not() -> None:
    """b is a with its tokens in reverse order."""
    a = normal(0, 8, 5, 4)
    tokens = torch.cat([a, a.flip(1)])
    assert InfoNCELoss(pool="mean")(tokens).item() < 0.05
    assert InfoNCELoss(pool="flatten")(tokens).item() > 0.5


def test_only_directions_count() -> None:
    tokens, scale = normal(0, 8, 3, 4), torch.arange(1, 9)[:, None, None]
    assert InfoNCELoss()(scale * tokens).item() == pytest.approx(InfoNCELoss()(tokens).item(), rel=1e-5)


def test_accuracy_is_the_share_of_views_that_find_their_image() -> None:
    images = orthogonal(4)
    assert InfoNCELoss().accuracy(torch.cat([images, images])).item() == 1
    swapped = images[[1, 0, 2, 3]]
    assert InfoNCELoss().accuracy(torch.cat([images, swapped])).item() == 0.5


def test_accuracy_asks_in_both_directions() -> None:
    """b_0 and b_1 are both nearest to a_0, but a_0 is nearest to b_0 and a_1 to b_1: three of four are right."""
    angles = torch.tensor([0.0, 1.5, 0.1, 0.6])  # a_0, a_1, b_0, b_1
    tokens = torch.stack([angles.cos(), angles.sin()], dim=1)[:, None]
    assert InfoNCELoss().accuracy(tokens).item() == 0.75


def test_accuracy_means_nothing_for_self_positives() -> None:
    with pytest.raises(ValueError, match="accuracy needs positives='pairs'"):
        InfoNCELoss(positives="self").accuracy(orthogonal(4))


def test_second_argument_is_ignored() -> None:
    tokens = normal(0, 8, 3, 4)
    assert InfoNCELoss()(tokens, {"anything": 1}).item() == InfoNCELoss()(tokens).item()


def test_similarities_are_computed_in_float32_under_autocast() -> None:
    tokens = normal(0, 8, 3, 400)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = InfoNCELoss()(tokens)
        half = InfoNCELoss()(tokens.bfloat16())
    assert value.dtype == half.dtype == torch.float32
    assert value.item() == InfoNCELoss()(tokens).item()


def test_minimizing_the_loss_makes_views_recognizable() -> None:
    """Views share a small part of what they show; a linear embedding learns to look at it."""
    shared = normal(0, 16, 1, 3)
    views = torch.cat([torch.cat([0.3 * shared, normal(seed, 16, 1, 9)], dim=2) for seed in (1, 2)])
    weight = normal(3, 12, 12).requires_grad_()
    optimizer, loss = torch.optim.Adam([weight], lr=0.05), InfoNCELoss(tau=0.2)
    before = loss.accuracy(views @ weight).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss(views @ weight).backward()
        optimizer.step()
    assert before < 0.5
    assert loss.accuracy(views @ weight).item() > 0.9


@pytest.mark.parametrize(
    ("positives", "shape"), [("pairs", (5, 3, 4)), ("pairs", (2, 3, 4)), ("self", (1, 3, 4)), ("pairs", (8, 4))]
)
def test_batches_without_pairs_or_negatives_are_refused(positives: Positives, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"InfoNCELoss: tokens .* must be \(B, L, D\) with a batch of"):
        InfoNCELoss(positives=positives)(torch.zeros(shape))


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tau=0\.0 must be positive"):
        InfoNCELoss(tau=0.0)
    with pytest.raises(ValueError, match="pool='max' is unknown; choose one of flatten, mean"):
        InfoNCELoss(pool="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positives='none' is unknown; choose one of pairs, self"):
        InfoNCELoss(positives="none")  # type: ignore[arg-type]
