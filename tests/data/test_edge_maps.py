"""Edge maps beside their slices: those of the edge function, made once."""

import logging
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import DataLoader

from common.data.edge_maps import EdgeMaps
from common.data.slices import SliceDataset, ready_batch
from common.transforms.loading import LoadVolumed

CALLS: list[int] = []


def bright(images: Tensor, above: float = 0.9) -> Tensor:
    """A stand-in for edges: pixels brighter than a share of white."""
    CALLS.append(len(images))
    return (images > above).to(torch.uint8)


@pytest.fixture
def slices(tmp_path: Path) -> SliceDataset:
    """Two volumes of 5 slices of 8 x 12, grey levels 0..255 at random, and labels."""
    random = np.random.default_rng(0)
    items = []
    for number in range(2):
        item = {"patient": f"p{number}"}
        for key, high in (("image", 255), ("label", 3)):
            item[key] = str(tmp_path / f"{number}_{key}.nii.gz")
            voxels = random.uniform(0, high, (8, 12, 5)).round().astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), item[key])
        items.append(item)
    CALLS.clear()
    keys = ["image", "label"]
    return SliceDataset(items, Compose([LoadVolumed(keys)]), tmp_path / "cache", keys=keys, progress=False)


def edge_maps(slices: SliceDataset, edges: Any = bright) -> EdgeMaps:
    assert slices.folder is not None
    return EdgeMaps(slices, slices.folder.parent, edges, batch_size=4, progress=False)


def test_batches_are_those_of_the_slices_with_the_edges_of_each(slices: SliceDataset) -> None:
    data = edge_maps(slices)
    indices = [9, 0, 4]
    batch, plain = data.__getitems__(indices), slices.__getitems__(indices)
    assert batch.keys() == {"image", "label", "edges", "index"}
    for name, value in plain.items():
        assert torch.equal(batch[name], value)
    assert torch.equal(batch["edges"], (plain["image"] > 0.9 * 255).float())
    assert batch["edges"].dtype == torch.float32
    assert data.arrays["edges"].dtype == np.uint8
    assert data.patients == slices.patients
    assert data.describe(9) == slices.describe(9)


def test_a_loader_delivers_every_slice_once(slices: SliceDataset) -> None:
    loader = DataLoader(edge_maps(slices), batch_size=4, shuffle=True, collate_fn=ready_batch)
    assert sorted(torch.cat([batch["index"] for batch in loader]).tolist()) == list(range(10))


def test_edges_are_found_once_and_anew_with_other_settings(slices: SliceDataset) -> None:
    first = edge_maps(slices)
    assert CALLS == [4, 4, 2]
    assert edge_maps(slices).folder == first.folder
    assert len(CALLS) == 3
    other = edge_maps(slices, partial(bright, above=0.95))
    assert len(CALLS) == 6
    assert other.folder != first.folder
    assert other.share < first.share
    assert edge_maps(slices, partial(bright, above=0.93)).folder not in (first.folder, other.folder)


@pytest.mark.parametrize(
    ("above", "warning"), [(0.999, "Lower the thresholds"), (0.9, None), (0.5, "Raise the thresholds")]
)
def test_the_share_of_edges_is_logged_and_an_unusual_one_is_a_warning(
    slices: SliceDataset, above: float, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="common.data.edge_maps"):
        data = edge_maps(slices, partial(bright, above=above))
    assert data.share == pytest.approx((slices.images[:, 0].astype(float) > 255 * above).mean())
    assert f"{100 * data.share:.1f} % of the pixels lie on edges." in caplog.text
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (0 if warning is None else 1)
    assert all(warning in text for text in warnings if warning)


def test_an_image_is_needed(slices: SliceDataset, tmp_path: Path) -> None:
    labels = SliceDataset(slices.data, Compose([LoadVolumed("label")]), keys=["label"], progress=False)
    with pytest.raises(ValueError, match="the slices have the keys label; image is needed"):
        EdgeMaps(labels, tmp_path, bright)


def test_pickled_edges_travel_without_arrays(slices: SliceDataset) -> None:
    data = edge_maps(slices)
    copy = pickle.loads(pickle.dumps(data))
    assert isinstance(copy.arrays["edges"], np.memmap)
    assert torch.equal(copy[4]["edges"], data[4]["edges"])
