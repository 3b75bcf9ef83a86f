"""Scores of a generator, each beside the same score of real images; CSV, JSON and a picture."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from ..atomic import write_text
from ..losses.perceptual import PerceptualLoss
from ..metrics.label_adherence import Segmenter
from ..metrics.multiscale_ssim import profile_for
from ..metrics.nearest import nearest_neighbors
from ..metrics.reference import ReferenceImages
from ..networks.encoders.feature_spaces import FeatureSpace
from ..parallel import gather, process_rank
from ..pictures import evenly_spaced
from .bootstrap import Score
from .commit import commit
from .provenance import require_provenance, split_mark
from .synthesis_cases import cases_table
from .synthesis_figure import SynthesisPictures, draw_report
from .synthesis_scores import (
    adherence_scores,
    counts_of_answers,
    diversity_scores,
    frechet_scores,
    likenesses,
    memorization_scores,
    texture_scores,
)
from .synthesis_sets import SynthesisSets

SameLabelDraw = Callable[[Tensor, int], Tensor]
"""Label maps ``(n, 1, X, Y)`` and the number of the first sample -> images ``(n, 1, X, Y)`` in [0, 1]."""

_LABEL_MAPS, _DRAWS = 8, 4  # that are drawn again, and how often


class SynthesisReport:
    """Collects generated and held-out images of an evaluation and writes what a reader needs to judge the generator.

    - ``metrics.json``: every score of the generated images with its bootstrap standard deviation, the same score of
      held-out images (the floor: other patients) and of a random part of the training images (the floor: sampling);
    - ``metrics_cases.csv``: per generated image its nearest training slice and how near it is, its seam ratio, the Dice
      between its label map and the segmenter's answer;
    - ``report.png``: held-out images, samples, the samples' nearest training slices, spectra, distances; label maps
      where the generator knows them.

    The reference of all scores are training slices; distances in spaces that need weights are also given to the
    held-out images. Scores of different numbers of images do not compare, so the floors use as many images as there are
    (``n`` of each is stated); a Frechet distance with fewer images than features is marked as ``biased`` (upwards).

    An evaluation of a generator that knows labels has the label map as ``label`` in its batch, and as ``label`` in its
    output the real image of that map.

    Args:
        output_dir: folder for the three files.
        reference: training slices.
        describe: text for a data-set index of a training slice.
        token_size: side of a token in pixels, for generators that work in tokens.
        record: what else to state: data set, seed, sampler, weights file, ...; of a generator that knows labels
            ``mode``, ``t0``, ``schedule`` and ``split_level``.
        features: spaces beside the grid of pixels, for further Frechet distances.
        perceptual: LPIPS, for the diversity.
        label_names: of the classes, background first: the generator knows labels.
        segmenter: trained on real training slices; for Dice between the label maps and its answers.
        draw: paints further samples, for the diversity under one label map.

    Raises:
        ValueError: labels, but no word on how they were used; or a segmenter or ``draw`` without labels.
    """

    def __init__(
        self,
        output_dir: str | Path,
        reference: ReferenceImages,
        describe: Callable[[int], str],
        token_size: int | None,
        record: Mapping[str, Any],
        *,
        features: Sequence[FeatureSpace] = (),
        perceptual: PerceptualLoss | None = None,
        label_names: Sequence[str] = (),
        segmenter: Segmenter | None = None,
        draw: SameLabelDraw | None = None,
    ) -> None:
        if label_names:
            require_provenance("SynthesisReport", record, ("mode", "t0", "schedule", "split_level"))
        elif segmenter is not None or draw is not None:
            raise ValueError("SynthesisReport: `segmenter` and `draw` need `label_names`, the classes of the maps.")
        self.output_dir = Path(output_dir)
        self.reference = reference
        self.describe = describe
        self.token_size = token_size
        self.record = dict(record)
        self.features = tuple(features)
        self.perceptual = perceptual
        self.label_names = tuple(label_names)
        self.segmenter = segmenter
        self.draw = draw
        self._parts: list[tuple[Tensor, ...]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator; its output has ``pred`` and ``label`` (B, 1, X, Y) in [0, 1], its batch ``index``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._parts.clear)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.collect)  # before batches are taken apart
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def collect(self, engine: Engine) -> None:
        """Keep the images of a batch."""
        output, batch = cast(dict, engine.state.output), cast(dict, engine.state.batch)
        samples = output["pred"].detach().float()
        part = [torch.as_tensor(batch["index"], device=samples.device), samples, output["label"].detach().float()]
        if self.label_names:
            part.append(batch["label"].detach().to(samples.device).float())
        self._parts.append(tuple(part))

    def write(self) -> None:
        """Gather the images of all processes, score them, write the files on rank 0."""
        device = self._parts[0][0].device
        index, *images = (gather(torch.cat(parts)).cpu() for parts in zip(*self._parts, strict=True))
        if process_rank() != 0:
            return
        order = _first_of_each(index)
        samples, partners, *labels = (part[order].as_subclass(Tensor) for part in images)
        sets = SynthesisSets(samples, partners, labels[0] if labels else None, self.reference.images, device)
        drawn = self._draw_again(sets, int(index.max()) + 1)
        counts = None
        if self.segmenter is not None:
            counts = counts_of_answers(sets, self.segmenter, len(self.label_names))
        scores = {score.name: score for score in self.scores(sets, drawn, counts)}
        text = json.dumps(self.metrics(sets, list(scores.values())), indent=2, allow_nan=False)
        write_text(self.output_dir / "metrics.json", text + "\n")
        distances, nearest = nearest_neighbors(samples, sets.training)
        seams = scores["seam_ratio"].groups["samples"] if "seam_ratio" in scores else None
        table = cases_table(
            distances,
            [self.describe(self.reference.indices[position]) for position in nearest.tolist()],
            None if seams is None else seams[:, 0] / seams[:, 1],
            scores["nearest_training_ms_ssim"].groups["samples"],
            None if counts is None else counts["samples"],
            self.label_names,
        )
        write_text(self.output_dir / "metrics_cases.csv", table)
        pictures = SynthesisPictures(sets, nearest, drawn, self.label_names)
        title = ", ".join(f"{key}: {value}" for key, value in {**self.record, **split_mark(self.record)}.items())
        draw_report(self.output_dir / "report.png", pictures, scores, f"{title} - research use only")

    def scores(self, sets: SynthesisSets, drawn: Tensor | None, counts: dict[str, Tensor] | None) -> list[Score]:
        """All scores that the settings ask for.

        Args:
            sets: the images.
            drawn: further samples of some label maps, (label maps, samples, 1, X, Y), if there are any.
            counts: what the segmenter says, if there is one.
        """
        profile = profile_for(sets.samples.shape[-2:])
        return [
            *frechet_scores(sets, self.features),
            *texture_scores(sets, self.token_size),
            *memorization_scores(sets, profile),
            *diversity_scores(sets, likenesses(profile, self.perceptual), drawn),
            *([] if counts is None else adherence_scores(counts, self.label_names)),
        ]

    def metrics(self, sets: SynthesisSets, scores: Sequence[Score]) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {
            "protocol": "common.handlers.synthesis_report",
            **self.record,
            **split_mark(self.record),
            "commit": commit(),
            "n": {**{name: len(images) for name, images in sets.groups.items()}, "training": len(sets.training)},
            "ms_ssim_profile": profile_for(sets.samples.shape[-2:]).describe(),
            "scores": {score.name: score.entry(number) for number, score in enumerate(scores)},
        }

    def _draw_again(self, sets: SynthesisSets, first_number: int) -> Tensor | None:
        """Several samples of some label maps, (label maps, samples, 1, X, Y)."""
        if self.draw is None or sets.labels is None:
            return None
        labels = sets.labels[sets.distinct]
        labels = labels[evenly_spaced(len(labels), _LABEL_MAPS)].to(sets.device)
        images = self.draw(labels.repeat_interleave(_DRAWS, 0), first_number)
        return images.detach().as_subclass(Tensor).float().cpu().unflatten(0, (len(labels), _DRAWS))


def _first_of_each(index: Tensor) -> Tensor:
    """Positions that sort the samples by their number and drop those that a sampler has repeated."""
    ordered, order = index.sort(stable=True)
    return order[torch.cat([torch.ones(1, dtype=torch.bool), ordered.diff() > 0])]
