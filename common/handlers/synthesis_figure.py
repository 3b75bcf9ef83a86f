"""The picture of a synthesis report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_path
from ..metrics.label_adherence import pooled_dice
from ..metrics.spectrum import radial_power_spectrum
from ..pictures import evenly_spaced, image_grid
from .bootstrap import Score
from .label_overlay import label_overlay
from .synthesis_sets import SynthesisSets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 8


@dataclass(frozen=True)
class SynthesisPictures:
    """What is drawn.

    Attributes:
        sets: the images.
        nearest: for each sample the position of its nearest training slice.
        drawn: several samples of some label maps, (label maps, samples, 1, X, Y), if there are any.
        label_names: of the classes, where the generator knows labels.
    """

    sets: SynthesisSets
    nearest: Tensor
    drawn: Tensor | None
    label_names: Sequence[str]


def draw_report(path: Path, pictures: SynthesisPictures, scores: Mapping[str, Score], title: str) -> None:
    """Write ``report.png``: images, distances and spectra; with labels also the maps, the diversity and the Dice."""
    from matplotlib.figure import Figure

    sets, labelled = pictures.sets, pictures.sets.labels is not None
    rows: list[Any] = [["left", "left", "right", "right"], ["pairs", "pairs", "near", "power"]]
    if labelled:
        rows.append(["dice", "dice", "alike", "alike"] if "label_dice" in scores else ["alike"] * 4)
    height, heights = (12.0, [1.5, 1.0, 0.7]) if labelled else (7.8, [1.0, 1.0])
    figure = Figure(figsize=(13, height), layout="constrained")
    panels = figure.subplot_mosaic(rows, height_ratios=heights)
    draw_left, draw_right = (_label_triples, _same_label) if labelled else (_held_out, _samples)
    draw_left(panels["left"], pictures)
    draw_right(panels["right"], pictures)
    near = _interleave(sets.samples[:16], sets.training[pictures.nearest[:16]])
    _show(panels["pairs"], near, "16 samples, each above its nearest training slice")
    _distances(panels["near"], scores["nearest_training_distance"])
    for images, label in ((sets.real, "held-out images"), (sets.samples, "samples")):
        power = radial_power_spectrum(images).mean((0, 1))
        panels["power"].loglog(np.arange(1, len(power) + 1), power.numpy(), label=label)
    panels["power"].set_title("radial power spectrum")
    panels["power"].set_xlabel("cycles per image")
    panels["power"].legend()
    if labelled:
        _likeness(panels["alike"], scores)
    if "dice" in panels:
        _dice(panels["dice"], scores["label_dice"], pictures.label_names)
    figure.suptitle(title, size=9, wrap=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")


def _held_out(panel: "Axes", pictures: SynthesisPictures) -> None:
    real = pictures.sets.real
    _show(panel, real[evenly_spaced(len(real), 32)], "held-out images of the data set")


def _samples(panel: "Axes", pictures: SynthesisPictures) -> None:
    _show(panel, pictures.sets.samples[:32], "samples (synthetic, not selected)")


def _label_triples(panel: "Axes", pictures: SynthesisPictures) -> None:
    """Label map, sample painted for it, real image of that map, below each other."""
    sets, shown = pictures.sets, pictures.sets.distinct[:16]
    assert sets.labels is not None
    images = _interleave(_colors(sets.labels[shown]), _rgb(sets.samples[shown]), _rgb(sets.partners[shown]))
    _show(panel, images, "label map / sample (synthetic, not selected) / real image")


def _same_label(panel: "Axes", pictures: SynthesisPictures) -> None:
    """Per column a label map, samples of it, and the real image; without such samples the held-out images."""
    sets, drawn = pictures.sets, pictures.drawn
    if drawn is None or sets.labels is None:
        return _held_out(panel, pictures)
    shown = sets.distinct[evenly_spaced(len(sets.distinct), len(drawn))]
    rows = [_colors(sets.labels[shown]), *(_rgb(samples) for samples in drawn.unbind(1)), _rgb(sets.partners[shown])]
    _show(panel, torch.cat(rows), f"label map / {drawn.shape[1]} samples of it / real image", columns=len(drawn))
    return None


def _distances(panel: "Axes", score: Score) -> None:
    bins = torch.linspace(0, max(float(rows.max()) for rows in score.groups.values()), 40).tolist()
    for group, label in (("held_out", "held-out images"), ("samples", "samples")):
        panel.hist(score.groups[group].numpy(), bins, alpha=0.6, density=True, label=label)
    panel.set_title("distance to the nearest training slice")
    panel.set_xlabel("L2 of 16x16 area means")
    panel.set_yticks([])
    panel.legend()


def _likeness(panel: "Axes", scores: Mapping[str, Score]) -> None:
    """How alike pairs of images are."""
    pairs = scores["pairwise_ms_ssim"].groups
    rows = {"samples,\ndifferent\nlabels": pairs.get("samples"), "held-out\nimages": pairs.get("held_out")}
    if "same_label_ms_ssim" in scores:
        rows["samples,\nsame label"] = scores["same_label_ms_ssim"].groups["samples"]
    for place, values in enumerate(rows.values()):
        if values is not None:
            panel.plot(values.numpy(), np.full(len(values), place), ".", alpha=0.4)
            panel.plot([float(values.mean())], [place], "k|", markersize=24)
    panel.set_yticks(range(len(rows)), list(rows))
    panel.set_ylim(-0.5, len(rows) - 0.5)
    panel.set_xlabel("MS-SSIM of pairs, times 100 (line: mean)")
    panel.set_title("how alike images are")


def _dice(panel: "Axes", score: Score, names: Sequence[str]) -> None:
    places = np.arange(len(names) - 1)
    for shift, (group, label) in enumerate((("held_out", "real images"), ("samples", "samples"))):
        panel.bar(places + 0.4 * (shift - 0.5), pooled_dice(score.groups[group]).numpy(), 0.38, label=label)
    panel.set_xticks(places, names[1:])
    panel.set_ylim(0, 1)
    panel.set_title("Dice between the label map and the segmenter's answer")
    panel.legend()


def _show(panel: "Axes", images: Tensor, title: str, columns: int = _COLUMNS) -> None:
    panel.imshow(image_grid(images, columns, scale=2))
    panel.set_title(title)
    panel.set_axis_off()


def _colors(labels: Tensor) -> Tensor:
    return label_overlay(torch.zeros_like(labels), labels, opacity=0.8)  # (B, 1, X, Y) -> (B, 3, X, Y)


def _rgb(images: Tensor) -> Tensor:
    return images.clamp(0, 1).expand(-1, 3, -1, -1)  # (B, 1, X, Y) -> (B, 3, X, Y)


def _interleave(*batches: Tensor) -> Tensor:
    """Rows of eight images of the first batch, each followed by the same row of the others."""
    rows = zip(*(batch.split(_COLUMNS) for batch in batches), strict=True)
    return torch.cat([part for row in rows for part in row])
