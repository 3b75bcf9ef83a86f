"""What a generator of images is scored by; every score stands beside the same one of real images."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..losses.perceptual import PerceptualLoss
from ..metrics.frechet import GridFeatures, distance_of_features
from ..metrics.label_adherence import Segmenter, adherence_counts, mean_dice, pooled_dice
from ..metrics.moments import Moments, RunningMoments
from ..metrics.multiscale_ssim import Profile, multiscale_ssim
from ..metrics.nearest import most_similar, nearest_neighbors
from ..metrics.seams import neighbor_steps
from ..metrics.spectrum import radial_power_spectrum, spectrum_distance
from ..networks.encoders.feature_spaces import FeatureSpace
from .bootstrap import ROUNDS, Score, mean
from .synthesis_sets import SynthesisSets

_LARGE_SPACE = 256  # features from which on a Frechet distance takes a second
_FEW_ROUNDS = 20


class Likeness(NamedTuple):
    """A measure of how alike two images are: ``(B, 1, X, Y)`` twice, in [0, 1] -> ``(B,)``."""

    name: str
    meaning: str
    of: Callable[[Tensor, Tensor], Tensor]


def likenesses(profile: Profile, perceptual: PerceptualLoss | None) -> list[Likeness]:
    """MS-SSIM, and LPIPS where its weights are given."""
    found = [Likeness("ms_ssim", "MS-SSIM times 100; lower is more diverse", partial(_ms_ssim, profile))]
    if perceptual is not None:
        found.append(Likeness("lpips", "LPIPS; higher is more diverse", partial(lpips_distance, perceptual)))
    return found


def lpips_distance(perceptual: PerceptualLoss, first: Tensor, second: Tensor) -> Tensor:
    """LPIPS ``(B,)`` of images in [0, 1], which the loss wants in [-1, 1]."""
    with torch.no_grad():
        return perceptual.distances(2 * first - 1, 2 * second - 1).double()


def frechet_scores(sets: SynthesisSets, spaces: Sequence[FeatureSpace]) -> list[Score]:
    """Frechet distances to the training slices; in the spaces that need weights also to the held-out images."""
    scores = []
    for space in (GridFeatures(), *spaces):
        features = {group: sets.apply(space, images) for group, images in sets.groups.items()}
        training = RunningMoments()
        for images in sets.training.split(len(sets.samples)):
            training.update(sets.apply(space, images))
        meaning = f"{space.meaning}; to the training slices"
        scores.append(_frechet(space, space.name, meaning, features, training))
        if not isinstance(space, GridFeatures):
            held_out = RunningMoments().update(features["held_out"])
            others = {group: rows for group, rows in features.items() if group != "held_out"}
            meaning = f"{space.meaning}; to the held-out images"
            scores.append(_frechet(space, f"{space.name}_to_held_out", meaning, others, held_out))
    return scores


def texture_scores(sets: SynthesisSets, token_size: int | None) -> list[Score]:
    """Power spectra and, for generators that work in tokens of ``token_size`` pixels, seams between them."""
    spectrum = radial_power_spectrum(sets.training).mean((0, 1))
    scores = [
        Score(
            "spectrum_distance",
            "mean |ln ratio| of radial power; lower is better",
            {group: radial_power_spectrum(images).mean(1) for group, images in sets.groups.items()},
            lambda rows: spectrum_distance(rows.mean(0), spectrum),
        )
    ]
    if token_size is not None:
        scores.append(
            Score(
                "seam_ratio",
                "mean |step| across token borders / elsewhere; that of real images is right",
                {group: neighbor_steps(images, token_size) for group, images in sets.groups.items()},
                lambda rows: rows[:, 0].mean() / rows[:, 1].mean(),
            )
        )
    return scores


def memorization_scores(sets: SynthesisSets, profile: Profile) -> list[Score]:
    """How near the images are to their nearest training slices, one row per image."""
    groups = {"samples": sets.samples, "held_out": sets.real}
    training = sets.training.to(sets.device)
    likeness = {group: most_similar(images.to(sets.device), training, profile) for group, images in groups.items()}
    return [
        Score(
            "nearest_training_distance",
            "L2 of 16x16 area means; clearly below held-out images means copying",
            {group: nearest_neighbors(images, sets.training)[0] for group, images in groups.items()},
            mean,
        ),
        Score(
            "nearest_training_ms_ssim",
            "MS-SSIM times 100 to the most similar of the 8 nearest training slices; clearly above held-out images "
            "means copying",
            {group: 100 * values.cpu() for group, values in likeness.items()},
            mean,
        ),
    ]


def diversity_scores(sets: SynthesisSets, likeness: Sequence[Likeness], draws: Tensor | None) -> list[Score]:
    """How alike the images of a set are: over disjoint random pairs, and over samples of the same label map.

    Args:
        sets: where the samples know labels, one sample of each label map counts.
        likeness: measures.
        draws: several samples of some label maps, (label maps, samples, 1, X, Y); None: without these scores.
    """
    scores = []
    groups = dict(sets.groups)
    if sets.labels is not None:
        groups["samples"] = sets.samples[sets.distinct]
    for measure in likeness:
        rows = {group: _of_pairs(sets, measure, images) for group, images in groups.items() if len(images) > 1}
        text = f"mean {measure.meaning}"
        scores.append(Score(f"pairwise_{measure.name}", f"{text}; over disjoint random pairs", rows, mean))
        if draws is not None:
            first, second = torch.triu_indices(draws.shape[1], draws.shape[1], 1)
            pairs = (draws[:, index].flatten(0, 1) for index in (first, second))
            same = sets.apply(measure.of, *pairs).unflatten(0, (len(draws), -1)).mean(1)  # (label maps,)
            beside = {"different_labels": rows["samples"]} if "samples" in rows else {}
            beside |= {"held_out": rows["held_out"]} if "held_out" in rows else {}
            text = f"{text}; samples: {draws.shape[1]} of the same label map each, beside samples of different ones"
            scores.append(Score(f"same_label_{measure.name}", text, {"samples": same, **beside}, mean))
    return scores


def counts_of_answers(sets: SynthesisSets, segmenter: Segmenter, num_classes: int) -> dict[str, Tensor]:
    """Pixels that the segmenter's answers share with the label maps, see :func:`adherence_counts`, by group."""
    if sets.labels is None:
        raise ValueError("SynthesisReport: a segmenter is given, but the batches have no `label` to compare it with.")
    count = partial(adherence_counts, segmenter, num_classes=num_classes)
    real = sets.labels[sets.distinct]
    return {"samples": sets.apply(count, sets.samples, sets.labels), "held_out": sets.apply(count, sets.real, real)}


def adherence_scores(counts: dict[str, Tensor], names: Sequence[str]) -> list[Score]:
    """Dice between label map and the segmenter's answer, pooled over all slices, per class and their mean."""
    text = "Dice between the label map and a segmenter's answer, over all slices together; that of real images is right"
    scores = [Score("label_dice", f"mean over the classes but background; {text}", counts, mean_dice)]
    for place, name in enumerate(names[1:]):
        value = partial(_dice_of, place)
        scores.append(Score(f"label_dice_{name.replace(' ', '_')}", f"{name}: {text}", counts, value))
    return scores


def _frechet(
    space: FeatureSpace, name: str, meaning: str, features: dict[str, Tensor], reference: RunningMoments
) -> Score:
    """Distances of groups of features (N, D) to a reference; flagged where there are fewer images than features."""
    moments = reference.result()
    size = len(moments.mean)
    return Score(
        name,
        meaning,
        features,
        partial(_distance, moments),
        rounds=ROUNDS if size < _LARGE_SPACE else _FEW_ROUNDS,
        details={"features": space.identity, "num_features": size, "n_reference": reference.count},
        details_of={group: {"biased": min(len(rows), reference.count) < size} for group, rows in features.items()},
    )


def _distance(reference: Moments, features: Tensor) -> Tensor:
    return distance_of_features(features, reference)


def _of_pairs(sets: SynthesisSets, measure: Likeness, images: Tensor) -> Tensor:
    """The measure of disjoint pairs ``(N // 2,)``: independent of each other, as the bootstrap takes them."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(len(images)))
    half = len(images) // 2
    return sets.apply(measure.of, images[order[:half]], images[order[half : 2 * half]])


def _ms_ssim(profile: Profile, first: Tensor, second: Tensor) -> Tensor:
    return 100 * multiscale_ssim(first, second, profile)


def _dice_of(place: int, counts: Tensor) -> Tensor:
    return pooled_dice(counts)[place]
