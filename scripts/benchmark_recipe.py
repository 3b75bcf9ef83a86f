"""Recipes on made-up slices, and their training step outside of the engine, for ``benchmark.py``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image
from torch import Tensor, nn

TRAIN_CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "dct_moe" / "configs" / "train.json"


@dataclass(frozen=True)
class Workload:
    """A network on square images of ``pixels`` x ``pixels``, ``batch_size`` at a time."""

    network_size: str
    pixels: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.network_size}, {self.pixels}x{self.pixels} px, batch {self.batch_size}"


def made_up_slices(count: int, pixels: int, seed: int = 0) -> np.ndarray:
    """Grey levels (N, pixels, pixels) uint8: a bright disc on a dark, noisy ramp, no two alike."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:pixels, :pixels] / pixels
    images = np.empty((count, pixels, pixels), np.uint8)
    for image in images:
        center, radius = random.uniform(0.3, 0.7, 2), random.uniform(0.1, 0.3)
        disc = np.hypot(x - center[0], y - center[1]) < radius
        image[:] = (20 + 60 * x + 120 * disc + random.normal(0, 5, image.shape)).clip(0, 255)
    return images


def write_slices(folder: Path, count: int, pixels: int) -> Path:
    """Made-up slices as PNG files, a patient each; returns their folder, which is made if it is not there."""
    target = folder / f"slices_{count}_{pixels}"
    if not target.is_dir():
        target.mkdir(parents=True)
        for number, image in enumerate(made_up_slices(count, pixels)):
            Image.fromarray(image).save(target / f"slice_{number:05d}.png")
    return target


def load_recipe(work: Workload, device: str, folder: Path, slices: int = 400, **overrides: Any) -> ConfigParser:
    """``train.json`` of DCT-MoE for a workload, see :func:`read_recipe`.

    Args:
        work: network, image and batch size.
        device: where to train.
        folder: for made-up slices, cache and outputs.
        slices: number of made-up slices.
        overrides: other keys of the config.
    """
    settings = {
        "dataset": "image_folder",
        "dataset_dir": str(write_slices(folder, slices, work.pixels)),
        "output_dir": str(folder / "output"),
        "ckpt_dir": str(folder / "models"),
        "image_size": [work.pixels, work.pixels],
        "spacing_mm": None,
        "device": device,
        "network_size": work.network_size,
        "batch_size": work.batch_size,
        "num_val_samples": 8,
        **overrides,
    }
    return read_recipe([TRAIN_CONFIG], settings)


def read_recipe(files: Sequence[Path], settings: Mapping[str, Any]) -> ConfigParser:
    """A config and its overlays with some keys set; the network is built, the rest when it is asked for.

    Two recipes of one architecture start from the same weights.

    Raises:
        KeyError: no file has a key.
    """
    recipe = ConfigParser()
    recipe.read_config([str(file) for file in files])
    for key, value in settings.items():
        if key not in recipe:
            raise KeyError(f"{files[0]} has no key '{key}' any more; adapt scripts/benchmark*_recipe.py.")
        recipe[key] = value
    torch.manual_seed(0)
    recipe.get_parsed_content("network")
    return recipe


def first_batch(recipe: ConfigParser) -> dict[str, Tensor]:
    """A batch of the recipe's own loader, on its device."""
    batch = next(iter(recipe.get_parsed_content("train#dataloader")))
    return {key: value.to(recipe.get_parsed_content("device")) for key, value in batch.items()}


class RecipeStep:
    """Training step made of the recipe's own parts, in the order of the trainer.

    Random numbers, encoding, noise, forward, loss, backward, clipping, AdamW, schedule and moving average.

    Args:
        recipe: a parsed ``train.json``.
        amp: bf16 where the device has it.
    """

    def __init__(self, recipe: ConfigParser, amp: bool) -> None:
        part = recipe.get_parsed_content
        self.network, self.ema, self.clip_norm = part("network").train(), part("ema"), part("clip_norm")
        self.prepare_batch, self.loss, self.device = part("prepare_batch"), part("loss"), part("device")
        self.randomness, self.inferer = part("randomness"), part("train#inferer")
        self.inferer.amp = amp
        self.optimizer, self.lr_scheduler = part("optimizer"), part("lr_scheduler")
        self.iteration = 0

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        self.iteration += 1
        self.randomness.start(self.iteration)
        x0, target, _, drawn = self.prepare_batch(batch, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.inferer(x0, self.network, **drawn), target)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm, foreach=True)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.ema.update(self.iteration)
        return loss.detach()
