"""What holds for every translator of slices: a volume is its slices, and noise belongs to its place."""

import sys
from pathlib import Path

import pytest
import torch
from monai.data import DataLoader, MetaTensor, decollate_batch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from slice_translators import METHODS, SAMPLERS, SIZE, Method, volume

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_sampler = pytest.mark.parametrize("method", SAMPLERS.values(), ids=SAMPLERS)
shared_or_not = pytest.mark.parametrize("share_noise", [True, False], ids=["shared", "own"])


# Noise


@every_sampler
@shared_or_not
def test_the_result_does_not_depend_on_the_batch_size(method: Method, share_noise: bool) -> None:
    results = [
        method.inferer(batch_size=size, num_samples=2, share_noise=share_noise)(volume(), method.network(), case=["a"])
        for size in (1, 3, 16)
    ]
    assert all(torch.equal(result, results[0]) for result in results)


@every_sampler
@shared_or_not
def test_a_batch_of_slices_is_translated_as_a_volume_is(method: Method, share_noise: bool) -> None:
    """Slices of no named case, wherever they stand in the batch."""
    inferer = method.inferer(share_noise=share_noise, num_samples=2)
    expected = inferer(volume(), method.network())[0].permute(3, 0, 1, 2)  # (Z, 2, X, Y)
    slices = volume()[0].permute(3, 0, 1, 2)
    assert torch.equal(inferer(slices, method.network()), expected)
    order = torch.tensor([5, 0, 3])
    assert torch.equal(inferer(slices[order], method.network(), index=order), expected[order])


@every_sampler
def test_shared_noise_is_the_same_for_every_slice(method: Method) -> None:
    """Identical slices of a volume become identical; without sharing they differ."""
    same = volume(1).expand(-1, -1, -1, -1, 6).contiguous()
    shared = method.inferer(batch_size=4, share_noise=True)(same, method.network())
    assert torch.equal(shared, shared[..., :1].expand_as(shared))
    own = method.inferer(batch_size=4, share_noise=False)(same, method.network())
    for number in range(5):
        assert (own[..., number] - own[..., number + 1]).abs().max() > 1e-3


@every_sampler
def test_samples_are_channels_that_differ(method: Method) -> None:
    result = method.inferer(num_samples=3)(volume(), method.network())
    assert result.shape == (1, 3, *SIZE, 7)
    assert (result[:, 0] - result[:, 1]).abs().max() > 1e-3
    assert (result[:, 1] - result[:, 2]).abs().max() > 1e-3
    fewer = method.inferer(num_samples=2)(volume(), method.network())
    assert torch.equal(fewer, result[:, :2])  # a sample does not depend on how many are drawn


@every_sampler
@shared_or_not
def test_noise_depends_on_case_and_seed(method: Method, share_noise: bool) -> None:
    def translated(case: str, seed: int = 0) -> Tensor:
        return method.inferer(share_noise=share_noise, seed=seed)(volume(), method.network(), case=[case])

    first = translated("a")
    assert torch.equal(translated("a"), first)
    assert (translated("b") - first).abs().max() > 1e-3
    assert (translated("a", seed=1) - first).abs().max() > 1e-3


@every_sampler
def test_volumes_of_a_batch_have_the_noise_of_their_own_case(method: Method) -> None:
    both = torch.cat([volume(seed=0), volume(seed=1)])
    inferer = method.inferer()
    together = inferer(both, method.network(), case=["a", "b"])
    for number, case in enumerate("ab"):
        alone = inferer(both[number : number + 1], method.network(), case=[case])
        assert torch.equal(together[number : number + 1], alone)


@every_sampler
def test_neighbors_of_blank_slices_keep_their_noise(method: Method) -> None:
    """The noise belongs to the number of the slice, not to its place among those that are translated."""
    sources = volume(5)
    inferer = method.inferer(share_noise=False)
    whole = inferer(sources, method.network())
    sources[..., 1] = -1.0
    assert torch.equal(inferer(sources, method.network())[..., 2:], whole[..., 2:])


# Volumes


@every_method
def test_a_translation_lies_where_its_source_does(method: Method) -> None:
    """Tensors with a place in space keep it; others stay plain."""
    places = [torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])), torch.diag(torch.tensor([-1.0, -1.0, 5.0, 1.0]))]
    items = [
        {"image": MetaTensor(volume()[0], affine=place, meta={"filename_or_obj": name})}
        for place, name in zip(places, ("a.nii", "b.nii"), strict=True)
    ]
    batch = next(iter(DataLoader(items, batch_size=2)))["image"]
    result = method.inferer()(batch, method.network())
    for one, place, name in zip(decollate_batch(result), places, ("a.nii", "b.nii"), strict=True):
        assert torch.equal(one.affine, place.double())
        assert one.meta["filename_or_obj"] == name
        assert one.shape == (1, *SIZE, 7)
    assert type(method.inferer()(volume(), method.network())) is Tensor


@every_sampler
def test_several_samples_lie_there_too(method: Method) -> None:
    place = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])).double()
    result = method.inferer(num_samples=2)(MetaTensor(volume(), affine=place), method.network())
    assert torch.equal(result.affine, place)
    assert result.shape == (1, 2, *SIZE, 7)


@every_method
def test_blank_slices_become_background_without_the_network(method: Method) -> None:
    sources = volume(9)
    sources[..., [0, 4, 8]] = -1.0
    network = method.network()
    result = method.inferer(batch_size=4)(sources, network)
    assert torch.equal(result[..., [0, 4, 8]], torch.full_like(result[..., [0, 4, 8]], -1.0))
    assert [len(t) for t in network.times] == [4] * method.calls + [2] * method.calls
    kept = [1, 2, 3, 5, 6, 7]
    assert torch.equal(result[..., kept], method.inferer()(sources, method.network())[..., kept])


@every_method
@pytest.mark.parametrize(("pixels", "translated"), [(1, False), (2, True)])
def test_a_slice_is_translated_from_the_given_share_of_foreground_on(
    method: Method, pixels: int, translated: bool
) -> None:
    sources = torch.full((1, 1, *SIZE, 1), -1.0)
    sources.view(-1)[:pixels] = -0.9
    network = method.network()
    method.inferer(min_foreground=2 / 24)(sources, network)
    assert bool(network.times) == translated


@every_method
def test_a_volume_without_foreground_is_background(method: Method) -> None:
    network = method.network()
    blank = torch.full((1, 1, *SIZE, 3), -1.0)
    assert torch.equal(method.inferer()(blank, network), blank)
    assert network.times == []


@every_method
@pytest.mark.parametrize("depth", [4, 40])
def test_no_more_slices_reach_the_network_at_once_than_asked_for(method: Method, depth: int) -> None:
    """So the network's memory does not grow with the volume."""
    network = method.network()
    method.inferer(batch_size=4)(volume(depth), network)
    assert {len(t) for t in network.times} == {4}
    assert len(network.times) == method.calls * depth // 4


@every_method
@pytest.mark.parametrize("shape", [(2, 1, 6, 6), (2, 2, *SIZE), (1, 1, *reversed(SIZE), 3), (1, 1, 12, 8, 3)], ids=str)
def test_images_of_another_size_are_refused_before_the_network_is_called(
    method: Method, shape: tuple[int, ...]
) -> None:
    network = method.network()
    with pytest.raises(ValueError, match=r"sources of shape \(.*\); this network takes slices of 6 x 4 pixels in one"):
        method.inferer()(torch.zeros(shape), network)
    assert network.times == []


@every_method
@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_samples": 0}], ids=str)
def test_impossible_numbers_are_refused(method: Method, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"batch_size=\d+ and num_samples=\d+ must be at least 1"):
        method.inferer(**options)


@every_method
def test_a_network_that_is_not_ready_is_asked_first(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    def unready() -> None:
        raise RuntimeError("no description")

    network = method.network()
    monkeypatch.setattr(network, "check_ready", unready)
    with pytest.raises(RuntimeError, match="no description"):
        method.inferer()(volume(), network)
    assert network.times == []
