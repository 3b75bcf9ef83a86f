"""Latents of labelled slices: the encoder's own, once on disk, beside the right label, with their true moments."""

import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.transforms import Compose
from torch import Tensor

from common.data.labelled_latents import LabelledLatents
from common.data.slices import SliceDataset
from common.transforms.loading import LoadVolumed

SIDES = (16, 24)


class MeanPooling:
    """An autoencoder whose latents are known: 4 x 4 means of the image times 1 and 3, far from 0 in the second."""

    def __init__(self, identity: str = "pooling:1", gain: float = 1.0) -> None:
        self.identity, self.gain, self.calls = identity, gain, 0

    def encode(self, image: Tensor) -> Tensor:
        self.calls += 1
        pooled = self.gain * F.avg_pool2d(image, 4)
        return torch.cat([pooled, 3 * pooled - 40], dim=1)


@pytest.fixture
def slices(tmp_path: Path) -> SliceDataset:
    """2 patients of 4 and 5 slices, images in 0..255, labels in 0..3."""
    random = np.random.default_rng(0)
    items = []
    for number in range(2):
        shape = (*SIDES, 4 + number)
        voxels = {"image": random.uniform(0, 255, shape), "label": random.integers(0, 4, shape)}
        item = {"patient": f"p{number}"}
        for name, values in voxels.items():
            item[name] = str(tmp_path / f"{number}_{name}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.diag([-1.0, -1.0, 5.0, 1.0])), item[name])
        items.append(item)
    transform = Compose([LoadVolumed(["image", "label"])])
    return SliceDataset(items, transform, tmp_path / "cache", keys=["image", "label"], progress=False)


def latents(slices: SliceDataset, autoencoder: Any = None, **options: Any) -> LabelledLatents:
    assert slices.folder is not None
    return LabelledLatents(slices, autoencoder or MeanPooling(), slices.folder.parent, progress=False, **options)


def test_latents_are_those_of_images_between_0_and_1_beside_their_labels(slices: SliceDataset) -> None:
    data = latents(slices, batch_size=4)
    indices = [8, 0, 3, 0]
    batch, original = data.__getitems__(indices), slices.__getitems__(indices)
    expected = MeanPooling().encode(original["image"] / 255)
    assert batch.keys() == {"latent", "label", "index"}
    torch.testing.assert_close(batch["latent"], expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(batch["label"], original["label"])
    assert batch["index"].tolist() == indices
    assert batch["latent"].dtype == batch["label"].dtype == torch.float32
    item = data[3]
    assert all(torch.equal(item[name], batch[name][2]) for name in item)


@pytest.mark.parametrize("batch_size", [2, 4, 32])
def test_moments_are_those_of_all_latents_together(slices: SliceDataset, batch_size: int) -> None:
    data = latents(slices, batch_size=batch_size)
    everything = data.__getitems__(range(len(data)))["latent"].double()
    mean, std = data.moments()
    assert mean.dtype == std.dtype == torch.float32
    torch.testing.assert_close(mean, everything.mean((0, 2, 3)).float())
    torch.testing.assert_close(std, everything.std((0, 2, 3), correction=0).float())


def test_small_deviations_far_from_zero_are_not_lost(slices: SliceDataset) -> None:
    """The mean of squares less the square of the mean would lose them."""
    data = latents(slices)
    random = np.random.default_rng(1)
    data.arrays = {"latents": 1e6 + 1e-3 * random.standard_normal((500, 2, 4, 6))}
    torch.testing.assert_close(data.moments()[1], torch.full((2,), 1e-3), rtol=0.03, atol=0)


def test_latents_are_made_once_for_each_autoencoder(slices: SliceDataset) -> None:
    autoencoder = MeanPooling()
    first = latents(slices, autoencoder, batch_size=4)
    assert autoencoder.calls == 3
    assert latents(slices, autoencoder).folder == first.folder
    assert autoencoder.calls == 3
    other = latents(slices, MeanPooling("pooling:2", gain=2.0))
    assert other.folder != first.folder
    torch.testing.assert_close(other[0]["latent"][0], 2 * first[0]["latent"][0])


def test_labels_are_needed(tmp_path: Path, slices: SliceDataset) -> None:
    images = SliceDataset(
        [{"image": item["image"]} for item in slices.data], Compose([LoadVolumed("image")]), progress=False
    )
    with pytest.raises(ValueError, match="the slices have the keys image; image and label are needed"):
        LabelledLatents(images, MeanPooling(), tmp_path, progress=False)


def test_a_broken_autoencoder_is_named_by_the_slice(slices: SliceDataset) -> None:
    with pytest.raises(ValueError, match=r"latents of 0_image\.nii\.gz, slice 0, frame 0 are not finite"):
        latents(slices, MeanPooling(gain=torch.nan))


def test_pickled_latents_travel_without_arrays_and_autoencoder(slices: SliceDataset) -> None:
    data = latents(slices)
    slices.transform = len  # a picklable stand-in
    assert torch.equal(pickle.loads(pickle.dumps(data))[4]["latent"], data[4]["latent"])
    assert b"MeanPooling" not in pickle.dumps(data)
