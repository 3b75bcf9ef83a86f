"""The recipes of DFBK on made-up images, for ``benchmark.py``: training step and translation of a volume."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from benchmark_measure import Stopwatch, wait_for
from benchmark_recipe import made_up_slices, read_recipe
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import IterationEvents
from torch import Tensor

from common.allocator import keep_freed_memory
from common.state_files import load_weights

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "dfbk"
FIELD_OF_VIEW_MM = 240.0
_TEXT = {
    "_target_": "common.data.text_embeddings.text_tokens", "source": "table", "task": "t1_flair", "dataset": "a_phantom"
}  # fmt: skip


def write_volume(folder: Path, shape: tuple[int, int, int]) -> Path:
    """A made-up MR volume without skull as NIfTI, 240 mm wide: textured tissue in an ellipsoid, elsewhere 0.

    As in real ones, slices at either end are blank (see :func:`slices_with_tissue`); in all others 7 % of the field of
    view and more is tissue.
    """
    path = folder / f"head_{'x'.join(map(str, shape))}.nii.gz"
    if not path.is_file():
        x, y, z = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij", sparse=True)
        tissue = (x / 0.58) ** 2 + (y / 0.71) ** 2 + z**2 < 1
        blank = (shape[2] - slices_with_tissue(shape[2])) // 2
        tissue[..., :blank] = tissue[..., shape[2] - blank :] = False
        noise = np.random.default_rng(0).normal(0, 30, shape)
        texture = 600 + 150 * np.cos(9 * x) * np.cos(7 * y) * np.cos(5 * z) + noise
        spacing = [FIELD_OF_VIEW_MM / shape[0], FIELD_OF_VIEW_MM / shape[1], 1.0]
        image = nibabel.Nifti1Image((texture * tissue).clip(0).astype(np.int16), np.diag([*spacing, 1.0]))
        nibabel.save(image, path)
    return path


def slices_with_tissue(depth: int) -> int:
    """Of a volume that :func:`write_volume` makes."""
    return depth - 2 * (depth // 16)


def load_training(device: str, folder: Path, *overlays: str, **overrides: Any) -> ConfigParser:
    """``train.json`` of DFBK with overlays by their names, see ``read_recipe``; it does not know of any data set."""
    keep_freed_memory()  # as every recipe does when it begins
    settings = {
        "bundle_root": str(BUNDLE),
        "output_dir": str(folder / "output"),
        "ckpt_dir": str(folder / "models"),
        "device": device,
        "decay_steps": 10_000,
        "network_def#target_level": 1000.0,
        **overrides,
    }
    return read_recipe([_config(name) for name in ("train", *overlays)], settings)


def made_up_pairs(recipe: ConfigParser) -> dict[str, Tensor]:
    """A batch of sources and their negatives as targets, (B, 1, X, Y) in [-1, 1], on the recipe's device."""
    part = recipe.get_parsed_content
    slices = torch.from_numpy(made_up_slices(part("batch_size"), part("image_size")[0]))
    source = (slices[:, None].float() / 127.5 - 1).to(part("device"))
    return {"source": source, "target": -source}


def load_inference(device: str, folder: Path, *overlays: str, **overrides: Any) -> ConfigParser:
    """``inference.json`` of DFBK with overlays by their names, see ``read_recipe``, and a file of untrained weights."""
    keep_freed_memory()
    files = [_config(name) for name in ("inference", *overlays)]
    weights = folder / "untrained.pt"
    settings = {"load_path": str(weights), "output_dir": str(folder / "translated"), "device": device, **overrides}
    recipe = ConfigParser()
    recipe.read_config([str(file) for file in files])
    recipe.update({**settings, "device": "cpu", "network_def#text": _TEXT, "network_def#target_level": 1000.0})
    torch.manual_seed(0)
    torch.save(recipe.get_parsed_content("network_def").state_dict(), weights)
    return read_recipe(files, settings)


def ready_network(recipe: ConfigParser) -> Any:
    """The network of a translation bundle's ``inference.json`` as it is when the first volume comes."""
    network = recipe.get_parsed_content("network_def")
    load_weights(network, recipe.get_parsed_content("load_path"))
    return network.eval()


@dataclass(frozen=True)
class VolumeTimes:
    """Where the seconds of one volume went: reading and preprocessing, network, inversion and saving, all else."""

    reading: float
    network: float
    saving: float
    rest: float
    network_calls: int

    @property
    def total(self) -> float:
        return self.reading + self.network + self.saving + self.rest


def time_translation(recipe: ConfigParser, parts: Sequence[Stopwatch] = ()) -> VolumeTimes:
    """Translate the one volume of ``inference.json`` twice, by its own evaluator; times of the second run.

    The device is waited for at each network call. Loading of the weights, once per run, is not counted. ``parts`` are
    around other functions that the inferer calls; their times are in ``rest``.
    """
    device, network = (recipe.get_parsed_content(name) for name in ("device", "network"))
    evaluator = recipe.get_parsed_content("evaluator")
    watch = network.forward = Stopwatch(network.forward, device)
    marks: dict[str, float] = {}

    def mark(engine: Engine, name: str) -> None:
        wait_for(device)
        marks[name] = time.perf_counter()

    events = {
        "asked": Events.GET_BATCH_STARTED,
        "read": Events.GET_BATCH_COMPLETED,
        "translated": IterationEvents.FORWARD_COMPLETED,
        "saved": Events.ITERATION_COMPLETED,
    }
    for name, event in events.items():
        evaluator.add_event_handler(event, partial(mark, name=name))
    for _ in range(2):
        for each in (watch, *parts):
            each.reset()
        evaluator.run()
    return VolumeTimes(
        reading=marks["read"] - marks["asked"],
        network=watch.seconds,
        saving=marks["saved"] - marks["translated"],
        rest=marks["translated"] - marks["read"] - watch.seconds,
        network_calls=watch.calls,
    )


def _config(name: str) -> Path:
    return BUNDLE / "configs" / f"{name}.json"
