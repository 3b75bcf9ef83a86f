"""Usage of a codebook where it is known."""

import pytest
import torch

from common.metrics.codebook_usage import CodebookUsage, code_usage


@pytest.mark.parametrize("number", [1, 7, 64])
def test_equal_use_of_all_codes_has_their_number_as_perplexity(number: int) -> None:
    usage = code_usage(torch.full((number,), 5))
    assert usage.share == 1
    assert usage.perplexity == pytest.approx(number)


def test_a_single_code_has_perplexity_one() -> None:
    assert code_usage(torch.tensor([0, 9, 0, 0])) == pytest.approx((0.25, 1.0))


def test_three_to_one_has_its_hand_value() -> None:
    """exp(-0.75 ln 0.75 - 0.25 ln 0.25) = 4 / 3^0.75."""
    assert code_usage(torch.tensor([3, 0, 1, 0, 0])) == pytest.approx((2 / 5, 1.7548), rel=1e-4)


def test_an_epoch_counts_all_of_its_batches_and_not_the_former_one() -> None:
    """Each batch uses half of the codes; together they use all."""
    metric = CodebookUsage(4)
    metric.update(torch.tensor([[0, 0], [0, 0]]))
    metric.reset()
    metric.update(torch.tensor([[[0, 1], [1, 0]]]))
    metric.update(torch.tensor([2, 3, 3, 2]))
    assert metric.compute() == pytest.approx((1.0, 4.0))
    assert metric.compute() == pytest.approx((1.0, 4.0))


def test_nothing_counted_is_an_error() -> None:
    with pytest.raises(ValueError, match="no use of any code was counted"):
        CodebookUsage(4).compute()
