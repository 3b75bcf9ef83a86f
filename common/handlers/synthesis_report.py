"""Scores of an unconditional generator, each beside the same score of real images; CSV, JSON and a picture."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from ..atomic import atomic_path, write_text
from ..metrics.frechet import Moments, feature_moments, frechet_distance, grid_features
from ..metrics.nearest import nearest_neighbors
from ..metrics.reference import ReferenceImages
from ..metrics.seams import neighbor_steps
from ..metrics.spectrum import radial_power_spectrum, spectrum_distance
from ..parallel import gather, process_rank
from ..pictures import image_grid
from ..seeds import Stream, derive_seed
from .commit import commit

UNITS = {
    "frechet_distance": "squared distance of 8x8 area means, images in [0, 1]; lower is better",
    "spectrum_distance": "mean |ln ratio| of radial power; lower is better",
    "seam_ratio": "mean |step| across token borders / elsewhere; that of real images is right",
    "nearest_training_distance": "L2 of 16x16 area means; clearly below held-out images means copying",
}
BOOTSTRAP_ROUNDS = 100


class SynthesisReport:
    """Collects generated and held-out images of an evaluation and writes what a reader needs to judge the generator.

    - ``metrics.json``: every score of the generated images with its bootstrap standard deviation, the same score of
      held-out images (the floor: other patients) and of a random part of the training images (the floor: sampling);
    - ``metrics_cases.csv``: per generated image its nearest training slice and the distance, its seam ratio;
    - ``report.png``: held-out images, samples, the samples' nearest training slices, spectra, distances.

    The reference of all scores are training slices. Scores of different numbers of images do not compare, so the floors
    use as many images as there are (``n`` of each is stated).

    Args:
        output_dir: folder for the three files.
        reference: training slices.
        describe: text for a data-set index of a training slice.
        token_size: side of a token in pixels.
        record: what else to state: data set, seed, sampler, weights file, ...
    """

    def __init__(
        self,
        output_dir: str | Path,
        reference: ReferenceImages,
        describe: Callable[[int], str],
        token_size: int,
        record: Mapping[str, Any],
    ) -> None:
        self.output_dir = Path(output_dir)
        self.reference = reference
        self.describe = describe
        self.token_size = token_size
        self.record = dict(record)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator; its output has ``pred`` and ``label`` (B, 1, X, Y) in [0, 1], its batch ``index``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._parts.clear)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.collect)  # before batches are taken apart
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def collect(self, engine: Engine) -> None:
        """Keep the images of a batch."""
        output, batch = cast(dict, engine.state.output), cast(dict, engine.state.batch)
        samples = output["pred"].detach().float()
        index = torch.as_tensor(batch["index"], device=samples.device)
        self._parts.append((index, samples, output["label"].detach().float()))

    def write(self) -> None:
        """Gather the images of all processes, score them, write the files on rank 0."""
        index, samples, real = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        index, samples, real = (gather(part).cpu() for part in (index, samples, real))
        if process_rank() != 0:
            return
        order = index.argsort()
        samples, real = samples[order], real[order]
        real = real.unique(dim=0)  # a small section gives the same slice more than once
        training = self.reference.images
        sample_distances, nearest = nearest_neighbors(samples, training)
        distances = {"samples": sample_distances, "held_out": nearest_neighbors(real, training)[0]}
        write_text(self.output_dir / "metrics.json", json.dumps(self.scores(samples, real, distances), indent=2) + "\n")
        self.write_cases(samples, distances["samples"], nearest)
        self.draw(samples, real, training[nearest[:16]], distances)

    def scores(self, samples: Tensor, real: Tensor, distances: Mapping[str, Tensor]) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        training = self.reference.images
        generator = torch.Generator().manual_seed(derive_seed(Stream.SCORE, 0, len(samples)))
        part = training[torch.randperm(len(training), generator=generator)[: len(samples)]]
        groups = {"samples": samples, "held_out": real, "training_part": part}
        moments, spectrum = self.reference.moments(), radial_power_spectrum(training).mean((0, 1))
        result: dict[str, Any] = {"protocol": "common.handlers.synthesis_report", **self.record, "commit": commit()}
        result["n"] = {**{name: len(images) for name, images in groups.items()}, "training": len(training)}
        result["scores"] = {name: {"meaning": text} for name, text in UNITS.items()}
        for group, images in groups.items():
            quantities: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
                "frechet_distance": (grid_features(images), partial(_frechet, moments=moments)),
                "spectrum_distance": (
                    radial_power_spectrum(images).mean(1),
                    lambda x: spectrum_distance(x.mean(0), spectrum),
                ),
                "seam_ratio": (neighbor_steps(images, self.token_size), lambda x: x[:, 0].mean() / x[:, 1].mean()),
            }
            if group in distances:
                quantities["nearest_training_distance"] = (distances[group][:, None], lambda x: x.mean())
            for name, (per_image, score) in quantities.items():
                draws = torch.randint(len(per_image), (BOOTSTRAP_ROUNDS, len(per_image)), generator=generator)
                spread = torch.stack([score(per_image[draw]) for draw in draws]).std()
                result["scores"][name][group] = {"value": score(per_image).item(), "bootstrap_sd": spread.item()}
        return result

    def write_cases(self, samples: Tensor, distances: Tensor, nearest: Tensor) -> None:
        """Write ``metrics_cases.csv``."""
        steps = neighbor_steps(samples, self.token_size)
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["sample", "nearest_training_distance", "nearest_training_slice", "seam_ratio"])
        for number, (distance, position) in enumerate(zip(distances.tolist(), nearest.tolist(), strict=True)):
            slice_name = self.describe(self.reference.indices[position])
            rows.writerow(
                [number, f"{distance:.4f}", slice_name, f"{(steps[number, 0] / steps[number, 1]).item():.4f}"]
            )
        write_text(self.output_dir / "metrics_cases.csv", text.getvalue())

    def draw(self, samples: Tensor, real: Tensor, nearest: Tensor, distances: Mapping[str, Tensor]) -> None:
        """Write ``report.png``."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 7.8), layout="constrained")
        panels = figure.subplot_mosaic([["real", "real", "samples", "samples"], ["pairs", "pairs", "near", "power"]])
        for name, images, title in (
            ("real", _spread(real, 32), "held-out images of the data set"),
            ("samples", samples[:32], "samples (synthetic, not selected)"),
            ("pairs", _interleave(samples[:16], nearest), "16 samples, each above its nearest training slice"),
        ):
            panels[name].imshow(image_grid(images, columns=8, scale=2))
            panels[name].set_title(title)
            panels[name].set_axis_off()
        bins = torch.linspace(0, max(d.max().item() for d in distances.values()), 40).tolist()
        for group, images, label in (("held_out", real, "held-out images"), ("samples", samples, "samples")):
            panels["near"].hist(distances[group].numpy(), bins, alpha=0.6, density=True, label=label)
            power = radial_power_spectrum(images).mean((0, 1))
            panels["power"].loglog(torch.arange(1, len(power) + 1).numpy(), power.numpy(), label=label)
        panels["near"].set_title("distance to the nearest training slice")
        panels["near"].set_xlabel("L2 of 16x16 area means")
        panels["near"].set_yticks([])
        panels["power"].set_title("radial power spectrum")
        panels["power"].set_xlabel("cycles per image")
        for name in ("near", "power"):
            panels[name].legend()
        record = ", ".join(f"{key}: {value}" for key, value in self.record.items())
        figure.suptitle(f"{record} - research use only", size=9)
        with atomic_path(self.output_dir / "report.png") as temporary:
            figure.savefig(temporary, dpi=90, format="png")


def _frechet(features: Tensor, moments: Moments) -> Tensor:
    return frechet_distance(feature_moments(features), moments)


def _spread(images: Tensor, number: int) -> Tensor:
    return images[torch.linspace(0, len(images) - 1, min(number, len(images))).round().long()]


def _interleave(first: Tensor, second: Tensor, columns: int = 8) -> Tensor:
    """Rows of ``columns`` images of the first batch, each followed by the same row of the second."""
    rows = [part for pair in zip(first.split(columns), second.split(columns), strict=True) for part in pair]
    return torch.cat(rows)
