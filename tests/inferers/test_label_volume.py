"""Label volumes become image volumes slice by slice, whatever the batches, and empty ones are refused by name."""

import sys
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.inferers.label_synthesis import LabelSynthesisInferer
from common.inferers.label_volume import LabelVolumeInferer

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from tiny_synthesizers import SIZE, images, labels, synthesizer

NETWORK = synthesizer()


def volume() -> Tensor:
    """(1, 1, X, Y, Z) of labels; slices 0 and 3 have none, slice 4 has nine labelled pixels."""
    label = labels(6).permute(1, 2, 3, 0)[None].clone()
    label[..., 0] = label[..., 3] = label[..., 4] = 0
    label[:, :, 5:8, 6:9, 4] = 2
    return label


def inferer(start: int | None = None, seed: int = 0, **options: int) -> LabelVolumeInferer:
    return LabelVolumeInferer(
        LabelSynthesisInferer(start=start, num_steps=2, seed=seed, requantize=False, clip_x0=False), **options
    )


def test_labelled_slices_are_painted_and_the_others_stay_black() -> None:
    result = inferer()(volume(), NETWORK)
    assert result.shape == (1, 1, *SIZE, 6)
    painted = result.flatten(0, 3).gt(0).any(dim=0)
    assert painted.tolist() == [False, True, True, False, True, True]


@pytest.mark.parametrize(("min_label_pixels", "expected"), [(9, True), (10, False)])
def test_slices_with_few_labelled_pixels_may_be_left_out(min_label_pixels: int, expected: bool) -> None:
    result = inferer(min_label_pixels=min_label_pixels)(volume(), NETWORK)
    assert bool(result[..., 4].any()) is expected
    assert result[..., 5].any()


def test_every_slice_may_be_painted() -> None:
    result = inferer(min_label_pixels=0)(torch.zeros(1, 1, *SIZE, 2), NETWORK)
    assert result.flatten(0, 3).gt(0).any(dim=0).all()


def test_the_result_does_not_depend_on_the_batches() -> None:
    whole = inferer(batch_size=16)(volume(), NETWORK)
    torch.testing.assert_close(inferer(batch_size=3)(volume(), NETWORK), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("share_noise", [True, False])
def test_cases_samples_and_seeds_have_noise_of_their_own_and_slices_unless_they_share_it(share_noise: bool) -> None:
    same = volume()[..., [1, 1, 2]]

    def result(seed: int = 0, case: str = "a", index: int = 0) -> Tensor:
        paint = inferer(seed=seed, share_noise=share_noise)
        return paint(same, NETWORK, case=[case], index=torch.tensor([index]))

    first = result()
    assert torch.equal(result(), first)
    assert torch.allclose(first[..., 0], first[..., 1], atol=1e-3) == share_noise
    for other in (result(seed=1), result(case="b"), result(index=1)):
        assert not torch.allclose(other, first, atol=1e-3)


def test_volumes_of_a_batch_are_painted_one_by_one() -> None:
    both = torch.cat([volume(), volume().flip(2)])
    result = inferer()(both, NETWORK, case=["a", "b"])
    torch.testing.assert_close(result[1:], inferer()(both[1:], NETWORK, case=["b"]), atol=1e-4, rtol=0)


def test_real_volumes_are_reconstructed_slice_by_slice() -> None:
    real = images(6).permute(1, 2, 3, 0)[None]
    result = inferer(start=0)(volume(), NETWORK, image=real)
    space = NETWORK.autoencoder
    for position in (1, 2, 4, 5):
        expected = space.decode(space.encode(real[..., position]), quantize=False)
        torch.testing.assert_close(result[..., position], expected, atol=1e-4, rtol=0)
    assert result[..., [0, 3]].eq(0).all()


def test_the_image_lies_where_its_label_does() -> None:
    affine = torch.diag(torch.tensor([1.5, 1.5, 8.0, 1.0], dtype=torch.float64))
    result = inferer()(MetaTensor(volume(), affine=affine), NETWORK)
    assert isinstance(result, MetaTensor)
    assert torch.equal(result.affine, affine)


@pytest.mark.parametrize("most", [0, 9])
def test_a_volume_without_labels_is_refused_by_name(most: int) -> None:
    label = torch.zeros_like(volume()) if most == 0 else volume()[..., [0, 4]]
    with pytest.raises(ValueError, match=rf"label map of patient007 is empty, or.* 50 labelled .*the most is {most}\)"):
        inferer(min_label_pixels=50)(label, NETWORK, case=["patient007"])


def test_slices_are_no_volume() -> None:
    with pytest.raises(ValueError, match=r"needs \(B, 1, X, Y, Z\)"):
        inferer()(labels(), NETWORK)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"min_label_pixels": -1}])
def test_bad_settings_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1 and min_label_pixels=-?\d+ not negative"):
        inferer(**options)
