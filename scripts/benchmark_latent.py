"""The rows of ``benchmark.py`` about latent translation (Med-DiT): whole volumes, their memory, training steps."""

import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmark_latent_recipe import forward_flops, load_latent_inference, load_latent_training, made_up_latents
from benchmark_measure import Row, Stopwatch, interleaved, peak_tflops, precision, rounded
from benchmark_plan import Plan, Skipped
from benchmark_recipe import RecipeStep
from benchmark_translation import network_facts, translation_memory
from benchmark_translation_recipe import slices_with_tissue, time_translation, write_volume
from monai.bundle import ConfigParser

from common.inferers.precision import supports_bfloat16


def latent_facts(recipe: ConfigParser, device: str, amp: bool = True) -> dict[str, Any]:
    """Conditions of a row: network, latents, precision."""
    network = recipe.get_parsed_content("network_def")
    return {
        **network_facts(recipe, device, amp),
        "transformer_parameters": sum(p.numel() for p in network.backbone.parameters()),
        "latent": "x".join(map(str, network.latent_shape)),
        "conditioning": network.conditioning,
        "image_encoder": network.image_encoder,
    }


def translate_latent_volume(plan: Plan, title: str, paper: bool, **overrides: Any) -> Row:
    """Seconds per slice of one volume through ``inference.json``, from file to file.

    Raises:
        AssertionError: a batch of slices was not encoded and decoded once, with one network call per step between.
    """
    volume = write_volume(plan.folder, plan.latent_volume)
    recipe = load_latent_inference(plan.device, plan.folder, paper, input_dir=str(volume), **overrides)
    network, autoencoder, steps = (
        recipe.get_parsed_content(name) for name in ("network_def", "autoencoder", "num_steps")
    )
    encode = autoencoder.encode_moments = Stopwatch(autoencoder.encode_moments, plan.device)
    condition = network.conditions = Stopwatch(network.conditions, plan.device)
    decode = autoencoder.decode = Stopwatch(autoencoder.decode, plan.device)
    times = time_translation(recipe, (encode, condition, decode))
    depth, translated = plan.latent_volume[2], slices_with_tissue(plan.latent_volume[2])
    batches = math.ceil(translated / recipe.get_parsed_content("batch_size"))
    calls = (encode.calls, condition.calls, times.network_calls, decode.calls)
    if calls != (batches, batches, steps * batches, batches):
        raise AssertionError(
            f"{calls} calls of encoder, conditioning, network and decoder for {batches} batches of slices; one of each "
            f"and {steps} of the network per batch are right."
        )
    coding = encode.seconds + condition.seconds + decode.seconds
    conditions = {
        "volume": "x".join(map(str, plan.latent_volume)),
        "slices_with_tissue": translated,
        **latent_facts(recipe, plan.device),
        "sampler": recipe.get_parsed_content("sampler"),
        "network_calls_per_batch": steps,
        "encode_s": rounded((encode.seconds + condition.seconds) / depth),
        "network_s": rounded(times.network / depth),
        "decode_s": rounded(decode.seconds / depth),
        "reading_and_preprocessing_s": rounded(times.reading / depth),
        "inversion_and_saving_s": rounded(times.saving / depth),
        "rest_s": rounded((times.rest - coding) / depth),
        "whole_volume_s": rounded(times.total),
        "ratio": "time outside / inside the network",
    }
    outside = (times.total - times.network) / times.network
    return Row(title, "s/slice", times.total / depth, None, outside, conditions=conditions)


def measure_latent_volume(plan: Plan) -> list[Row]:
    """A volume through the recipe as it stands."""
    return [translate_latent_volume(plan, "latent translation of a volume", paper=False, **plan.latent)]


def measure_paper_latent_volume(plan: Plan) -> list[Row]:
    """The same with the transformer of the paper."""
    _require_paper(plan)
    title = "latent translation of a volume, transformer of the paper"
    return [translate_latent_volume(plan, title, paper=True, num_steps=50, batch_size=64 if _on_gpu(plan) else 8)]


def measure_latent_memory(plan: Plan) -> list[Row]:
    """Peak memory of latent translation, without the volume's own arrays, for few slices and for many."""
    depths = plan.depths[0], plan.latent_volume[2]
    return [translation_memory(plan, "latent translation", depths, plan.latent, bundle="med_dit")]


def measure_latent_step(plan: Plan) -> list[Row]:
    """Training step of the recipe in fp32 and bf16."""
    amps = [False, True] if supports_bfloat16(plan.device) else [False]
    return _steps(plan, "training step of latent translation", amps, paper=False, **plan.latent)


def measure_paper_latent_step(plan: Plan) -> list[Row]:
    """The same with the transformer of the paper, in bf16 where the device has it."""
    _require_paper(plan)
    sizes = (32, 256) if _on_gpu(plan) else (4,)
    title = "training step of the paper's transformer on latents"
    rows = []
    for batch_size in sizes:
        rows += _steps(plan, f"{title}, batch {batch_size}", [True], paper=True, batch_size=batch_size)
    return rows


def _steps(plan: Plan, title: str, amps: list[bool], **settings: Any) -> list[Row]:
    """One row for each of ``amps``; all but the first are held against the first."""
    recipes = [load_latent_training(plan.device, plan.folder, **settings) for _ in amps]
    steps = [RecipeStep(recipe, amp) for recipe, amp in zip(recipes, amps, strict=True)]
    functions = [partial(step, made_up_latents(recipe)) for step, recipe in zip(steps, recipes, strict=True)]
    if _on_gpu(plan):
        torch.cuda.reset_peak_memory_stats()
    times = interleaved(functions, seconds=plan.seconds, device=plan.device, calls=plan.calls)
    flops = 3 * forward_flops(recipes[0])  # forward and backward, of one latent
    rows: list[Row] = []
    for recipe, amp, own in zip(recipes, amps, times, strict=True):
        seconds = statistics.median(own)
        rate = recipe.get_parsed_content("batch_size") / seconds
        tflops = flops * rate / 1e12
        conditions = {
            **latent_facts(recipe, plan.device, amp),
            "step_s": rounded(seconds),
            "gflop_per_image": rounded(flops / 1e9),
            "tflops": rounded(tflops),
        }
        if _on_gpu(plan):
            peak = peak_tflops(torch.cuda.get_device_name(0))
            conditions["share_of_bf16_peak"] = rounded(tflops / peak) if peak and amp else None
            conditions["gpu_memory_mb"] = rounded(torch.cuda.max_memory_allocated() / 2**20)
        plain = rows[0].ours if rows else None
        name = f"{title}, {precision(plan.device, amp)}" + (" against fp32" if plain else "")
        rows.append(Row(name, "images/s", rate, plain, rate / plain if plain else None, conditions=conditions))
    return rows


def _require_paper(plan: Plan) -> None:
    if not plan.paper:
        raise Skipped("left out of a quick run" if _on_gpu(plan) else "needs a GPU, or --full")


def _on_gpu(plan: Plan) -> bool:
    return plan.device.startswith("cuda")


# name on the command line -> measurement, and whether it is of the CPU only
ROWS: dict[str, tuple[Callable[[Plan], list[Row]], bool]] = {
    "latent": (measure_latent_volume, False),
    "latent_paper": (measure_paper_latent_volume, False),
    "latent_memory": (measure_latent_memory, False),
    "latent_step": (measure_latent_step, False),
    "latent_step_paper": (measure_paper_latent_step, False),
}
