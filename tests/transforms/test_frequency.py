"""Frequency transforms on MONAI images: values, inverses, geometry."""

import pytest
import torch
from monai.data import MetaTensor, set_track_meta
from monai.transforms import Compose, Invertd, InvertibleTransform
from torch import Tensor

from common.frequency.codec import encode_image, pad_to_tokens
from common.frequency.dct import block_dct2d
from common.transforms.frequency import BlockDCT, BlockDCTd, DCTTokens, DCTTokensd, HaarDWT, HaarDWTd

AFFINE = torch.tensor(
    [[0.0, -1.4, 0.3, 40.0], [1.5, 0.0, 0.2, -60.0], [0.0, 0.1, 8.0, 5.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)


def _image(*shape: int) -> MetaTensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255
    return MetaTensor(values, affine=AFFINE.clone(), meta={"filename_or_obj": "patient001.nii.gz"})


def test_block_dct_places_frequency_u_v_of_channel_c_at_its_channel() -> None:
    image = _image(2, 8, 12)
    coefficients = BlockDCT(4)(image)
    assert coefficients.shape == (32, 2, 3)
    expected = block_dct2d(image.as_tensor(), 4)  # (C, 2, 3, u, v)
    for c, u, v in [(0, 0, 0), (0, 1, 0), (1, 2, 3)]:
        torch.testing.assert_close(coefficients[16 * c + 4 * u + v].as_tensor(), expected[c, :, :, u, v])


def test_tokens_are_those_of_the_padded_image() -> None:
    image = _image(1, 20, 24)
    tokens = DCTTokens(4, 500.0, dropped=4)(image)
    expected = encode_image(pad_to_tokens(image.as_tensor(), 4), block=4, dropped=4, eta=500.0)[0]
    assert tokens.shape == (9, 48)
    torch.testing.assert_close(tokens.as_tensor(), expected, rtol=0, atol=2e-6)


TRANSFORMS = [
    pytest.param(BlockDCTd("image", block=4), (2, 8, 12), id="BlockDCTd"),
    pytest.param(DCTTokensd("image", block=4, eta=500.0), (1, 13, 24), id="DCTTokensd"),
    pytest.param(HaarDWTd("image"), (3, 6, 10), id="HaarDWTd"),
]


@pytest.mark.parametrize(("transform", "shape"), TRANSFORMS)
def test_inverse_restores_values_geometry_and_history(transform: InvertibleTransform, shape: tuple[int, ...]) -> None:
    image = _image(*shape)
    pipeline = Compose([transform])
    restored = pipeline.inverse(pipeline({"image": image}))["image"]
    torch.testing.assert_close(restored.as_tensor(), image.as_tensor(), rtol=0, atol=1e-3)
    torch.testing.assert_close(restored.affine, AFFINE)
    assert restored.meta["filename_or_obj"] == "patient001.nii.gz"
    assert restored.applied_operations == []
    torch.testing.assert_close(image.affine, AFFINE, rtol=0, atol=0)  # the input was not changed


@pytest.mark.parametrize(("transform", "shape"), TRANSFORMS)
def test_invertd_leads_a_prediction_back_to_pixels(transform: InvertibleTransform, shape: tuple[int, ...]) -> None:
    image = _image(*shape)
    pipeline = Compose([transform])
    item = pipeline({"image": image})
    item["pred"] = MetaTensor(item["image"].as_tensor().clone())  # a network's output: no history of its own
    item = Invertd(keys="pred", orig_keys="image", transform=pipeline, nearest_interp=False)(item)
    torch.testing.assert_close(item["pred"].as_tensor(), image.as_tensor(), rtol=0, atol=1e-3)
    torch.testing.assert_close(item["pred"].affine, AFFINE)


@pytest.mark.parametrize(("transform", "factor"), [(BlockDCT(4), 4), (HaarDWT(), 2)])
def test_coarse_cell_lies_where_the_mean_of_its_pixels_lies(transform: InvertibleTransform, factor: int) -> None:
    result = transform(_image(1, 8, 16))
    pixels = torch.cartesian_prod(torch.arange(factor), torch.arange(factor) + 2 * factor).double()  # cell (0, 2)
    homogeneous = torch.cat([pixels, torch.zeros(len(pixels), 1), torch.ones(len(pixels), 1)], 1)
    center = (homogeneous @ AFFINE.mT).mean(0)
    torch.testing.assert_close(result.affine @ torch.tensor([0.0, 2.0, 0.0, 1.0], dtype=torch.float64), center)


@pytest.mark.parametrize("transform", [BlockDCT(4), DCTTokens(4, 500.0), HaarDWT()])
def test_plain_tensors_and_integers_are_accepted(transform: InvertibleTransform) -> None:
    image = _image(1, 16, 16).as_tensor().round()
    expected = transform(image)
    assert expected.dtype == torch.float32
    torch.testing.assert_close(transform(image.to(torch.uint8)), expected)


def test_untracked_data_stays_a_plain_tensor() -> None:
    set_track_meta(False)
    try:
        assert type(HaarDWT()(_image(1, 8, 8).as_tensor())) is Tensor
    finally:
        set_track_meta(True)


@pytest.mark.parametrize(
    ("transform", "shape", "message"),
    [
        (DCTTokens(4, 500.0), (3, 16, 16), "expected one grey channel"),
        (DCTTokens(4, 500.0), (1, 16, 16, 4), "expected a channel and two axes"),
        (BlockDCT(4), (1, 10, 8), "10x8 px does not divide into 4x4 blocks"),
        (HaarDWT(), (1, 7, 8), "7x8 is odd"),
    ],
)
def test_unusable_images_are_refused(transform: InvertibleTransform, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform(torch.zeros(shape))
