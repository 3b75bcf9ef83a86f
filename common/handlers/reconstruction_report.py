"""How much of a real image comes back from its noised latent, per amount of noise; CSV, JSON and a picture."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from ..atomic import write_text
from ..losses.perceptual import PerceptualLoss
from ..metrics.image_quality import psnr
from ..metrics.multiscale_ssim import multiscale_ssim, profile_for
from ..parallel import gather, process_rank
from ..pictures import evenly_spaced
from .bootstrap import Score
from .commit import commit
from .provenance import require_provenance, split_mark
from .reconstruction_figure import Reconstructions, draw_curves
from .synthesis_scores import lpips_distance

FLOOR = "other_slice"
MEANINGS = {
    "psnr": "dB, 10 log10(1 / MSE) of each slice, mean; exact slices are left out and counted; higher is nearer",
    "ms_ssim": "MS-SSIM times 100 of each slice, mean; higher is nearer",
    "l1": "mean |difference| of images in [0, 1]; lower is nearer",
    "lpips": "LPIPS of each slice, mean; lower is nearer",
}


class ReconstructionReport:
    """Compares reconstructions with their images, slice by slice, and draws the curve over the start steps t0.

    This is protocol R: a real image is encoded, noised for t0 steps, denoised and decoded, so that the result is near
    the image by construction. It says nothing of images that are made from labels alone (``SynthesisReport``).

    - ``metrics.json``: PSNR, MS-SSIM, mean absolute error and, if asked for, LPIPS of each t0, with bootstrap standard
      deviations, beside t0 = 0 (the autoencoder alone, the limit) and another slice taken for the reconstruction (the
      floor);
    - ``metrics_cases.csv``: one row per slice and t0;
    - ``report.png``: the curves; some slices beside their reconstructions.

    For an evaluator whose output has ``pred`` (B, S, X, Y), a channel per start step, and the image as ``label``
    (B, 1, X, Y), both in [0, 1], and whose batch has ``index``.

    Args:
        output_dir: folder for the three files.
        starts: the S start steps, rising.
        count: slices of the evaluation.
        describe: text for an index of the evaluation.
        record: what else to state: data set, seed, weights file, ...; ``schedule`` and ``split_level`` at least.
        perceptual: LPIPS, as a further score.
        number: slices to draw, spread evenly.

    Raises:
        ValueError: no start steps, or a record without the two.
    """

    def __init__(
        self,
        output_dir: str | Path,
        starts: Sequence[int],
        count: int,
        describe: Callable[[int], str],
        record: Mapping[str, Any],
        *,
        perceptual: PerceptualLoss | None = None,
        number: int = 6,
    ) -> None:
        require_provenance("ReconstructionReport", record, ("schedule", "split_level"))
        if not starts or sorted(set(starts)) != list(starts):
            raise ValueError(f"ReconstructionReport: starts={list(starts)} must be one or more steps, rising.")
        self.output_dir = Path(output_dir)
        self.starts = tuple(starts)
        self.describe = describe
        self.record = dict(record)
        self.perceptual = perceptual
        self.drawn = torch.tensor(evenly_spaced(count, number))
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []  # index, images, scores
        self._pictures: list[tuple[Tensor, Tensor]] = []  # index, real image and its reconstructions

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator (ignite handler interface)."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.clear)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.collect)  # before batches are taken apart
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def clear(self) -> None:
        """Forget the last evaluation."""
        self._parts, self._pictures = [], []

    def collect(self, engine: Engine) -> None:
        """Score the slices of a batch.

        Raises:
            ValueError: not one reconstruction per start step, or of another size than the image.
        """
        output, batch = cast(dict, engine.state.output), cast(dict, engine.state.batch)
        images, pred = (output[key].detach().as_subclass(Tensor).float() for key in ("label", "pred"))
        if pred.shape[1] != len(self.starts) or pred.shape[2:] != images.shape[2:]:
            raise ValueError(
                f"ReconstructionReport: `pred` is {tuple(pred.shape)} for images {tuple(images.shape)}; expected is "
                f"one channel for each of the start steps {list(self.starts)} (see StartSteps)."
            )
        index = torch.as_tensor(batch["index"], device=images.device)
        scores = torch.stack([self._scores(part, images) for part in pred.split(1, dim=1)], 1)  # (B, S, scores)
        self._parts.append((index, images, scores))
        shown = torch.isin(index, self.drawn.to(index))
        self._pictures.append((index[shown], torch.cat([images, pred], 1)[shown, :, None]))  # (B, 1 + S, 1, X, Y)

    def write(self) -> None:
        """Gather the scores of all processes, write the files on rank 0."""
        index, images, values = _gathered(self._parts)
        shown, pictures = _gathered(self._pictures)
        if process_rank() != 0:
            return
        scores = self.scores(images, values)
        metrics = self.metrics(scores, images)
        write_text(self.output_dir / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        self.write_cases(index, values)
        names = [self.describe(int(number)) for number in shown]
        record = ", ".join(f"{key}: {value}" for key, value in {**self.record, **split_mark(self.record)}.items())
        title = f"protocol R: reconstruction of real images from their noised latents\n{record} - research use only"
        draw_curves(self.output_dir / "report.png", scores, FLOOR, Reconstructions(self.starts, pictures, names), title)

    def scores(self, images: Tensor, values: Tensor) -> list[Score]:
        """Score by score the start steps and the floor.

        Args:
            images: real, (N, 1, X, Y), on the CPU.
            values: (N, S, scores).
        """
        groups = {f"t0={start}": values[:, place] for place, start in enumerate(self.starts)}
        if len(images) > 1:
            other = images.roll(len(images) // 2, 0)  # half of the data set away: of another patient
            groups[FLOOR] = torch.cat(
                [self._scores(*pair) for pair in zip(other.split(64), images.split(64), strict=True)]
            )
        return [
            Score(
                name,
                MEANINGS[name],
                {group: rows[:, place] for group, rows in groups.items()},
                finite_mean,
                details_of={group: _exact(rows[:, place]) for group, rows in groups.items()} if name == "psnr" else {},
            )
            for place, name in enumerate(self._names())
        ]

    def metrics(self, scores: Sequence[Score], images: Tensor) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {
            "report": "common.handlers.reconstruction_report",
            **self.record,
            **split_mark(self.record),
            "mode": "R",
            "t0": list(self.starts),
            "headline_t0": self.starts[-1],
            "commit": commit(),
            "n": {"slices": len(images)},
            "ms_ssim_profile": profile_for(images.shape[-2:]).describe(),
            "groups": {
                "t0=0": "limit: the autoencoder alone",
                FLOOR: "floor: another slice of the evaluation taken for the reconstruction",
            },
            "scores": {score.name: score.entry(number) for number, score in enumerate(scores)},
        }

    def write_cases(self, index: Tensor, values: Tensor) -> None:
        """Write ``metrics_cases.csv``; the PSNR of an exact slice stays empty."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["index", "slice", "t0", *self._names()])
        for number, of_slice in zip(index.tolist(), values.tolist(), strict=True):
            for start, row in zip(self.starts, of_slice, strict=True):
                cells = [f"{value:.4f}" if math.isfinite(value) else "" for value in row]
                rows.writerow([number, self.describe(number), start, *cells])
        write_text(self.output_dir / "metrics_cases.csv", text.getvalue())

    def _names(self) -> list[str]:
        return [name for name in MEANINGS if name != "lpips" or self.perceptual is not None]

    def _scores(self, pred: Tensor, images: Tensor) -> Tensor:
        """(B, 1, X, Y) twice -> (B, scores), in the order of :meth:`_names`, float64 on the CPU."""
        pred = pred.clamp(0, 1)
        columns = [psnr(pred, images), 100 * multiscale_ssim(pred, images)]
        columns.append((pred.double() - images.double()).abs().flatten(1).mean(1))
        if self.perceptual is not None:
            columns.append(lpips_distance(self.perceptual, pred, images))
        return torch.stack(columns, 1).cpu()


def finite_mean(rows: Tensor) -> Tensor:
    """Mean of what is finite; NaN without any."""
    return rows[rows.isfinite()].mean()


def _exact(rows: Tensor) -> dict[str, int]:
    return {"exact_slices": int(rows.isposinf().sum())}


def _gathered(parts: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Rows of all processes on the CPU in the order of the first tensor, the index; repeated ones are dropped."""
    device = parts[0][0].device
    index, *others = (gather(torch.cat(rows).to(device)).cpu() for rows in zip(*parts, strict=True))
    unique, inverse = index.unique(return_inverse=True)
    first = torch.full_like(unique, len(index)).scatter_reduce(0, inverse, torch.arange(len(index)), "amin")
    return [unique, *(part[first] for part in others)]
