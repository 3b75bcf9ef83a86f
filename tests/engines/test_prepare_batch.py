"""Times and noise of a training step; augmentations; what several processes draw."""

import pytest
import torch
from torch import Tensor

from common.engines import prepare_batch as module
from common.engines.prepare_batch import NoisePredictionPrepareBatch, ReferencePrepareBatch
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
