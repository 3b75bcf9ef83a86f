"""What is derived from a slice data set: evaluation sets, statistics, requests for samples."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from common.data.coefficient_statistics import slice_statistics
from common.data.evaluation_slices import EvaluationSlices
from common.data.requests import SampleRequests
from common.data.slices import SliceDataset
from common.frequency.layout import TokenLayout
from common.frequency.statistics import CoefficientStatistics
from common.metrics.reference import ReferenceImages


def numbered_slices(item: dict) -> dict:
    """Ten 20x16 slices of noise whose first pixel is the slice's number."""
    stack = np.random.default_rng(0).uniform(0, 255, (10, 20, 16)).astype(np.float32)
    stack[:, 0, 0] = np.arange(10)
    return {"image": MetaTensor(torch.from_numpy(stack), affine=torch.eye(4, dtype=torch.float64))}


@pytest.fixture
def data(tmp_path) -> list[dict]:
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(b"stands for a file")
    return [{"image": str(path)}]


def build(kind: type, data: list[dict], **options: object) -> SliceDataset:
    return (
        kind(data, Compose([numbered_slices]), progress=False, **options)
        if kind is SliceDataset
        else kind(data, Compose([numbered_slices]), **options)
    )


@pytest.mark.parametrize(("number", "slices"), [(5, [1, 3, 5, 7, 9]), (20, [i // 2 for i in range(20)])])
def test_evaluation_slices_are_evenly_spread_and_numbered(data: list[dict], number: int, slices: list[int]) -> None:
    dataset = build(EvaluationSlices, data, number=number)
    batch = dataset.__getitems__(list(range(number)))
    assert len(dataset) == number
    assert batch["index"].tolist() == list(range(number))
    assert batch["image"][:, 0, 0, 0].tolist() == slices
    assert dataset[number - 1]["index"] == number - 1
    assert dataset[number - 1]["image"][0, 0, 0] == slices[-1]


@pytest.mark.parametrize(("number", "slices"), [(5, [1, 3, 5, 7, 9]), (20, [i // 2 for i in range(20)])])
def test_a_sample_is_described_by_the_slice_it_is_compared_with(
    data: list[dict], number: int, slices: list[int]
) -> None:
    """Each slice is one frame of the file."""
    dataset = build(EvaluationSlices, data, number=number)
    expected = [f"volume.nii.gz, slice 0, frame {place}" for place in slices]
    assert [dataset.describe(index) for index in range(number)] == expected
    assert [dataset.describe(index) for index in dataset.__getitems__([3, 1])["index"]] == [expected[3], expected[1]]


def test_statistics_are_those_of_the_central_pixels(data: list[dict]) -> None:
    dataset = build(SliceDataset, data)
    images = dataset.__getitems__(list(range(10)))["image"][:, 0]
    expected = CoefficientStatistics.from_images([images[:, 2:18]], block=2)
    found = slice_statistics(dataset, (16, 16), block=2)
    torch.testing.assert_close(found.std, expected.std)
    torch.testing.assert_close(found.mean, expected.mean)
    assert found.eta == expected.eta
    assert slice_statistics(dataset, (16, 16), block=2, maximum=4).num_slices == 4


def test_reference_images_are_scaled_and_cropped(data: list[dict]) -> None:
    dataset = build(SliceDataset, data)
    reference = ReferenceImages(dataset, image_size=(16, 16), maximum=4)
    images = dataset.__getitems__([0, 3, 6, 9])["image"]
    torch.testing.assert_close(reference.images, images[..., 2:18, :] / 255)
    assert reference.indices == [0, 3, 6, 9]
    torch.testing.assert_close(reference.moments(4).mean, reference.features(4).mean(0))


def test_requests_carry_number_and_geometry() -> None:
    requests = SampleRequests(3, (8, 6), spacing_mm=2.5, start=4)
    assert [item["index"] for item in (requests[0], requests[2])] == [4, 6]
    image = requests[1]["image"]
    assert image.shape == (1, 8, 6)
    assert image.affine.diagonal().tolist() == [-2.5, -2.5, 1, 1]
    with pytest.raises(ValueError, match="num_samples=0"):
        SampleRequests(0, (8, 6))


def test_token_layout_is_that_of_the_paper() -> None:
    """ACDC and EchoNet of the paper: T = 144 and 196; F = 64, or 48 with four coefficients dropped."""
    acdc, echo = TokenLayout((96, 96), 4), TokenLayout((112, 112), 4, dropped=4)
    assert (acdc.grid, acdc.num_features) == ((12, 12), 64)
    assert (echo.grid, echo.num_features) == ((14, 14), 48)
    assert TokenLayout((90, 97), 4).grid == (12, 13)  # padded to whole tokens
    with pytest.raises(ValueError, match=r"0\.\.15"):
        TokenLayout((96, 96), 4, dropped=16)
