"""Windows and weights of resampling, against brute force and PyTorch."""

import itertools

import pytest
import torch
from monai.data import MetaTensor
from torch.nn.functional import interpolate

from common.transforms.grids import centered_start, resample_in_plane, resampling_matrix, slice_affine, window

OBLIQUE = torch.tensor(
    [[0.0, -1.25, 0.3, 12.5], [1.1, 0.0, 0.0, -7.0], [0.0, 0.2, 8.0, 3.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)


def noise(*shape: int) -> MetaTensor:
    return MetaTensor(torch.rand(shape, generator=torch.Generator().manual_seed(0)), affine=OBLIQUE)


@pytest.mark.parametrize(
    ("start", "size"),
    [((1, 2, 0), (3, 2, 4)), ((-2, 1, -1), (9, 3, 3)), ((-3, -1, -2), (12, 9, 9)), ((7, 0, 0), (2, 6, 4))],
    ids=["inside", "across", "around", "outside"],
)
def test_a_window_holds_the_voxels_at_their_places_and_background_elsewhere(
    start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    image = noise(2, 5, 6, 4)
    result = window(image, start, size, fill=-3.0)
    assert result.shape == (2, *size)
    for index in itertools.product(*(range(n) for n in size)):
        old = [i + first for i, first in zip(index, start, strict=True)]
        inside = all(0 <= i < n for i, n in zip(old, image.shape[1:], strict=True))
        expected = image[(slice(None), *old)].as_tensor() if inside else torch.full((2,), -3.0)
        assert torch.equal(result[(slice(None), *index)].as_tensor(), expected)
        places = [
            one.affine @ torch.tensor([*at, 1.0], dtype=torch.float64) for one, at in ((result, index), (image, old))
        ]
        torch.testing.assert_close(places[0], places[1])


@pytest.mark.parametrize(("have", "need"), [(10, 4), (11, 4), (10, 5), (11, 5), (4, 10), (4, 11), (5, 10), (5, 5)])
def test_the_central_window_is_off_by_at_most_half_a_pixel_and_undone_by_its_negative(have: int, need: int) -> None:
    (start,) = centered_start([have], [need])
    assert abs((start + (need - 1) / 2) - (have - 1) / 2) <= 0.5
    image = noise(1, have, 1, 1)
    there = window(image, (start, 0, 0), (need, 1, 1), fill=-1.0)
    back = window(there, (-start, 0, 0), (have, 1, 1), fill=-1.0)
    torch.testing.assert_close(back.affine, image.affine)
    kept = back != -1
    assert kept.sum() == min(have, need)
    assert torch.equal(back[kept].as_tensor(), image[kept].as_tensor())


@pytest.mark.parametrize(("size", "ratio"), [(20, 1.0), (20, 2.0), (21, 2.7), (20, 0.4), (33, 1.3)])
def test_weights_agree_with_antialiased_interpolation(size: int, ratio: float) -> None:
    row = torch.randn(1, 1, 1, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    peer = interpolate(row, scale_factor=(1.0, 1 / ratio), mode="bilinear", antialias=True)[0, 0, 0]
    matrix = resampling_matrix(size, len(peer), ratio)
    inner = slice(1, -1)  # at the very edge the two cut the triangle differently
    torch.testing.assert_close((matrix @ row[0, 0, 0])[inner], peer[inner], atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(peer), dtype=torch.float64))


@pytest.mark.parametrize(("size", "ratio"), [(40, 0.5), (7, 3.1)])
def test_resampling_never_leaves_the_range_of_the_pixels(size: int, ratio: float) -> None:
    image = noise(1, 20, 20, 2)
    result = resample_in_plane(image, (size, size), (ratio, ratio), nearest=False)
    assert image.min() <= result.min()
    assert result.max() <= image.max() + 1e-6


def test_labels_are_resampled_without_new_values_and_keep_their_type() -> None:
    labels = (noise(1, 20, 20, 2) * 4).to(torch.uint8)
    result = resample_in_plane(labels, (31, 9), (20 / 31, 20 / 9), nearest=True)
    assert result.dtype == torch.uint8
    assert set(result.unique().tolist()) == {0, 1, 2, 3}


def test_the_affine_of_a_slice_is_the_place_of_its_voxels() -> None:
    for index in range(4):
        for x, y in ((0, 0), (3, 1)):
            place = slice_affine(OBLIQUE, index) @ torch.tensor([x, y, 0.0, 1.0], dtype=torch.float64)
            torch.testing.assert_close(place, OBLIQUE @ torch.tensor([x, y, index, 1.0], dtype=torch.float64))
