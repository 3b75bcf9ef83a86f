"""The rows of ``benchmark.py`` about translation (DFBK): whole volumes, their memory, training steps, the sampler."""

import math
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from benchmark_measure import Row, Stopwatch, interleaved, outside_and_inside, precision, rounded, run_alone
from benchmark_plan import Plan, Skipped
from benchmark_recipe import RecipeStep
from benchmark_translation_recipe import (
    load_inference,
    load_training,
    made_up_pairs,
    ready_network,
    slices_with_tissue,
    time_translation,
    write_volume,
)
from monai.bundle import ConfigParser
from torch import nn

from common.inferers.precision import supports_bfloat16


def network_facts(recipe: ConfigParser, device: str, amp: bool = True) -> dict[str, Any]:
    """The part of a row's conditions that tells which network ran, and how."""
    network, batch_size = (recipe.get_parsed_content(name) for name in ("network_def", "batch_size"))
    kernels = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    nhwc = all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    return {
        "network": f"{network.image_size[0]}x{network.image_size[1]} px, batch {batch_size}",
        "parameters": sum(p.numel() for p in network.parameters()),
        "device": device,
        "precision": precision(device, amp),
        "memory_format": "channels_last" if nhwc else "contiguous",
    }


def translate_volume(plan: Plan, title: str, *overlays: str, **overrides: Any) -> Row:
    """Seconds per slice of one volume through ``inference.json``, from file to file.

    Raises:
        AssertionError: a batch of slices did not go through the network once per step of the schedule.
    """
    volume = write_volume(plan.folder, plan.volume)
    recipe = load_inference(plan.device, plan.folder, *overlays, input_dir=str(volume), **overrides)
    times = time_translation(recipe)
    depth, translated = plan.volume[2], slices_with_tissue(plan.volume[2])
    batches = math.ceil(translated / recipe.get_parsed_content("batch_size"))
    steps = recipe.get_parsed_content("num_diffusion_steps")
    if times.network_calls != steps * batches:
        raise AssertionError(
            f"{times.network_calls} network calls for {batches} batches of slices; {steps} per batch are right."
        )
    conditions = {
        "volume": "x".join(map(str, plan.volume)),
        "slices_with_tissue": translated,
        **network_facts(recipe, plan.device),
        "network_calls_per_batch": steps,
        "network_s": rounded(times.network / depth),
        "reading_and_preprocessing_s": rounded(times.reading / depth),
        "inversion_and_saving_s": rounded(times.saving / depth),
        "rest_s": rounded(times.rest / depth),
        "whole_volume_s": rounded(times.total),
        "ratio": "time outside / inside the network",
    }
    outside = (times.total - times.network) / times.network
    return Row(title, "s/slice", times.total / depth, None, outside, conditions=conditions)


def measure_volume(plan: Plan) -> list[Row]:
    """A volume through the recipe as it stands."""
    return [translate_volume(plan, "translation of a volume", **plan.translation)]


def measure_paper_volume(plan: Plan) -> list[Row]:
    """The same with the network of the paper."""
    if not plan.device.startswith("cuda"):
        raise Skipped("needs a GPU")
    if not plan.paper:
        raise Skipped("left out of a quick run")
    try:
        return [translate_volume(plan, "translation of a volume, network of the paper", "paper_brats_inference")]
    except torch.OutOfMemoryError as error:
        free = torch.cuda.get_device_properties(0).total_memory / 2**30
        raise Skipped(f"the network of the paper does not fit the {free:.0f} GiB of this GPU") from error


def translation_memory(
    plan: Plan, title: str, depths: tuple[int, int], settings: Mapping[str, Any], bundle: str
) -> Row:
    """Peak memory of translating by a bundle, without the volume's own arrays, for few slices and for many."""
    few, many = (
        run_alone("translation", plan.folder, device=plan.device, slices=depth, settings=dict(settings), bundle=bundle)
        for depth in depths
    )
    beyond = [result["peak_mb"] - result["start_mb"] - result["volume_mb"] for result in (few, many)]
    conditions = {
        "slices": list(depths),
        "device": plan.device,
        "peak_mb": [rounded(few["peak_mb"]), rounded(many["peak_mb"])],
        "arrays_of_the_volume_mb": [rounded(few["volume_mb"]), rounded(many["volume_mb"])],
        "straightforward": "the same for the smaller volume",
        "ratio": "larger / smaller volume",
    }
    name = f"memory of {title} beyond the volume's own arrays"
    ratio = beyond[1] / beyond[0]
    return Row(name, "MB", beyond[1], beyond[0], ratio, at_most=1.1, conditions=conditions)


def measure_volume_memory(plan: Plan) -> list[Row]:
    """Peak memory of translating, without the volume's own arrays, for few slices and for many."""
    return [translation_memory(plan, "translation", plan.depths, plan.translation, bundle="dfbk")]


def measure_translation_step(plan: Plan) -> list[Row]:
    """Training step of the recipe in fp32 and bf16, and what each module adds to the plain Swin-UNet."""

    def seconds_per_step(overlays: list[tuple[str, ...]], amps: list[bool]) -> tuple[list[ConfigParser], list[float]]:
        recipes = [load_training(plan.device, plan.folder, *names, **plan.translation) for names in overlays]
        steps = [RecipeStep(recipe, amp) for recipe, amp in zip(recipes, amps, strict=True)]
        functions = [partial(step, made_up_pairs(recipe)) for step, recipe in zip(steps, recipes, strict=True)]
        times = interleaved(functions, seconds=plan.seconds, device=plan.device, calls=plan.calls)
        return recipes, [statistics.median(own) for own in times]

    rows = []
    amps = [False, True] if supports_bfloat16(plan.device) else [False]
    recipes, seconds = seconds_per_step([()] * len(amps), amps)
    for recipe, amp, own in zip(recipes, amps, seconds, strict=True):
        batch_size = recipe.get_parsed_content("batch_size")
        rate, plain_rate = batch_size / own, batch_size / seconds[0]
        conditions = {**network_facts(recipe, plan.device, amp), "step_s": rounded(own)}
        name = f"training step of translation, {precision(plan.device, amp)}"
        if amp:
            rows.append(
                Row(f"{name} against fp32", "images/s", rate, plain_rate, rate / plain_rate, conditions=conditions)
            )
        else:
            rows.append(Row(name, "images/s", rate, conditions=conditions))

    modules = {"frequency balance": "ablation_dfb", "knowledge guidance": "ablation_kg", "both": None}
    overlays: list[tuple[str, ...]] = [("ablation_none",), *((name,) if name else () for name in modules.values())]
    recipes, (plain, *others) = seconds_per_step(overlays, [True] * len(overlays))
    for title, recipe, own in zip(modules, recipes[1:], others, strict=True):
        conditions = {**network_facts(recipe, plan.device), "ratio": "step with / step of the plain Swin-UNet"}
        rows.append(Row(f"training step with {title}", "s/step", own, plain, own / plain, conditions=conditions))
    return rows


def measure_translation_sampler(plan: Plan) -> list[Row]:
    """What the inferer adds to the bare network calls, one per step and batch."""
    recipe = load_inference(plan.device, plan.folder, **plan.translation)
    network, inferer = ready_network(recipe), recipe.get_parsed_content("inferer")
    depth = 2 * recipe.get_parsed_content("batch_size")
    volume = torch.rand(1, 1, *network.image_size, depth, device=plan.device)  # all of it foreground
    watch = network.forward = Stopwatch(network.forward, plan.device)
    outside, inside = outside_and_inside(partial(inferer, volume, network), watch, plan.seconds / 2)
    conditions = {"slices": depth, **network_facts(recipe, plan.device), "ratio": "time outside / inside the network"}
    if plan.device.startswith("cuda"):
        conditions["upper_bound"] = "the device is waited for at each network call"
    name = f"overhead of the translation sampler, {network.schedule.num_steps} evaluations"
    return [Row(name, "s", outside, inside, outside / inside, at_most=0.03, conditions=conditions)]


# name on the command line -> measurement, and whether it is of the CPU only
ROWS: dict[str, tuple[Callable[[Plan], list[Row]], bool]] = {
    "translation": (measure_volume, False),
    "translation_paper": (measure_paper_volume, False),
    "translation_memory": (measure_volume_memory, False),
    "translation_step": (measure_translation_step, False),
    "translation_sampler": (measure_translation_sampler, False),
}
