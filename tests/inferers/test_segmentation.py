"""Segmentation of volumes: their slices, in any batches, on the grid they came from."""

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from torch import Tensor, nn

from common.inferers.segmentation import SegmentationInferer, SegmentationVolumeInferer
from common.transforms.slicing import CropOrErrord, RespaceInPlaned

SIZE = (6, 5)


class Thirds(nn.Module):
    """Class 0, 1 or 2 for each third of the brightness; keeps the sizes of its batches."""

    image_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        centers = torch.tensor([1 / 6, 1 / 2, 5 / 6]).reshape(1, 3, 1, 1)
        return -(image - centers).abs()


class Wrapped(nn.Module):
    """What distributed training makes of a network."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> Tensor:
        return self.module(image)


def volume(number: int = 2, depth: int = 7) -> Tensor:
    return torch.rand(number, 1, *SIZE, depth, generator=torch.Generator().manual_seed(0))


def test_every_pixel_of_a_volume_gets_its_class() -> None:
    result = SegmentationVolumeInferer(batch_size=4)(volume(), Thirds())
    assert result.dtype == torch.float32
    assert torch.equal(result, (3 * volume()).floor())


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 14), (4, [4, 4, 4, 2]), (64, [14])])
def test_slices_go_through_the_network_in_batches(batch_size: int, batches: list[int]) -> None:
    network = Thirds()
    result = SegmentationVolumeInferer(batch_size)(volume(), network)
    assert network.batches == batches
    assert torch.equal(result, (3 * volume()).floor())


def test_slices_are_segmented_as_volumes_are_also_by_a_wrapped_network() -> None:
    slices = volume()[..., 3]
    assert torch.equal(SegmentationVolumeInferer()(slices, Wrapped(Thirds())), (3 * slices).floor())


def test_in_training_the_logits_are_passed_on_in_float32() -> None:
    network = nn.Conv2d(1, 3, 1)
    image = volume()[..., 0]
    result = SegmentationInferer(amp=True)(image, network)
    assert result.dtype == torch.float32
    assert result.requires_grad
    torch.testing.assert_close(SegmentationInferer()(image, network), network(image))


def test_geometry_stays_so_that_the_inverse_finds_the_grid_of_the_file() -> None:
    """The label map's own trace takes nearest pixels; the image's would mix classes."""
    spatial = Compose(
        [
            RespaceInPlaned(["image", "label"], spacing_mm=1.0, nearest=[False, True]),
            CropOrErrord(["image", "label"], SIZE),
        ]
    )
    affine = torch.diag(torch.tensor([1.7, 1.7, 4.0, 1.0]))
    native = torch.rand(1, 8, 7, 3, generator=torch.Generator().manual_seed(1))
    items: Any = {key: MetaTensor(native, affine=affine) for key in ("image", "label")}
    item = spatial(items)
    pred = SegmentationVolumeInferer()(item["image"][None], Thirds())[0]
    assert isinstance(pred, MetaTensor)
    restored = Invertd("pred", spatial, orig_keys="label", nearest_interp=True)({**item, "pred": pred})["pred"]
    assert restored.shape == native.shape
    torch.testing.assert_close(restored.affine, affine.double())
    assert set(restored.unique().tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("shape", [(1, 1, 5, 6), (1, 1, 5, 6, 3), (1, 2, 6, 5), (1, 6, 5)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="slices of 6 x 5 pixels in one channel"):
        SegmentationVolumeInferer()(torch.zeros(shape), Thirds())


def test_a_batch_has_at_least_one_slice() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        SegmentationVolumeInferer(0)
