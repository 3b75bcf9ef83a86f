"""Latents of slices: the encoder's own moments, once, whole or not at all on disk, beside the right slice."""

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import DataLoader

from common.data.evaluation_slices import EvaluationSlices
from common.data.latent_views import LatentViews
from common.data.latents import LatentDataset
from common.data.slices import SliceDataset, ready_batch
from common.transforms.loading import LoadVolumed

SIDES = (16, 24)


class MeanPooling:
    """An autoencoder whose moments are known: 4 x 4 means times 1, 2, 3, and a log variance that follows them."""

    factor = 4

    def __init__(self, identity: str = "pooling:1", gain: float = 1.0) -> None:
        self.identity, self.gain, self.calls = identity, gain, 0

    def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        mean = self.gain * F.avg_pool2d(image, 4) * torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
        return mean, mean - 5


class Corner:
    """An image encoder: the first pixels."""

    identity = "corner:1"

    def __call__(self, image: Tensor) -> Tensor:
        return image[:, 0, 0, :5]


@pytest.fixture
def slices(tmp_path: Path) -> SliceDataset:
    """3 patients of 4, 5 and 6 slices that are 2, 3 and 4 mm apart; source in [-1, 1], target its negative."""
    random = np.random.default_rng(0)
    items = []
    for number in range(3):
        voxels = random.uniform(-1, 1, (*SIDES, 4 + number)).astype(np.float32)
        affine = np.diag([-1.0, -1.0, 2.0 + number, 1.0])
        affine[2, 3] = 100
        item = {"patient": f"p{number}"}
        for name, sign in (("source", 1), ("target", -1)):
            item[name] = str(tmp_path / f"{number}_{name}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(sign * voxels, affine), item[name])
        items.append(item)
    transform = Compose([LoadVolumed(["source", "target"])])
    return SliceDataset(
        items, transform, tmp_path / "cache", keys=["source", "target"], min_foreground=None, progress=False
    )


def latents(slices: SliceDataset, autoencoder: Any = None, **options: Any) -> LatentDataset:
    assert slices.folder is not None
    autoencoder = autoencoder or MeanPooling()
    return LatentDataset(slices, autoencoder, slices.folder.parent, batch_size=4, progress=False, **options)


def cached(slices: SliceDataset, kind: str) -> list[Path]:
    assert slices.folder is not None
    return sorted(path for path in slices.folder.parent.glob(f"*{kind}-*") if path.is_dir())


def test_moments_and_vectors_are_those_of_the_encoders(slices: SliceDataset) -> None:
    data = latents(slices, image_encoder=Corner(), keep_images=True)
    assert len(data) == 15
    indices = [14, 0, 7, 0]
    batch, pair = data.__getitems__(indices), slices.__getitems__(indices)
    for name in ("source", "target"):
        mean, logvar = MeanPooling().encode_moments(pair[name])
        torch.testing.assert_close(batch[f"{name}_mean"], mean, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(batch[f"{name}_logvar"], logvar, atol=4e-3, rtol=1e-3)
    assert torch.equal(batch["vector"], pair["source"][:, 0, 0, :5])
    assert torch.equal(batch["image"], pair["source"])
    assert batch["index"].tolist() == indices
    assert {value.dtype for name, value in batch.items() if name != "index"} == {torch.float32}
    assert data.describe(14) == "2_source.nii.gz, slice 5, frame 0"


def test_items_are_rows_of_batches_and_optional_ones_are_left_out(slices: SliceDataset) -> None:
    data = latents(slices)
    item, batch = data[3], data.__getitems__([3])
    assert item.keys() == {"source_mean", "source_logvar", "target_mean", "target_logvar", "index"}
    assert all(torch.equal(item[name], batch[name][0]) for name in item)


def test_a_loader_delivers_every_latent_once(slices: SliceDataset) -> None:
    data = latents(slices)
    loader = DataLoader(data, batch_size=4, shuffle=True, collate_fn=ready_batch, num_workers=2)
    assert sorted(torch.cat([batch["index"] for batch in loader]).tolist()) == list(range(15))


def test_half_precision_keeps_the_moments_and_only_moments_are_kept(slices: SliceDataset) -> None:
    """16 bytes per latent pixel of a pair and channel, as for 25 kB per pair of 224 x 224 pixels; no sample of them."""
    data = latents(slices)
    assert data.arrays.keys() == {"moments"}
    assert data.arrays["moments"].dtype == np.float16
    assert data.arrays["moments"].shape == (15, 2, 2, 3, 4, 6)


def test_latents_are_made_once_and_then_used(slices: SliceDataset) -> None:
    autoencoder = MeanPooling()
    first = latents(slices, autoencoder)
    assert autoencoder.calls == 2 * 4  # 15 slices, 4 at a time
    second = latents(slices, autoencoder)
    assert autoencoder.calls == 2 * 4
    assert second.folder == first.folder
    assert isinstance(second.arrays["moments"], np.memmap)
    np.testing.assert_array_equal(first.arrays["moments"], second.arrays["moments"])


def test_other_weights_encoders_or_slices_get_latents_of_their_own(slices: SliceDataset) -> None:
    latents(slices)
    latents(slices, MeanPooling("pooling:2", gain=2.0))
    latents(slices, image_encoder=Corner())
    assert len(cached(slices, "latents")) == 3
    keys = ["source", "target"]
    assert slices.folder is not None
    fewer = SliceDataset(slices.data[:2], slices.transform, slices.folder.parent, keys=keys, progress=False)
    assert len(latents(fewer)) == 9
    assert len(cached(slices, "latents")) == 4


def test_many_at_once_encode_once(slices: SliceDataset) -> None:
    """As ranks of one run, or runs of one machine, do: one encodes, the others wait."""
    autoencoder, found = MeanPooling(), []
    threads = [threading.Thread(target=lambda: found.append(len(latents(slices, autoencoder)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [15] * 4
    assert autoencoder.calls == 2 * 4


def test_a_broken_encoder_is_named_by_the_slice_and_leaves_nothing_behind(slices: SliceDataset) -> None:
    class Broken(MeanPooling):
        def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
            mean, logvar = super().encode_moments(image)
            if self.calls == 3:
                mean[1, 0, 0, 0] = torch.nan
            return mean, logvar

    with pytest.raises(ValueError, match=r"moments of 1_source\.nii\.gz, slice 1, frame 0 are not finite"):
        latents(slices, Broken())
    with pytest.raises(ValueError, match=r"do not fit into float16"):
        latents(slices, MeanPooling(gain=1e6))
    assert cached(slices, "latents") == []


@pytest.mark.parametrize("make", [latents, lambda slices, *rest, **options: views(slices, *rest, **options)])
def test_slices_that_are_no_whole_tokens_are_refused_before_encoding(slices: SliceDataset, make: Callable) -> None:
    autoencoder = MeanPooling()
    with pytest.raises(ValueError, match=r"image_size=\[16, 24\] must be two multiples of 16: .*nearest is \[16, 32\]"):
        make(slices, autoencoder, patch_size=4)
    assert autoencoder.calls == 0


def test_pairs_are_needed(tmp_path: Path, slices: SliceDataset) -> None:
    single = SliceDataset(
        [{"image": item["source"]} for item in slices.data], Compose([LoadVolumed("image")]), progress=False
    )
    with pytest.raises(ValueError, match="the slices have the keys image; source and target are needed"):
        LatentDataset(single, MeanPooling(), tmp_path, progress=False)


def test_pickled_latents_travel_without_arrays_and_encoders(slices: SliceDataset) -> None:
    data = latents(slices)
    slices.transform = len  # a picklable stand-in
    copy = pickle.loads(pickle.dumps(data))
    assert isinstance(copy.arrays["moments"], np.memmap)
    assert torch.equal(copy[4]["target_mean"], data[4]["target_mean"])
    assert b"MeanPooling" not in pickle.dumps(data)


def test_slices_of_an_evaluation_keep_their_order(slices: SliceDataset) -> None:
    assert slices.folder is not None
    chosen = EvaluationSlices(
        slices.data, slices.transform, slices.folder.parent, number=4, keys=["source", "target"], min_foreground=None
    )
    data = latents(chosen)
    assert len(data) == 4
    mean, _ = MeanPooling().encode_moments(chosen.__getitems__(range(4))["target"])
    torch.testing.assert_close(data.__getitems__(range(4))["target_mean"], mean, atol=1e-3, rtol=1e-3)
    assert data.folder != latents(slices).folder


def test_slices_know_their_patient_and_their_place(slices: SliceDataset) -> None:
    data = latents(slices)
    assert data.patients == slices.patients == ["p0"] * 4 + ["p1"] * 5 + ["p2"] * 6
    expected = np.concatenate([100 + (2 + number) * np.arange(4 + number) for number in range(3)])
    np.testing.assert_allclose(data.positions_mm, expected)
    for index in (0, 5, 14):  # the same by the affine of the slice
        assert slices.affine(index)[2, 3] == pytest.approx(data.positions_mm[index])


def test_items_without_a_patient_are_patients_of_their_own(slices: SliceDataset) -> None:
    slices.data = [{key: value for key, value in item.items() if key != "patient"} for item in slices.data]
    assert len(set(slices.patients)) == 3


def noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + torch.randn(images.shape, generator=generator)


def louder(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + 2 * torch.randn(images.shape, generator=generator)


def views(slices: SliceDataset, autoencoder: Any = None, **options: Any) -> LatentViews:
    assert slices.folder is not None
    autoencoder = autoencoder or MeanPooling()
    options = {"augment": noisy, "batch_size": 4, "views": 3} | options
    return LatentViews(slices, autoencoder, slices.folder.parent, progress=False, **options)


def test_views_are_the_means_of_augmented_slices(slices: SliceDataset) -> None:
    """Oracle: a view differs from the plain slice by the pooled noise, whose deviation is 1/4, 2/4 and 3/4."""
    data = views(slices, views=16)
    batch = data.__getitems__(range(15))
    assert batch["views"].shape == (15, 16, 3, 4, 6)
    assert batch["index"].tolist() == list(range(15))
    plain, _ = MeanPooling().encode_moments(slices.__getitems__(range(15))["source"])
    noise = batch["views"] - plain[:, None]
    torch.testing.assert_close(noise.std(dim=(0, 1, 3, 4)), torch.tensor([0.25, 0.5, 0.75]), rtol=0.03, atol=0)
    flat = noise[:, :, 0].reshape(15 * 16, -1)
    correlation = torch.corrcoef(flat) - torch.eye(len(flat))
    assert correlation.abs().max() < 0.9  # no two views, of one slice or of two, have the same noise


def test_views_are_a_function_of_the_seed(slices: SliceDataset) -> None:
    rows = [views(slices, seed=seed).__getitems__([9])["views"] for seed in (1, 2)]
    assert not torch.equal(rows[0], rows[1])
    again = views(slices, MeanPooling("the same:2"), seed=1).__getitems__([9])["views"]  # another folder
    assert torch.equal(again, rows[0])


def test_other_settings_get_views_of_their_own(slices: SliceDataset) -> None:
    views(slices)
    views(slices, seed=1)
    views(slices, views=2)
    views(slices, augment=louder)
    views(slices)
    assert len(cached(slices, "views")) == 4


def test_without_views_the_moments_of_the_slice_are_kept(slices: SliceDataset) -> None:
    data = views(slices, views=0, augment=None)
    batch = data.__getitems__([3, 11])
    assert batch.keys() == {"mean", "logvar", "index"}
    mean, logvar = MeanPooling().encode_moments(slices.__getitems__([3, 11])["source"])
    torch.testing.assert_close(batch["mean"], mean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(batch["logvar"], logvar, atol=4e-3, rtol=1e-3)
    assert views(slices, views=0, seed=7).folder == data.folder  # the seed is that of views


def test_impossible_numbers_of_views_are_refused(slices: SliceDataset) -> None:
    with pytest.raises(ValueError, match="views=1; two are needed"):
        views(slices, views=1)
    with pytest.raises(ValueError, match="views=3 need `augment`"):
        views(slices, augment=None)


def test_latents_of_slices_in_memory_need_a_folder_of_their_own_only(slices: SliceDataset, tmp_path: Path) -> None:
    memory = SliceDataset(slices.data, slices.transform, keys=["source", "target"], min_foreground=None, progress=False)
    data = LatentDataset(memory, MeanPooling(), tmp_path / "cache", batch_size=4, progress=False)
    assert data.folder == latents(slices).folder
