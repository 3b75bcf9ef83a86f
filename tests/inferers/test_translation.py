"""Translating slices and volumes: the network is called as often as said, and noise belongs to its place."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor, decollate_batch
from torch import Tensor, nn

from common.diffusion.residual_shift import marginal, residual_shift_schedule
from common.inferers.precision import supports_bfloat16
from common.inferers.translation import ResidualShiftInferer, TranslationInferer

SIZE = (6, 5)
SCHEDULE = residual_shift_schedule()


class Recording(nn.Module):
    """A translator that estimates the target by a function of (x_t, t, source) and keeps what it was called with."""

    schedule = SCHEDULE
    image_size = SIZE

    def __init__(self, estimate: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.estimate = estimate
        self.times: list[list[int]] = []
        self.inputs: list[Tensor] = []
        self.ready = 0

    def check_ready(self) -> None:
        self.ready += 1

    def forward(self, x_t: Tensor, t: Tensor, source: Tensor) -> Tensor:
        assert x_t.shape == source.shape == (len(t), 1, *SIZE)
        self.times.append(t.tolist())
        self.inputs.append(x_t.clone())
        return self.estimate(x_t, t, source)


def perfect(source: Tensor) -> Tensor:
    """Some target that is known from the source alone."""
    return -0.8 * source.flip(2)


def knows_the_target() -> Recording:
    return Recording(lambda x_t, t, source: perfect(source))


def noisy() -> Recording:
    """Estimates to which the noise of every step contributes, inside of the range so that nothing is clamped."""
    return Recording(lambda x_t, t, source: 0.1 * source + 0.02 * x_t)


def volume(depth: int = 7, seed: int = 0) -> Tensor:
    """(1, 1, X, Y, Z) in [-0.9, 0.9]: all slices have foreground."""
    generator = torch.Generator().manual_seed(seed)
    return 1.8 * torch.rand(1, 1, *SIZE, depth, generator=generator) - 0.9


# Sampling


@pytest.mark.parametrize("num_steps", [4, 15])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_every_slice_goes_through_the_network_once_a_step(num_steps: int, batch_size: int) -> None:
    """Batch after batch of slices, t = T, ..., 1."""
    network = noisy()
    network.schedule = residual_shift_schedule(num_steps)
    TranslationInferer(batch_size=batch_size)(volume(7), network)
    sizes = [min(batch_size, 7 - start) for start in range(0, 7, batch_size)]
    assert network.times == [[t] * size for size in sizes for t in range(num_steps, 0, -1)]


@pytest.mark.parametrize("options", [{}, {"share_noise": False}, {"deterministic": True}, {"seed": 9}], ids=str)
def test_a_perfect_denoiser_gives_the_target_exactly(options: dict) -> None:
    """The last step has coefficients (0, 1), so noise leaves no trace."""
    sources = volume()
    result = TranslationInferer(batch_size=3, num_samples=2, **options)(sources, knows_the_target())
    assert torch.equal(result, perfect(sources).expand(-1, 2, -1, -1, -1))


def test_estimates_are_clamped_to_the_range_of_images() -> None:
    network = Recording(lambda x_t, t, source: 5 * source)
    result = TranslationInferer()(volume(), network)
    assert torch.equal(result, (5 * volume()).clamp(-1, 1))


def test_sampling_starts_at_the_source_with_the_noise_of_the_last_step() -> None:
    """Mean y_0 and standard deviation kappa sqrt(eta_T) = 1.98."""
    network = noisy()
    sources = volume(800)
    TranslationInferer(batch_size=800, share_noise=False)(sources, network)
    noise = network.inputs[0] - sources[0].permute(3, 0, 1, 2)
    assert abs(noise.mean().item()) < 0.05
    assert noise.std().item() == pytest.approx(1.98, rel=0.02)


def test_every_step_has_noise_of_its_own() -> None:
    """Taken out of the x_t with the table's numbers (posterior std at t = 2, 3, 4), it is standard normal and new."""
    network = noisy()
    sources = volume(800)[0].permute(3, 0, 1, 2)
    TranslationInferer(batch_size=800, share_noise=False)(volume(800), network)
    eta, x = SCHEDULE.eta.tolist(), network.inputs
    drawn = [(x[0] - sources) / 1.98]
    for x_t, following, t, std in zip(x, x[1:], (4, 3, 2), (0.97329179, 0.75968330, 0.19626833), strict=False):
        ratio = eta[t - 2] / eta[t - 1]
        drawn.append((following - ratio * x_t - (1 - ratio) * (0.1 * sources + 0.02 * x_t)) / std)
    noise = torch.stack(drawn).flatten(1)  # (4, 24000)
    torch.testing.assert_close(torch.cov(noise), torch.eye(4), atol=0.04, rtol=0)
    assert noise.mean(dim=1).abs().max() < 0.03


@pytest.mark.parametrize("share_noise", [True, False])
def test_the_result_does_not_depend_on_the_batch_size(share_noise: bool) -> None:
    results = [
        TranslationInferer(batch_size=size, num_samples=2, share_noise=share_noise)(volume(), noisy(), case=["a"])
        for size in (1, 3, 16)
    ]
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("share_noise", [True, False])
def test_a_batch_of_slices_is_translated_as_a_volume_is(share_noise: bool) -> None:
    """Slices of no named case, wherever they stand in the batch."""
    inferer = TranslationInferer(share_noise=share_noise, num_samples=2)
    expected = inferer(volume(), noisy())[0].permute(3, 0, 1, 2)  # (Z, 2, X, Y)
    slices = volume()[0].permute(3, 0, 1, 2)
    assert torch.equal(inferer(slices, noisy()), expected)
    order = torch.tensor([5, 0, 3])
    assert torch.equal(inferer(slices[order], noisy(), index=order), expected[order])


def test_shared_noise_is_the_same_for_every_slice() -> None:
    """Identical slices of a volume become identical; without sharing they differ."""
    same = volume(1).expand(-1, -1, -1, -1, 6).contiguous()
    shared = TranslationInferer(batch_size=4, share_noise=True)(same, noisy())
    assert torch.equal(shared, shared[..., :1].expand_as(shared))
    own = TranslationInferer(batch_size=4, share_noise=False)(same, noisy())
    for number in range(5):
        assert (own[..., number] - own[..., number + 1]).abs().max() > 0.01


def test_samples_are_channels_that_differ() -> None:
    result = TranslationInferer(num_samples=3)(volume(), noisy())
    assert result.shape == (1, 3, *SIZE, 7)
    assert (result[:, 0] - result[:, 1]).abs().max() > 0.01
    assert (result[:, 1] - result[:, 2]).abs().max() > 0.01
    fewer = TranslationInferer(num_samples=2)(volume(), noisy())
    assert torch.equal(fewer, result[:, :2])  # a sample does not depend on how many are drawn


@pytest.mark.parametrize("share_noise", [True, False])
def test_noise_depends_on_case_and_seed(share_noise: bool) -> None:
    def translated(case: str, seed: int = 0) -> Tensor:
        return TranslationInferer(share_noise=share_noise, seed=seed)(volume(), noisy(), case=[case])

    first = translated("a")
    assert torch.equal(translated("a"), first)
    assert (translated("b") - first).abs().max() > 0.01
    assert (translated("a", seed=1) - first).abs().max() > 0.01


def test_volumes_of_a_batch_have_the_noise_of_their_own_case() -> None:
    both = torch.cat([volume(seed=0), volume(seed=1)])
    inferer = TranslationInferer()
    together = inferer(both, noisy(), case=["a", "b"])
    for number, case in enumerate("ab"):
        assert torch.equal(together[number : number + 1], inferer(both[number : number + 1], noisy(), case=[case]))


def test_deterministic_sampling_draws_noise_for_the_start_only() -> None:
    """Then every x_{t-1} is the posterior's mean, here computed from the table by hand."""
    network = noisy()
    TranslationInferer(deterministic=True)(volume(), network)
    sources = volume()[0].permute(3, 0, 1, 2)
    eta = SCHEDULE.eta.tolist()
    for number, t in enumerate((4, 3, 2)):
        x_t = network.inputs[number]
        ratio = eta[t - 2] / eta[t - 1]
        expected = ratio * x_t + (1 - ratio) * (0.1 * sources + 0.02 * x_t)
        torch.testing.assert_close(network.inputs[number + 1], expected)


# Volumes


def test_a_translation_lies_where_its_source_does() -> None:
    """Tensors with a place in space keep it, whatever the number of samples; others stay plain."""
    places = [torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])), torch.diag(torch.tensor([-1.0, -1.0, 5.0, 1.0]))]
    items = [
        {"image": MetaTensor(volume()[0], affine=place, meta={"filename_or_obj": name})}
        for place, name in zip(places, ("a.nii", "b.nii"), strict=True)
    ]
    batch = next(iter(DataLoader(items, batch_size=2)))["image"]
    result = TranslationInferer(num_samples=2)(batch, noisy())
    for one, place, name in zip(decollate_batch(result), places, ("a.nii", "b.nii"), strict=True):
        assert torch.equal(one.affine, place.double())
        assert one.meta["filename_or_obj"] == name
        assert one.shape == (2, *SIZE, 7)
    assert type(TranslationInferer()(volume(), noisy())) is Tensor


def test_blank_slices_become_background_without_the_network() -> None:
    sources = volume(9)
    sources[..., [0, 4, 8]] = -1.0
    network = noisy()
    result = TranslationInferer(batch_size=4)(sources, network)
    assert torch.equal(result[..., [0, 4, 8]], torch.full_like(result[..., [0, 4, 8]], -1.0))
    assert [len(t) for t in network.times] == [4] * 4 + [2] * 4
    kept = [1, 2, 3, 5, 6, 7]
    assert torch.equal(result[..., kept], TranslationInferer()(sources, noisy())[..., kept])


def test_neighbors_of_blank_slices_keep_their_noise() -> None:
    """The noise belongs to the number of the slice, not to its place among those that are translated."""
    sources = volume(5)
    inferer = TranslationInferer(share_noise=False)
    whole = inferer(sources, noisy())
    sources[..., 1] = -1.0
    assert torch.equal(inferer(sources, noisy())[..., 2:], whole[..., 2:])


@pytest.mark.parametrize(("pixels", "translated"), [(1, False), (2, True)])
def test_a_slice_is_translated_from_the_given_share_of_foreground_on(pixels: int, translated: bool) -> None:
    sources = torch.full((1, 1, *SIZE, 1), -1.0)
    sources.view(-1)[:pixels] = -0.9
    network = noisy()
    TranslationInferer(min_foreground=2 / 30)(sources, network)
    assert bool(network.times) == translated


def test_a_volume_without_foreground_is_background() -> None:
    network = noisy()
    blank = torch.full((1, 1, *SIZE, 3), -1.0)
    assert torch.equal(TranslationInferer(num_samples=2)(blank, network), blank.expand(-1, 2, -1, -1, -1))
    assert network.times == []


@pytest.mark.parametrize("depth", [4, 40])
def test_no_more_slices_reach_the_network_at_once_than_asked_for(depth: int) -> None:
    """So the network's memory does not grow with the volume."""
    network = noisy()
    TranslationInferer(batch_size=4, num_samples=2)(volume(depth), network)
    assert {len(t) for t in network.times} == {4}
    assert len(network.times) == 2 * 4 * depth // 4


@pytest.mark.parametrize("shape", [(2, 1, 6, 6), (2, 2, *SIZE), (1, 1, *reversed(SIZE), 3), (1, 1, 12, 10, 3)], ids=str)
def test_images_of_another_size_are_refused_before_the_network_is_called(shape: tuple[int, ...]) -> None:
    network = noisy()
    with pytest.raises(ValueError, match=r"sources of shape \(.*\); this network takes slices of 6 x 5 pixels in one"):
        TranslationInferer()(torch.zeros(shape), network)
    assert network.times == []


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_samples": 0}], ids=str)
def test_impossible_numbers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"batch_size=\d+ and num_samples=\d+ must be at least 1"):
        TranslationInferer(**options)


def test_a_network_that_is_not_ready_is_asked_first() -> None:
    class Unready(Recording):
        def check_ready(self) -> None:
            raise RuntimeError("no description")

    network = Unready(lambda x_t, t, source: source)
    with pytest.raises(RuntimeError, match="no description"):
        TranslationInferer()(volume(), network)
    assert network.times == []


# Training


def test_training_shifts_the_residual_and_returns_the_estimate() -> None:
    """The network gets x_t of eq. 2, here written out per image, and its estimate comes back as it is."""
    generator = torch.Generator().manual_seed(0)
    source, target, noise = torch.randn(3, 8, 1, *SIZE, generator=generator)
    t = torch.tensor([1, 2, 3, 4, 4, 3, 2, 1])
    network = Recording(lambda x_t, t, source: x_t + source)
    pred = ResidualShiftInferer()(source, network, target=target, t=t, noise=noise)
    for number, time in enumerate(t.tolist()):
        eta = SCHEDULE.eta[time - 1].item()
        x_t = target[number] + eta * (source - target)[number] + 2.0 * np.sqrt(eta) * noise[number]
        torch.testing.assert_close(network.inputs[0][number], x_t)
    assert network.times == [t.tolist()]
    assert torch.equal(pred, marginal(SCHEDULE, target, source, noise, t) + source)


@pytest.mark.parametrize("amp", [True, False])
def test_mixed_precision_reaches_the_network_and_not_the_result(amp: bool) -> None:
    if amp and not supports_bfloat16("cpu"):
        pytest.skip("this CPU has no fast bf16")
    seen: list[torch.dtype] = []

    def estimate(x_t: Tensor, t: Tensor, source: Tensor) -> Tensor:
        product = x_t.flatten(2) @ source.flatten(2).transpose(1, 2)
        seen.append(product.dtype)
        return source.to(product.dtype)

    source = torch.rand(2, 1, *SIZE)
    t = torch.tensor([1, 4])
    pred = ResidualShiftInferer(amp)(source, Recording(estimate), target=source, t=t, noise=torch.zeros_like(source))
    sampled = TranslationInferer(amp=amp)(source, Recording(estimate))
    assert set(seen) == {torch.bfloat16 if amp else torch.float32}
    assert pred.dtype == sampled.dtype == torch.float32
