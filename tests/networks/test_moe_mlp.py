"""The mixture-of-experts layer against a loop over single tokens."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.blocks.moe_mlp import Gate, Mlp, MoEMLP

GATES: list[Gate] = ["ste", "softmax", "renorm"]


def layer(num_experts: int = 4, top_k: int = 2, gate: Gate = "ste", noise: float = 0.0) -> MoEMLP:
    """A small layer whose router and biases are far from their near-zero start."""
    torch.manual_seed(0)
    moe = MoEMLP(8, 2.0, num_experts, top_k, gate, noise)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return moe


def expert(moe: MoEMLP, index: int, token: Tensor) -> Tensor:
    hidden = F.gelu(moe.fc1_weight[index] @ token + moe.fc1_bias[index])
    return moe.fc2_weight[index] @ hidden + moe.fc2_bias[index]


def token_by_token(moe: MoEMLP, x: Tensor) -> Tensor:
    """The definition: ``sum_{i in top_k} w_i E_i(x)``, no sorting, no batching; x ``(B, N, D)``."""
    outputs = []
    for token in x.flatten(0, 1):
        probs = (moe.router.weight @ token).softmax(0)
        chosen = probs.argsort(descending=True)[: moe.top_k]
        total = probs[chosen].sum()
        y = torch.zeros_like(token)
        for i in chosen.tolist():
            weight = {"ste": 1 + probs[i] - probs[i].detach(), "softmax": probs[i], "renorm": probs[i] / total}
            y = y + weight[moe.gate] * expert(moe, i, token)
        outputs.append(y)
    return torch.stack(outputs).view_as(x)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 2), (3, 3), (5, 4)])
def test_values_and_gradients_equal_the_definition(gate: Gate, num_experts: int, top_k: int) -> None:
    moe = layer(num_experts, top_k, gate)
    x = torch.randn(2, 9, 8, requires_grad=True)
    y, expected = moe(x)[0], token_by_token(moe, x)
    torch.testing.assert_close(y, expected)

    upstream = torch.randn_like(y)
    inputs = [x, *moe.parameters()]
    ours, reference = torch.autograd.grad(y, inputs, upstream), torch.autograd.grad(expected, inputs, upstream)
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_ste_gate_adds_the_outputs_of_the_chosen_experts_unweighted() -> None:
    moe = layer(gate="ste")
    x = torch.randn(1, 6, 8)
    y, probs = moe(x)
    for token, row, p in zip(x[0], y[0], probs[0], strict=True):
        chosen = p.argsort(descending=True)[:2].tolist()
        torch.testing.assert_close(row, sum(expert(moe, i, token) for i in chosen))


@pytest.mark.parametrize("gate", GATES)
def test_router_learns_under_every_gate(gate: Gate) -> None:
    moe = layer(gate=gate)
    moe(torch.randn(2, 9, 8))[0].square().sum().backward()
    assert moe.router.weight.grad.abs().max() > 1e-4


def test_all_experts_alike_and_chosen_is_the_dense_layer() -> None:
    moe, mlp = layer(num_experts=3, top_k=3, gate="renorm"), Mlp(8, 2.0)
    with torch.no_grad():
        for name, tensor in mlp.named_parameters():
            moe.get_parameter(name.replace(".", "_")).copy_(tensor.expand(3, *tensor.shape))
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(moe(x)[0], mlp(x))


def test_permuting_tokens_permutes_outputs() -> None:
    moe, x, order = layer(), torch.randn(2, 9, 8), torch.randperm(9)
    torch.testing.assert_close(moe(x[:, order])[0], moe(x)[0][:, order])


def test_router_noise_is_of_training_only() -> None:
    moe, x = layer(noise=0.5), torch.randn(2, 9, 8)
    assert not torch.equal(moe(x)[1], moe(x)[1])
    moe.eval()
    assert torch.equal(moe(x)[1], moe(x)[1])
    torch.testing.assert_close(moe(x)[1], (x @ moe.router.weight.T).softmax(-1))


def test_router_noise_has_the_stated_deviation_on_the_logits() -> None:
    moe, x = layer(noise=0.3), torch.randn(1, 4000, 8)
    logits = moe.route(x).log()  # up to a constant per token
    noise = logits - (x @ moe.router.weight.T)
    spread = (noise - noise.mean(-1, keepdim=True)).std() * (4 / 3) ** 0.5  # the constant takes one of four degrees
    assert spread.item() == pytest.approx(0.3, rel=0.03)


def test_untrained_router_of_zeros_still_chooses_distinct_experts() -> None:
    """All probabilities tie; were an expert chosen twice, fewer than k would contribute their bias."""
    moe = layer(num_experts=4, top_k=3, gate="ste")
    with torch.no_grad():
        moe.router.weight.zero_()
        moe.fc2_weight.zero_()
        moe.fc2_bias.copy_(10.0 ** torch.arange(4)[:, None].expand(4, 8))  # digits tell who took part
    digits = {str(int(value)) for value in moe(torch.randn(1, 5, 8))[0][..., 0].flatten()}
    assert all(set(d) <= {"0", "1"} and d.count("1") == 3 for d in digits)


def test_every_expert_has_a_gradient_even_if_no_token_chose_it() -> None:
    """Hence DistributedDataParallel needs no search for unused parameters."""
    moe = layer()
    with torch.no_grad():
        moe.router.weight.copy_(torch.tensor([5.0, 4.0, -5.0, -5.0])[:, None].expand(4, 8))
    moe(torch.rand(2, 9, 8) + 0.1)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in moe.parameters())
    assert moe.fc1_weight.grad[2:].abs().max() == 0
    assert all(moe.fc1_weight.grad[i].abs().max() > 0 for i in (0, 1))


def test_autocast_runs_experts_in_bfloat16_and_the_router_in_float32() -> None:
    moe, x = layer(gate="renorm"), torch.randn(2, 9, 8)
    y, probs = moe(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, same_probs = moe(x)
    assert torch.equal(probs, same_probs)
    assert 0 < (rounded - y).norm() < 0.02 * y.norm()


@pytest.mark.gpu
def test_gpu_step_in_bfloat16_never_waits_for_the_device_and_agrees_with_the_cpu() -> None:
    torch.manual_seed(0)
    moe = MoEMLP(64, 4.0, 4, 2, "renorm", 0.0)
    x = torch.randn(4, 50, 64)
    expected = moe(x)[0]
    moe, x = moe.cuda(), x.cuda()
    with torch.autocast("cuda", torch.bfloat16):
        moe(x)[0].sum().backward()  # warm up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            y = moe(x)[0]
        y.float().square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (y.cpu().float() - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 5}, r"top_k=5 must lie in 1..num_experts=4"),
        ({"top_k": 0}, r"top_k=0 must lie"),
        ({"gate": "hard"}, "gate='hard' is unknown; choose one of ste, softmax, renorm"),
        ({"gate": "renorm", "top_k": 1}, "the router cannot learn"),
    ],
)
def test_impossible_mixtures_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoEMLP(8, **arguments)
