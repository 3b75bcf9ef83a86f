"""scripts/benchmark.py: the forms it compares compute the same numbers, its counts and quotients are right, it runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.fft import dctn

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from benchmark import make_plan
from benchmark_latent_recipe import forward_flops, load_latent_training, made_up_latents
from benchmark_measure import Row, Stopwatch, interleaved, multiply_accumulates, peak_tflops
from benchmark_naive import MoEByMask, StraightforwardStep, tokenize_by_block, transform_by_block, use_masked_experts
from benchmark_recipe import RecipeStep, Workload, first_batch, load_recipe, made_up_slices
from benchmark_rows import ROWS, Skipped, grey_level_difference, measure_utilization

from common.frequency.codec import encode_folded, folded_matrix
from common.frequency.dct import block_dct2d
from common.networks.blocks.moe_mlp import MoEMLP
from common.networks.nets.u_vit import u_vit

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = Workload("tiny", 16, 4)


@pytest.mark.parametrize("transform", [cv2.dct, lambda block: dctn(block, norm="ortho")], ids=["cv2", "scipy"])
def test_loops_over_blocks_compute_our_tokens(transform: Any) -> None:
    """Every value of every token, at odd places, too: 48x96 is no square and 128 is not the mean."""
    images = made_up_slices(2, 96).astype(np.float32)[:, :48]
    tokens = encode_folded(torch.from_numpy(images), folded_matrix(4, 0, 500.0))
    loop = tokenize_by_block(images, 4, 500.0, transform)
    np.testing.assert_allclose(loop * 500, tokens.numpy() * 500, atol=3e-4)
    bare = transform_by_block(images, 4, transform)
    ours = block_dct2d(torch.from_numpy(images), 4)  # (N, 12, 24, 4, 4)
    np.testing.assert_allclose(bare, ours.transpose(2, 3).reshape(images.shape), atol=3e-4)


def test_difference_of_codes_is_in_grey_levels() -> None:
    """One more on the first coefficient of a block of b x b pixels is 1 / b grey level."""
    code = torch.zeros(1, 144, 64)
    other = code.clone()
    other[0, 5, 16] = 1 / 500  # first coefficient of the second block
    assert grey_level_difference(code, other.numpy(), 4, 500.0) == pytest.approx(1 / 4, rel=1e-5)


@pytest.mark.parametrize("gate", ["ste", "softmax", "renorm"])
def test_masked_experts_compute_our_mixture(gate: Any) -> None:
    """Output, gradient of the input and of every expert."""
    torch.manual_seed(0)
    ours = MoEMLP(16, num_experts=4, top_k=2, gate=gate, router_noise=0.0).double()
    simple = MoEByMask(ours).double()
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(own)[0] for layer, own in zip((ours, simple), inputs, strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1])
    ours.router.weight.grad = None
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for number, expert in enumerate(simple.experts):
        torch.testing.assert_close(ours.fc1_weight.grad[number], expert.fc1.weight.grad)
        torch.testing.assert_close(ours.fc2_bias.grad[number], expert.fc2.bias.grad)


def test_straightforward_step_trains_the_same_network(tmp_path: Path) -> None:
    """Losses, weights and moving averages agree after four steps, router noise included."""
    recipes = [load_recipe(TINY, "cpu", tmp_path, slices=40) for _ in range(2)]
    batch = first_batch(recipes[0])
    ours, simple = RecipeStep(recipes[0], amp=False), StraightforwardStep(recipes[1])
    first = float(ours(batch))
    assert first == pytest.approx(float(simple(batch)), rel=1e-5)
    for _ in range(3):
        torch.testing.assert_close(ours(batch), simple(batch), rtol=1e-3, atol=0)
    assert simple.log[0] == pytest.approx(simple.log[1] + 0.002 * simple.log[2], rel=1e-5)
    averages = dict(simple.average.named_parameters())
    shared = [name for name, _ in ours.network.named_parameters() if name in averages]
    assert len(shared) > 40
    for name in shared:
        torch.testing.assert_close(
            ours.network.get_parameter(name), simple.network.get_parameter(name), rtol=0, atol=1e-4
        )
        torch.testing.assert_close(ours.ema.model.get_parameter(name), averages[name], rtol=0, atol=1e-4)
    for name, parameter in ours.ema.model.named_parameters():
        if name.endswith("fc1_weight"):
            prefix = name.removesuffix("fc1_weight")
            experts = torch.stack([averages[f"{prefix}experts.{e}.fc1.weight"] for e in range(4)])
            torch.testing.assert_close(parameter, experts, rtol=0, atol=1e-4)
            break
    else:
        pytest.fail("no mixture layer in the network")


def test_step_of_the_recipe_is_the_step_of_its_trainer(tmp_path: Path) -> None:
    """Two iterations of the real trainer leave the weights that two calls of the step leave."""
    options = {"slices": 40, "amp": False, "max_epochs": 1, "epoch_length": 2, "val_interval": 1000}
    recipes = [load_recipe(TINY, "cpu", tmp_path, **options) for _ in range(2)]
    recipes[0].get_parsed_content("train#trainer").run()
    step = RecipeStep(recipes[1], amp=False)
    loader = recipes[1].get_parsed_content("train#dataloader")
    loader.sampler.set_epoch(1)
    for batch in loader:
        step(batch)
    trained = recipes[0].get_parsed_content("network").state_dict()
    for name, value in step.network.state_dict().items():
        torch.testing.assert_close(value, trained[name], equal_nan=True)


@pytest.mark.parametrize(
    ("grid", "layers", "giga"),
    [
        ((12, 12), "none", 19.4),
        ((12, 12), "first_last", 20.8),
        ((14, 14), "none", 26.6),
        ((14, 14), "first_last", 28.5),
    ],
    ids=["ACDC dense", "ACDC MoE", "EchoNet dense", "EchoNet MoE"],
)
def test_operations_are_those_of_the_paper_networks(grid: tuple[int, int], layers: Any, giga: float) -> None:
    with torch.device("meta"):
        backbone = u_vit("M", num_features=64, grid=grid, moe_layers=layers)
    assert multiply_accumulates(backbone) / 1e9 == pytest.approx(giga, abs=0.06)


def test_operations_agree_with_the_profiler() -> None:
    """The dense network through PyTorch's own counter, two FLOP a multiply-accumulate."""
    from torch.utils.flop_counter import FlopCounterMode

    backbone = u_vit("tiny", num_features=16, grid=(3, 3), moe_layers="none").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 9, 16), torch.zeros(1))
    assert 2 * multiply_accumulates(backbone) == counter.get_total_flops()


def test_operations_on_latents_are_those_of_each_layer(tmp_path: Path) -> None:
    """64 tokens of width 128, four blocks, two conditions; the step takes what the latent cache gives."""
    sizes = {"image_size": [64, 64], "hidden_size": 128, "depth": 4, "num_heads": 4}
    recipe = load_latent_training("cpu", tmp_path, **sizes, batch_size=6)
    n, d, c = 64, 128, 256
    block = 12 * n * d * d + 2 * n * n * d + 6 * c * d
    ends = n * (8 * 4) * d + n * d * (8 * 4) + 2 * c * d + (256 + d) * d  # patches, output, its modulation, time
    assert forward_flops(recipe) == 2 * (4 * block + ends)
    batch = made_up_latents(recipe)
    assert batch["source_mean"].shape == batch["target_logvar"].shape == (6, 4, 16, 16)
    step = RecipeStep(recipe, amp=False)
    losses = [float(step(batch)) for _ in range(3)]
    assert all(0.5 < loss < 2 for loss in losses)  # predicts 0 at first: the noise's variance of 1, and some bits


@pytest.mark.slow
def test_the_transformer_on_latents_has_the_size_of_the_paper(tmp_path: Path) -> None:
    recipe = load_latent_training("cpu", tmp_path, paper=True)
    backbone = recipe.get_parsed_content("network_def").backbone
    assert sum(p.numel() for p in backbone.parameters()) == 102_263_328
    assert forward_flops(recipe) / 1e9 == pytest.approx(21.1, abs=0.05)


def test_targets_hold_the_ratio_or_the_figure_itself() -> None:
    assert Row("", "", 3.0, 1.0, 3.0, at_least=3).met()
    assert not Row("", "", 3.0, 1.0, 2.9, at_least=3).met()
    assert Row("", "", 1.0, None, 0.04, at_most=0.05).met()
    assert not Row("", "", 1.0, at_most=0.05).met()
    assert Row("", "", 1.0).met() is None
    assert Row("a", "s", 1.23456, at_most=2).as_dict()["target"] == "<= 2"
    assert Row("a", "s", 1.23456).as_dict()["ours"] == 1.235


def test_functions_are_timed_in_turns() -> None:
    order: list[str] = []
    times = interleaved([lambda: order.append("a"), lambda: order.append("b")], seconds=0.0, rounds=3, calls=2)
    assert "".join(order) == "ab" + 3 * "aabb"  # once each before the clock starts
    assert [len(own) for own in times] == [3, 3]


def test_stopwatch_counts_the_function_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves when it is told to: 2 s inside, 5 s outside, 2 s inside."""
    now = [100.0]
    monkeypatch.setattr("benchmark_measure.time.perf_counter", lambda: now[0])

    def work(seconds: float) -> None:
        now[0] += seconds

    watch = Stopwatch(work, "cpu")
    watch(2.0)
    work(5.0)
    watch(2.0)
    assert watch.seconds == 4.0


def test_masked_experts_replace_every_mixture() -> None:
    network = use_masked_experts(u_vit("tiny", num_features=16, grid=(3, 3), moe_layers="all"))
    kinds = [type(module).__name__ for module in network.modules() if isinstance(module, MoEMLP)]
    assert kinds == ["MoEByMask"] * 4


def test_known_devices_have_a_peak_and_others_a_reason(tmp_path: Path) -> None:
    assert peak_tflops("NVIDIA H200") == peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert peak_tflops("GeForce 256") is None
    with pytest.raises(Skipped, match="needs a GPU"):
        measure_utilization(make_plan("cpu", tmp_path, quick=True))


@pytest.mark.slow
def test_whole_run_prints_one_document(tmp_path: Path) -> None:
    """From any folder; nothing else on stdout; each row of the table is there or left out with a reason."""
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--quick", "--device", "cpu", "--threads", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["machine"]["threads"] == 1
    assert [entry["name"] for entry in report["skipped"]] == [
        "utilization",
        "translation_paper",
        "latent_paper",
        "latent_step_paper",
    ]
    assert len(report["rows"]) >= len(ROWS) - 1
    for row in report["rows"]:
        assert row["ours"] > 0 or row["name"].startswith("memory"), row
        assert (row["target"] is None) == (row["met"] is None), row
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("option", "message"), [("--rows=speed", "choose among tokenizer"), ("--device=tpu", "'tpu'")])
def test_a_wrong_option_ends_with_one_sentence(option: str, message: str) -> None:
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
