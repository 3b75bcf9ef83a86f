"""Peak memory of one job, measured in a process of its own; started by ``benchmark.py``, prints one JSON line.

python scripts/benchmark_memory.py cache FOLDER --volumes 8
python scripts/benchmark_memory.py training FOLDER --form ours --device cpu --network_size demo --pixels 48 \\
    --batch_size 8
python scripts/benchmark_memory.py translation FOLDER --device cpu --slices 40 [--bundle med_dit]
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmark_latent_recipe import load_latent_inference
from benchmark_measure import peak_memory_mb
from benchmark_naive import StraightforwardStep
from benchmark_recipe import RecipeStep, Workload, first_batch, load_recipe
from benchmark_translation_recipe import load_inference, ready_network
from monai.bundle import ConfigParser

from common.data.slices import SliceDataset
from common.transforms.intensity import PercentileWindowd
from common.transforms.loading import LoadVolumed

VOLUME = (96, 96, 10, 10)  # pixels, slices, frames


def report(start_mb: float, **more: float) -> None:
    """Print peak memory, and how much of it came after the imports."""
    peak = peak_memory_mb()
    print(json.dumps({"peak_mb": peak, "start_mb": start_mb, **more}))


def measure_cache(folder: str, volumes: int) -> None:
    """Build the slice cache of ``volumes`` cine volumes.

    All are copies of a few files, since the cache takes each entry of the list as a volume of its own.
    """
    import nibabel
    from monai.transforms import Compose

    source = Path(folder) / "volume.nii"
    if not source.is_file():
        values = np.random.default_rng(0).integers(0, 1000, VOLUME).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), source)
    transform = Compose([LoadVolumed("image"), PercentileWindowd("image", lower=0.5, upper=99.5)])
    start = peak_memory_mb()
    items = [{"image": str(source), "patient": f"{number}", "case": f"{number}"} for number in range(volumes)]
    dataset = SliceDataset(items, transform, Path(folder) / f"cache_{volumes}", progress=False)
    report(start, cache_mb=dataset.images.nbytes / 2**20)


def measure_training(
    folder: str, form: str, device: str, network_size: str, pixels: int, batch_size: int, amp: bool = True
) -> None:
    """Three training steps, ``form`` ``ours`` or ``straightforward``."""
    start = peak_memory_mb()
    recipe = load_recipe(Workload(network_size, pixels, batch_size), device, Path(folder))
    step = RecipeStep(recipe, amp) if form == "ours" else StraightforwardStep(recipe)
    batch = first_batch(recipe)
    for _ in range(3):
        step(batch)
    gpu = torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else 0.0
    report(start, gpu_mb=gpu)


def measure_translation(
    folder: str, device: str, slices: int, settings: Mapping[str, Any] | None = None, bundle: str = "dfbk"
) -> None:
    """Translate a volume of ``slices`` that are all foreground with a bundle's ``inference.json``, some keys of it set.

    ``volume_mb`` is what it takes itself: the volume, its slices in a batch's layout, and the result.
    """
    loaders: dict[str, Callable[..., ConfigParser]] = {"dfbk": load_inference, "med_dit": load_latent_inference}
    recipe = loaders[bundle](device, Path(folder), **(settings or {}))
    network, inferer = ready_network(recipe), recipe.get_parsed_content("inferer")
    on_gpu = device.startswith("cuda")
    start = torch.cuda.memory_allocated() / 2**20 if on_gpu else peak_memory_mb()
    volume = torch.rand(1, 1, *network.image_size, slices, device=device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    inferer(volume, network)
    arrays = (2 + inferer.num_samples) * volume.nbytes / 2**20
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory_mb()
    print(json.dumps({"peak_mb": peak, "start_mb": start, "volume_mb": arrays}))


if __name__ == "__main__":
    fire.Fire({"cache": measure_cache, "training": measure_training, "translation": measure_translation})
