"""Times and noise of a training step; augmentations; what several processes draw."""

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor

from common.engines import prepare_batch as module
from common.engines.prepare_batch import (
    NoisePredictionPrepareBatch,
    PairPrepareBatch,
    ReferencePrepareBatch,
    TranslationPrepareBatch,
)
from common.engines.randomness import StepRandomness


def prepare(batch: Tensor, iteration: int = 1, **options: object) -> tuple:
    randomness = StepRandomness(seed=0)
    randomness.start(iteration)
    hook = NoisePredictionPrepareBatch(lambda image: image.flatten(2), randomness, **options)  # type: ignore[arg-type]
    return hook({"image": batch}, "cpu")


def test_target_and_arguments_are_what_was_drawn() -> None:
    images = torch.rand(6, 1, 4, 4)
    x0, target, args, kwargs = prepare(images)
    assert torch.equal(x0, images.flatten(2))
    assert args == ()
    assert target is kwargs
    assert target["noise"].shape == x0.shape
    assert target["t"].shape == (6,)


def test_stratified_times_lie_one_in_each_part() -> None:
    _, target, _, _ = prepare(torch.zeros(16, 1, 2, 2), t_min=0.0)
    assert torch.equal((target["t"] * 16).floor(), torch.arange(16.0))


def test_times_are_uniform_above_t_min() -> None:
    for stratified in (True, False):
        _, target, _, _ = prepare(torch.zeros(4000, 1, 1, 1), stratified=stratified, t_min=0.2)
        t = target["t"].sort().values
        assert t[0] >= 0.2
        assert t[-1] < 1
        expected = 0.2 + 0.8 * (torch.arange(4000) + 0.5) / 4000
        assert (t - expected).abs().max() < 0.03  # Kolmogorov distance, 5 % level at 0.0215 * 0.8


def test_noise_is_standard_normal() -> None:
    _, target, _, _ = prepare(torch.zeros(100, 1, 20, 20))
    noise = target["noise"]
    assert abs(noise.mean().item()) < 0.02
    assert abs(noise.std().item() - 1) < 0.02


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_mirror_one_axis_of_about_half_of_the_images(axis: int) -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4).expand(400, -1, -1, -1)
    x0, *_ = prepare(image, flip_axes=[axis])
    same = (x0 == image.flatten(2)).all((1, 2))
    mirrored = (x0 == image.flip(axis + 2).flatten(2)).all((1, 2))
    assert (same | mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_larger_images_are_cropped_at_every_place() -> None:
    image = torch.arange(30.0).reshape(1, 1, 5, 6).expand(300, -1, -1, -1)
    x0, *_ = prepare(image, image_size=[3, 4])
    windows = {tuple(image[0, 0, i : i + 3, j : j + 4].flatten().tolist()) for i in range(3) for j in range(3)}
    assert {tuple(row.flatten().tolist()) for row in x0} == windows


def test_processes_draw_the_rows_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(8, 1, 3, 3)
    options = {"flip_axes": [0], "image_size": [2, 2]}
    x0, whole, _, _ = prepare(images, **options)
    for rank in range(2):
        monkeypatch.setattr(module, "process_count", lambda: 2)
        monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
        part_x0, part, _, _ = prepare(images[rank::2], **options)
        assert torch.equal(part_x0, x0[rank::2])
        assert torch.equal(part["noise"], whole["noise"][rank::2])
        assert torch.equal(part["t"], whole["t"][rank::2])


def test_evaluation_scales_grey_levels_to_one() -> None:
    batch = {"image": torch.full((2, 1, 2, 2), 255.0), "index": torch.tensor([4, 9])}
    image, label, _, kwargs = ReferencePrepareBatch()(batch, "cpu")
    assert torch.equal(image, torch.ones(2, 1, 2, 2))
    assert label is image
    assert kwargs["index"].tolist() == [4, 9]


def prepare_pair(source: Tensor, target: Tensor, iteration: int = 1, **options: object) -> tuple:
    randomness = StepRandomness(seed=0)
    randomness.start(iteration)
    return TranslationPrepareBatch(randomness, **options)({"source": source, "target": target}, "cpu")  # type: ignore[arg-type]


def test_a_pair_becomes_source_target_step_and_noise() -> None:
    source, target = torch.rand(2, 6, 1, 4, 5)
    image, label, args, kwargs = prepare_pair(source, target)
    assert torch.equal(image, source)
    assert torch.equal(label["image"], target)
    assert args == ()
    assert kwargs.keys() == {"target", "t", "noise"}
    assert torch.equal(kwargs["target"], target)
    assert torch.equal(kwargs["t"], label["t"])
    assert kwargs["noise"].shape == target.shape
    assert label["t"].dtype == torch.int64


@pytest.mark.parametrize("num_steps", [4, 15])
def test_steps_are_uniform_from_1_to_the_last(num_steps: int) -> None:
    n = 1000 * num_steps
    _, label, _, _ = prepare_pair(*torch.zeros(2, n, 1, 1, 1), num_steps=num_steps)
    counts = torch.bincount(label["t"], minlength=num_steps + 1)
    assert len(counts) == num_steps + 1
    assert counts[0] == 0
    chi_squared = ((counts[1:] - 1000.0) ** 2 / 1000).sum().item()
    assert chi_squared < stats.chi2.ppf(0.999, num_steps - 1)


def test_noise_of_pairs_is_standard_normal_and_independent_of_the_step() -> None:
    _, label, _, kwargs = prepare_pair(*torch.zeros(2, 400, 1, 20, 20))
    noise, t = kwargs["noise"], label["t"].double()
    assert abs(noise.mean().item()) < 0.01
    assert abs(noise.std().item() - 1) < 0.01
    means = noise.double().mean(dim=(1, 2, 3))
    assert abs(torch.corrcoef(torch.stack([means, t]))[0, 1].item()) < 0.15
    assert len(noise.flatten(1).unique(dim=0)) == 400


@pytest.mark.parametrize("axes", [[0], [1], [0, 1]], ids=str)
def test_both_images_of_a_pair_are_flipped_alike(axes: list[int]) -> None:
    source = torch.arange(12.0).reshape(1, 1, 3, 4).expand(400, -1, -1, -1)
    image, label, _, kwargs = prepare_pair(source, 100 + source, flip_axes=axes)
    assert torch.equal(label["image"], 100 + image)
    assert torch.equal(kwargs["target"], label["image"])
    choices = [
        [axis + 2 for axis, flipped in zip(axes, flips, strict=True) if flipped]
        for flips in itertools.product([False, True], repeat=len(axes))
    ]
    found = [int((image == source.flip(choice)).all(dim=(1, 2, 3)).sum()) for choice in choices]
    assert sum(found) == 400
    assert found == pytest.approx([400 / len(choices)] * len(choices), abs=28)


@pytest.mark.parametrize(("probability", "same"), [(0.0, True), (1.0, False)])
def test_flips_come_with_the_probability_asked_for(probability: float, same: bool) -> None:
    source = torch.arange(12.0).reshape(1, 1, 3, 4).expand(50, -1, -1, -1)
    image, *_ = prepare_pair(source, source, flip_axes=[0], flip_prob=probability)
    assert torch.equal(image, source if same else source.flip(2))


def test_pairs_are_not_flipped_unless_asked_for_and_iterations_differ() -> None:
    source, target = torch.rand(2, 8, 1, 3, 3)
    first, second = (prepare_pair(source, target, iteration) for iteration in (1, 2))
    assert torch.equal(first[0], source)
    assert not torch.equal(first[3]["noise"], second[3]["noise"])
    again = prepare_pair(source, target, 1)
    assert torch.equal(first[3]["noise"], again[3]["noise"])
    assert torch.equal(first[3]["t"], again[3]["t"])


def test_processes_draw_the_rows_of_one_process_for_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = torch.rand(2, 8, 1, 3, 3)
    whole = prepare_pair(source, target, flip_axes=[0, 1])
    assert not torch.equal(whole[0], source)
    for rank in range(2):
        monkeypatch.setattr(module, "process_count", lambda: 2)
        monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
        image, label, _, kwargs = prepare_pair(source[rank::2], target[rank::2], flip_axes=[0, 1])
        assert torch.equal(image, whole[0][rank::2])
        assert torch.equal(label["image"], whole[1]["image"][rank::2])
        assert torch.equal(kwargs["t"], whole[3]["t"][rank::2])
        assert torch.equal(kwargs["noise"], whole[3]["noise"][rank::2])


def test_evaluation_of_pairs_passes_on_what_seeds_the_noise() -> None:
    source, target = torch.rand(2, 3, 1, 4, 5)
    batch = {"source": source, "target": target, "index": torch.arange(3), "patient": ["a", "b", "c"]}
    image, label, args, kwargs = PairPrepareBatch()(batch, "cpu")
    assert torch.equal(image, source)
    assert torch.equal(label, target)
    assert args == ()
    assert kwargs.keys() == {"index"}


def test_inference_has_no_target_and_knows_the_case() -> None:
    volume = torch.rand(1, 1, 4, 5, 6, dtype=torch.float64)
    image, label, _, kwargs = PairPrepareBatch("image")({"image": volume, "case": ["a"]}, "cpu")
    assert image.dtype == torch.float32
    assert torch.equal(image, volume.float())
    assert torch.equal(label, image)
    assert kwargs == {"case": ["a"]}
