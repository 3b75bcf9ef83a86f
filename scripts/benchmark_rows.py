"""The rows of ``benchmark.py``: each function measures one thing on one device and returns its rows."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from benchmark_measure import (
    Row,
    Stopwatch,
    interleaved,
    multiply_accumulates,
    outside_and_inside,
    peak_tflops,
    precision,
    rounded,
    run_alone,
)
from benchmark_naive import StraightforwardStep, tokenize_by_block, transform_by_block, use_masked_experts
from benchmark_plan import Plan, Skipped
from benchmark_recipe import RecipeStep, Workload, first_batch, load_recipe, made_up_slices

from common.diffusion.samplers import SAMPLERS, draw_noise
from common.frequency.codec import decode_folded, encode_folded, folded_inverse, folded_matrix
from common.inferers.diffusion import SamplingInferer
from common.inferers.precision import autocast, supports_bfloat16


def grey_level_difference(code: torch.Tensor, other: np.ndarray, block: int, eta: float) -> float:
    """Largest difference of the 96x96 images that two codes (N, T, 4K) stand for."""
    inverse = folded_inverse(block, 0, eta)
    side = 96 // (2 * block)
    return float(decode_folded(code - torch.from_numpy(other), inverse, grid=(side, side), shift=0).abs().max())


def measure_tokenizer(plan: Plan) -> list[Row]:
    """Encoding on all CPU cores against one call per block."""
    import cv2
    from scipy.fft import dctn

    block, eta = 4, 500.0
    images = made_up_slices(plan.tokenized, 96).astype(np.float32)
    tensor, matrix = torch.from_numpy(images), folded_matrix(block, 0, eta)
    few = images[: plan.looped]
    shifted = few - 128

    def scipy_dct(block: np.ndarray) -> np.ndarray:
        return dctn(block, norm="ortho")

    code = encode_folded(tensor[: plan.looped], matrix)
    difference = max(
        grey_level_difference(code, tokenize_by_block(few, block, eta, transform), block, eta)
        for transform in (cv2.dct, scipy_dct)
    )
    if difference > 1e-4:
        raise AssertionError(f"The tokenizers differ by {difference:.3g} grey levels; 1e-4 is allowed.")

    loops: list[tuple[str, float | None, Callable[[], object]]] = [
        ("cv2.dct", 100, lambda: transform_by_block(shifted, block, cv2.dct)),
        ("scipy.fft.dctn", 300, lambda: transform_by_block(shifted, block, scipy_dct)),
        ("cv2.dct with zigzag, scale and token layout", 100, lambda: tokenize_by_block(few, block, eta, cv2.dct)),
    ]
    functions = [lambda: encode_folded(tensor, matrix), *(loop for _, _, loop in loops)]
    ours, *others = (min(own) for own in interleaved(functions, seconds=plan.seconds, rounds=5))
    rows = []
    for (name, target, _), seconds in zip(loops, others, strict=True):
        rates = plan.tokenized / ours, plan.looped / seconds
        conditions = {
            "slices": f"{plan.tokenized} of 96x96, block {block}",
            "slices_of_the_loop": plan.looped,
            "largest_difference_grey_levels": rounded(difference),
        }
        name = f"tokenizer against a loop over blocks: {name}"
        rows.append(Row(name, "slices/s", *rates, rates[0] / rates[1], at_least=target, conditions=conditions))
    return rows


def measure_mixture(plan: Plan) -> list[Row]:
    """Training step with mixture layers (k = 2 of e = 4) against the dense network."""
    rows = []
    for work in plan.comparisons:
        recipes = [load_recipe(work, plan.device, plan.folder, moe_layers=layers) for layers in ("first_last", "none")]
        steps = [RecipeStep(recipe, amp=True) for recipe in recipes]
        batch = first_batch(recipes[0])
        functions = [partial(step, batch) for step in steps]
        times = interleaved(functions, seconds=plan.seconds, device=plan.device, calls=plan.calls)
        moe, dense = (statistics.median(own) for own in times)
        work_moe, work_dense = (multiply_accumulates(step.network.backbone) for step in steps)
        flops = work_moe / work_dense
        conditions = {
            "workload": str(work),
            "precision": precision(plan.device, True),
            "device": plan.device,
            "flop_ratio": round(flops, 3),
            "time_over_flop_ratio": round(moe / dense / flops, 3),
            "parameters": [sum(p.numel() for p in step.network.parameters()) for step in steps],
            "ratio": "MoE step / dense step",
        }
        limit = 1.10 if plan.device.startswith("cuda") else 1.15
        if flops > 1.10:
            conditions["no_target"] = (
                f"made for networks with a FLOP ratio of 1.07 to 1.10 ({limit}); this one is small"
            )
        target = limit if flops <= 1.10 else None
        name = f"MoE step against dense step, {work.network_size}"
        rows.append(Row(name, "s/step", moe, dense, moe / dense, at_most=target, conditions=conditions))
    return rows


def measure_training_step(plan: Plan) -> list[Row]:
    """Training step of the recipe against its simple form in fp32."""
    on_gpu, fast = plan.device.startswith("cuda"), supports_bfloat16(plan.device)
    rows = []
    for work in plan.comparisons:
        precisions = [True] if on_gpu else [False, True] if fast else [False]
        recipes = [load_recipe(work, plan.device, plan.folder) for _ in range(len(precisions) + 1)]
        steps: list[Any] = [RecipeStep(recipe, amp) for recipe, amp in zip(recipes[1:], precisions, strict=True)]
        steps.append(StraightforwardStep(recipes[0]))
        batch = first_batch(recipes[0])
        functions = [partial(step, batch) for step in steps]
        times = interleaved(functions, seconds=plan.seconds, device=plan.device, calls=plan.calls)
        *ours, naive = (statistics.median(own) for own in times)
        for amp, seconds in zip(precisions, ours, strict=True):
            kind = precision(plan.device, amp)
            target = 5.0 if on_gpu else {"fp32": 1.3, "bf16": 2.5}[kind]
            images = rounded(work.batch_size / seconds)
            conditions = {"workload": str(work), "device": plan.device, "images_per_s": images}
            name = f"training step, {work.network_size}, {kind}, against the simple form in fp32"
            rows.append(Row(name, "s/step", seconds, naive, naive / seconds, at_least=target, conditions=conditions))
    return rows


def measure_data(plan: Plan) -> list[Row]:
    """Share of the training loop's time that goes into getting the next batch, and the speed of the input alone."""
    from ignite.engine import Engine, Events

    recipe = load_recipe(
        plan.training, plan.device, plan.folder, max_epochs=1, epoch_length=plan.steps, val_interval=10**6
    )
    trainer = recipe.get_parsed_content("train#trainer")
    events = {"asked": Events.GET_BATCH_STARTED, "got": Events.GET_BATCH_COMPLETED, "done": Events.ITERATION_COMPLETED}
    marks: dict[str, list[float]] = {name: [] for name in events}

    def mark(engine: Engine, name: str) -> None:
        marks[name].append(time.perf_counter())

    for name, event in events.items():
        trainer.add_event_handler(event, mark, name)
    trainer.run()
    first = plan.steps // 5  # until then the caches of the math libraries fill
    waited = [got - asked for asked, got in zip(marks["asked"], marks["got"], strict=False)][first:]
    total = marks["done"][-1] - marks["asked"][first]
    share = sum(waited) / total
    conditions = {
        "workload": str(plan.training),
        "device": plan.device,
        "step_s": rounded(total / len(waited)),
        "ratio": "waiting / whole step in the real trainer with all its handlers",
    }
    rows = [Row("wait for data", "s/step", sum(waited) / len(waited), None, share, at_most=0.05, conditions=conditions)]

    pixels = 16 if plan.steps <= 10 else 96
    work = Workload("tiny", pixels, 128)
    recipe = load_recipe(work, plan.device, plan.folder, epoch_length=max(2, plan.steps // 5))
    prepare, loader = recipe.get_parsed_content("prepare_batch"), recipe.get_parsed_content("train#dataloader")

    def one_epoch() -> None:
        for batch in loader:
            prepare(batch, plan.device)

    seconds = min(interleaved([one_epoch], seconds=plan.seconds / 2, device=plan.device)[0])
    conditions = {
        "slices": f"{pixels}x{pixels}",
        "batch": work.batch_size,
        "device": plan.device,
        "includes": "encoding, times and noise",
    }
    rate = len(loader) * work.batch_size / seconds
    rows.append(Row("input pipeline alone", "slices/s", rate, at_least=2500, conditions=conditions))
    return rows


def measure_sampling(plan: Plan) -> list[Row]:
    """Images per second from noise to grey levels, and what the sampler adds to the bare network calls."""
    work, device = plan.sampling, plan.device
    networks = [load_recipe(work, device, plan.folder).get_parsed_content("network").eval() for _ in range(2)]
    fast, simple = networks[0], use_masked_experts(networks[1])
    like = torch.empty(work.batch_size, device=device)
    rows = []
    for evaluations in plan.evaluations:
        ours = SamplingInferer(num_steps=evaluations, t_end=1e-3, amp=True)
        naive = SamplingInferer(num_steps=evaluations, t_end=1e-3, amp=False)
        functions = [partial(ours, like, fast), partial(naive, like, simple)]
        times = interleaved(functions, seconds=plan.seconds, device=device, rounds=2)
        rates = [work.batch_size / min(own) for own in times]
        conditions = {
            "workload": str(work),
            "device": device,
            "precision": f"{precision(device, True)} against fp32",
            "sampler": "dpm_solver_pp_2m",
        }
        name = f"sampling with {evaluations} evaluations"
        rows.append(Row(name, "images/s", rates[0], rates[1], rates[0] / rates[1], conditions=conditions))

    noise = draw_noise((work.batch_size, *fast.token_shape), torch.Generator().manual_seed(0), device=device)
    network = Stopwatch(fast, device)

    def sample() -> None:
        with autocast(device, True):
            SAMPLERS["dpm_solver_pp_2m"](
                network, noise, fast.schedule, num_evaluations=plan.evaluations[0], clip_x0=fast.x0_range()
            )

    outside, inside = outside_and_inside(sample, network, plan.seconds / 2)
    conditions = {"workload": str(work), "device": device, "ratio": "time outside / inside the network"}
    if device.startswith("cuda"):
        conditions["upper_bound"] = "the device is waited for at each network call"
    name = f"overhead of the sampler loop, {plan.evaluations[0]} evaluations"
    rows.append(Row(name, "s", outside, inside, outside / inside, at_most=0.03, conditions=conditions))
    return rows


def measure_training_memory(plan: Plan) -> list[Row]:
    """Peak memory of the training step, on the GPU its allocator's."""
    work = plan.training
    size = {"network_size": work.network_size, "pixels": work.pixels, "batch_size": work.batch_size}
    results = [
        run_alone("training", plan.folder, form=form, device=plan.device, **size)
        for form in ("ours", "straightforward")
    ]
    key = "gpu_mb" if plan.device.startswith("cuda") else "peak_mb"
    ours, naive = (result[key] for result in results)
    conditions = {
        "workload": str(work),
        "device": plan.device,
        "precision": f"{precision(plan.device, True)} against fp32",
        "ratio": "ours / straightforward",
        "before_the_first_step_mb": rounded(results[0]["start_mb"]),
    }
    return [Row("peak memory of training", "MB", ours, naive, ours / naive, conditions=conditions)]


def measure_cache_memory(plan: Plan) -> list[Row]:
    """Growth of the peak memory with the number of volumes while the slice cache is built."""
    counts = (plan.volumes, 4 * plan.volumes)
    few, many = (run_alone("cache", plan.folder, volumes=count) for count in counts)
    growth = many["peak_mb"] - few["peak_mb"]
    data = many["cache_mb"] - few["cache_mb"]
    conditions = {
        "volumes": list(counts),
        "peak_mb": [rounded(few["peak_mb"]), rounded(many["peak_mb"])],
        "cache_mb": [rounded(few["cache_mb"]), rounded(many["cache_mb"])],
        "straightforward": "all slices held in memory",
        "ratio": "growth / growth of the cached data",
    }
    name = "memory of the slice cache with four times the cases"
    return [Row(name, "MB more", growth, data, growth / data, at_most=0.1, conditions=conditions)]


def measure_utilization(plan: Plan) -> list[Row]:
    """Share of the GPU's dense bf16 peak that the model's own operations reach in training."""
    if not plan.device.startswith("cuda"):
        raise Skipped("needs a GPU")
    device_name = torch.cuda.get_device_name(0)
    peak = peak_tflops(device_name)
    if peak is None:
        raise Skipped(f"the peak of '{device_name}' is not in benchmark_measure.PEAK_TFLOPS")
    recipe = load_recipe(plan.training, plan.device, plan.folder)
    step, batch = RecipeStep(recipe, amp=True), first_batch(recipe)
    (times,) = interleaved([partial(step, batch)], seconds=plan.seconds, device=plan.device, calls=plan.calls)
    seconds = statistics.median(times)
    flops = 2 * 3 * multiply_accumulates(step.network.backbone) * plan.training.batch_size
    rate = flops / seconds / 1e12
    conditions = {
        "workload": str(plan.training),
        "device": device_name,
        "peak_tflops": peak,
        "step_s": rounded(seconds),
    }
    name = "model FLOP utilization, bf16"
    return [Row(name, "TFLOP/s", rate, None, rate / peak, at_least=0.4, conditions=conditions)]


# name on the command line -> measurement, and whether it is of the CPU only
ROWS: dict[str, tuple[Callable[[Plan], list[Row]], bool]] = {
    "tokenizer": (measure_tokenizer, True),
    "mixture": (measure_mixture, False),
    "training_step": (measure_training_step, False),
    "data": (measure_data, False),
    "sampling": (measure_sampling, False),
    "training_memory": (measure_training_memory, False),
    "cache_memory": (measure_cache_memory, True),
    "utilization": (measure_utilization, False),
}
