"""Sorting tokens by expert, bringing them back, and what the experts compute in between."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.blocks.expert_mlps import can_group, expert_mlps, grouped_linear
from common.networks.blocks.token_dispatch import Dispatch, combine, spread

CHOICES = torch.tensor([[0, 3], [3, 0], [1, 3], [0, 1], [3, 1]])  # expert 2 is never chosen


def slices(dispatch: Dispatch) -> list[tuple[int, int]]:
    ends = dispatch.ends.tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def experts_parameters(num_experts: int, dim: int, hidden: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    shapes = [(num_experts, hidden, dim), (num_experts, hidden), (num_experts, dim, hidden), (num_experts, dim)]
    return tuple(torch.randn(shape, dtype=dtype) * 0.5 for shape in shapes)


def test_every_choice_has_a_place_of_its_own_inside_its_experts_slice() -> None:
    dispatch = Dispatch.from_choices(CHOICES, num_experts=4)
    assert dispatch.place.shape == CHOICES.shape
    assert len(set(dispatch.place.flatten().tolist())) == CHOICES.numel()
    for expert, (start, end) in enumerate(slices(dispatch)):
        inside = (dispatch.place >= start) & (dispatch.place < end)
        assert torch.equal(inside, expert == CHOICES)


def test_buffer_rows_name_the_token_that_lies_there() -> None:
    dispatch = Dispatch.from_choices(CHOICES, num_experts=4)
    tokens = torch.arange(5)[:, None].expand(5, 2)
    assert torch.equal(dispatch.source[dispatch.place], tokens)


def test_slices_on_a_cpu_come_in_few_sizes() -> None:
    """Matrix kernels in bfloat16 are compiled per size; multiples of 32 keep their number small."""
    torch.manual_seed(0)
    for num_tokens in (5, 100, 333):
        dispatch = Dispatch.from_choices(torch.rand(num_tokens, 4).topk(2).indices, num_experts=4)
        assert all((end - start) % 32 == 0 for start, end in slices(dispatch))
        assert len(dispatch.source) < 2 * num_tokens + 4 * 32


def test_combine_after_spread_multiplies_a_token_by_the_sum_of_its_weights() -> None:
    torch.manual_seed(0)
    dispatch = Dispatch.from_choices(CHOICES, num_experts=4)
    tokens, weights = torch.randn(5, 3), torch.rand(5, 2)
    torch.testing.assert_close(combine(spread(tokens, dispatch), weights, dispatch), tokens * weights.sum(1)[:, None])


def test_gradients_of_spread_and_combine_are_exact() -> None:
    torch.manual_seed(0)
    dispatch = Dispatch.from_choices(CHOICES, num_experts=4)
    tokens = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)

    def both(tokens: Tensor, weights: Tensor) -> Tensor:
        return combine(spread(tokens, dispatch).sin(), weights, dispatch)

    assert torch.autograd.gradcheck(both, (tokens, weights))


def test_rows_that_only_pad_a_slice_receive_no_gradient() -> None:
    dispatch = Dispatch.from_choices(CHOICES, num_experts=4)
    rows = torch.randn(len(dispatch.source), 3, requires_grad=True)
    combine(rows, torch.ones(5, 2), dispatch).sum().backward()
    used = torch.zeros(len(rows), dtype=torch.bool)
    used[dispatch.place.flatten()] = True
    assert torch.equal(rows.grad != 0, used[:, None].expand_as(rows))


def test_each_expert_is_an_mlp_on_its_own_slice() -> None:
    torch.manual_seed(0)
    weight1, bias1, weight2, bias2 = experts_parameters(3, 4, 6, torch.float64)
    rows, ends = torch.randn(7, 4, dtype=torch.float64), torch.tensor([2, 2, 7], dtype=torch.int32)
    y = expert_mlps(rows, weight1, bias1, weight2, bias2, ends)
    for expert, (start, end) in enumerate([(0, 2), (2, 2), (2, 7)]):
        hidden = F.gelu(F.linear(rows[start:end], weight1[expert], bias1[expert]))
        torch.testing.assert_close(y[start:end], F.linear(hidden, weight2[expert], bias2[expert]))


def test_gradients_of_the_experts_are_exact_and_zero_where_unused() -> None:
    torch.manual_seed(0)
    parameters = [p.requires_grad_() for p in experts_parameters(3, 2, 3, torch.float64)]
    rows = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    ends = torch.tensor([2, 2, 5], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda *inputs: expert_mlps(*inputs, ends), (rows, *parameters))
    expert_mlps(rows, *parameters, ends).sum().backward()
    assert all(p.grad[1].abs().max() == 0 and p.grad[2].abs().max() > 0 for p in parameters)


def test_grouped_product_equals_the_product_slice_by_slice() -> None:
    """The GPU's path; PyTorch computes grouped products on a CPU, too, only slower."""
    torch.manual_seed(0)
    rows = torch.randn(40, 16).bfloat16().requires_grad_()
    weight, bias = torch.randn(4, 24, 16).bfloat16().requires_grad_(), torch.randn(4, 24).bfloat16().requires_grad_()
    ends = torch.tensor([8, 8, 30, 40], dtype=torch.int32)
    if not can_group(rows, weight):
        pytest.skip("this PyTorch has no grouped matrix product")
    grouped = grouped_linear(rows, weight, bias, ends)
    parts = rows.split([8, 0, 22, 10])
    sliced = torch.cat([F.linear(x, w, b) for x, w, b in zip(parts, weight, bias, strict=True)])
    torch.testing.assert_close(grouped, sliced, atol=0.05, rtol=0.02)

    upstream = torch.randn_like(sliced)
    for ours, reference in zip(
        torch.autograd.grad(grouped, (rows, weight, bias), upstream),
        torch.autograd.grad(sliced, (rows, weight, bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference, atol=0.1, rtol=0.02)


@pytest.mark.parametrize(
    ("dtype", "width", "possible"), [(torch.float32, 16, False), (torch.bfloat16, 12, False)], ids=["fp32", "unaligned"]
)
def test_grouped_product_is_not_tried_on_operands_it_does_not_take(
    dtype: torch.dtype, width: int, possible: bool
) -> None:
    assert can_group(torch.zeros(4, width, dtype=dtype), torch.zeros(2, 16, width, dtype=dtype)) is possible
