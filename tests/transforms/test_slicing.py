"""Respacing, crop and cutting keep every voxel where it was in the patient."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, ResizeWithPadOrCrop
from torch import Tensor

from common.transforms.slicing import (
    CropOrError,
    CropOrErrord,
    CutSlices,
    CutSlicesd,
    MaskedSlices,
    MaskedSlicesd,
    RandSliced,
    RespaceInPlane,
    RespaceInPlaned,
    SliceBlock,
    SliceBlockd,
    masked_run,
    slice_block,
)

OBLIQUE = torch.tensor(
    [[0.0, -1.25, 0.3, 12.5], [1.1, 0.0, 0.0, -7.0], [0.0, 0.2, 8.0, 3.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)


def world_field(shape: tuple[int, int, int], affine: Tensor) -> Tensor:
    """(1, X, Y, Z): a linear function of the position in mm, computed from an affine."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"))
    position = torch.einsum("ij,jxyz->ixyz", affine[:3, :3], grid) + affine[:3, 3].reshape(3, 1, 1, 1)
    return (position * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).reshape(3, 1, 1, 1)).sum(0)[None].float()


def in_space(shape: tuple[int, int, int] = (23, 31, 4)) -> MetaTensor:
    return MetaTensor(world_field(shape, OBLIQUE), affine=OBLIQUE)


# Growing pixels weigh neighbors by a sampled triangle, which shifts its center by some hundredths of a pixel (as in
# Pillow and PyTorch). An affine wrong by half a pixel would be off by more than 0.5.
SAMPLED_TRIANGLE = 0.2


def assert_in_place(image: MetaTensor, border: int = 0, atol: float = 2e-3) -> None:
    """Every voxel (off the border) still holds the value of its place, by the image's own affine."""
    expected = world_field(tuple(image.shape[1:]), image.affine)
    inside = (slice(None), slice(border, image.shape[1] - border), slice(border, image.shape[2] - border))
    torch.testing.assert_close(image.as_tensor()[inside], expected[inside], atol=atol, rtol=0)


@pytest.mark.parametrize("spacing_mm", [0.6, 1.0, 2.9, (0.5, 3.0)])
def test_respaced_voxels_stay_in_place(spacing_mm: float | tuple[float, float]) -> None:
    image = RespaceInPlane(spacing_mm)(in_space())
    lengths = image.affine[:3, :3].norm(dim=0)
    torch.testing.assert_close(lengths[:2], torch.tensor(np.broadcast_to(spacing_mm, 2), dtype=torch.float64))
    torch.testing.assert_close(lengths[2], OBLIQUE[:3, 2].norm())
    assert_in_place(image, border=3, atol=2e-3 if np.max(spacing_mm) < 1.1 else SAMPLED_TRIANGLE)


def test_detail_finer_than_the_new_pixels_is_averaged_not_aliased() -> None:
    stripes = torch.zeros(1, 90, 90, 1)
    stripes[:, ::2] = 200.0  # period of 2 pixels
    image = MetaTensor(stripes, affine=torch.eye(4))
    assert RespaceInPlane(3.0)(image)[:, 2:-2].std() < 15
    assert RespaceInPlane(3.0, nearest=True)(image).std() > 90  # the control: without averaging they alias


@pytest.mark.parametrize("spacing_mm", [0.7, 2.3])
def test_respacing_back_restores_grid_and_smooth_content(spacing_mm: float) -> None:
    source, respace = in_space(), RespaceInPlane(spacing_mm)
    restored = respace.inverse(respace(source))
    assert restored.shape == source.shape
    torch.testing.assert_close(restored.affine, source.affine)
    torch.testing.assert_close(
        restored[:, 6:-6, 6:-6].as_tensor(), source[:, 6:-6, 6:-6].as_tensor(), atol=SAMPLED_TRIANGLE, rtol=0
    )
    assert not restored.applied_operations


def test_respacing_leaves_its_source_alone() -> None:
    source = in_space()
    RespaceInPlane(2.0)(source)
    torch.testing.assert_close(source.affine, OBLIQUE)
    assert not source.applied_operations


def test_no_spacing_changes_nothing() -> None:
    source = in_space()
    assert RespaceInPlane(None)(source) is source
    assert RespaceInPlane(None).inverse(source) is source


def test_a_spacing_within_the_tolerance_is_left_alone_axis_by_axis() -> None:
    """Pixels of 1.1 x 1.266 mm (the affine's columns): 4.3 % below and 10.1 % above 1.15 mm."""
    source, respace = in_space(), RespaceInPlane(1.15, tolerance=0.05)
    image = respace(source)
    assert image.shape[1] == source.shape[1]
    assert image.shape[2] > source.shape[2]
    torch.testing.assert_close(image.affine[:, 0], OBLIQUE[:, 0])
    assert_in_place(image, border=3)
    torch.testing.assert_close(respace.inverse(image).affine, OBLIQUE)
    untouched = RespaceInPlane(1.15, tolerance=0.12)
    assert torch.equal(untouched(source).as_tensor(), source.as_tensor())
    assert torch.equal(untouched.inverse(untouched(source)).as_tensor(), source.as_tensor())
    assert not source.applied_operations


def test_label_maps_keep_their_values_and_their_place() -> None:
    label = MetaTensor(torch.zeros(1, 40, 40, 2), affine=torch.eye(4))
    label[:, 10:30, 16:20] = 3.0
    item = RespaceInPlaned(["image", "label"], 0.8, nearest=[False, True])({"image": label.clone(), "label": label})
    assert set(item["label"].unique().tolist()) == {0.0, 3.0}
    assert len(item["image"].unique()) > 2
    centers = [(image[0, :, :, 0] > 1.5).nonzero().double().mean(0) for image in (label, item["label"])]
    places = [
        image.affine[:2, :2] @ center + image.affine[:2, 3]
        for image, center in zip((label, item["label"]), centers, strict=True)
    ]
    torch.testing.assert_close(places[0], places[1], atol=0.4, rtol=0)


@pytest.mark.parametrize("size", [(8, 9), (23, 31), (7, 31)])
def test_a_crop_takes_the_middle_and_stays_in_place(size: tuple[int, int]) -> None:
    image = CropOrError(size)(in_space())
    assert image.shape == (1, *size, 4)
    assert_in_place(image)
    middle = torch.tensor([(n - 1) / 2 for n in (*size, 4)] + [1], dtype=torch.float64)
    source_middle = torch.tensor([11.0, 15.0, 1.5, 1.0], dtype=torch.float64)
    assert ((image.affine @ middle - OBLIQUE @ source_middle)[:3].norm()) < 1.3  # at most half a pixel an axis


def test_an_image_smaller_than_the_crop_is_named_not_padded() -> None:
    image = MetaTensor(torch.zeros(1, 90, 100, 3), meta={"filename_or_obj": "patient003.nii.gz"})
    with pytest.raises(ValueError, match=r"patient003\.nii\.gz: 90 x 100 pixels, smaller than the crop 96 x 96"):
        CropOrError((96, 96))(image)


def test_padding_on_request_is_black_and_in_place() -> None:
    source = in_space((10, 31, 2))
    padded = CropOrError((16, 16), pad=True)(source)
    assert padded.shape == (1, 16, 16, 2)
    assert padded[:, :3].abs().max() == 0
    assert padded[:, -3:].abs().max() == 0
    expected = world_field((16, 16, 2), padded.affine)
    torch.testing.assert_close(padded.as_tensor()[:, 3:-3], expected[:, 3:-3], atol=1e-3, rtol=0)


def test_padding_and_inverse_use_the_given_background() -> None:
    crop, source = CropOrError((8, 40), pad=True, fill=-1000.0), in_space()
    assert (crop(source)[:, :, :4] == -1000).all()
    restored = crop.inverse(crop(source))
    assert (restored != -1000).sum() == 8 * 31 * 4
    assert (restored[:, :5] == -1000).all()


@pytest.mark.parametrize("size", [(8, 9), (7, 12), (40, 16), (41, 42), (24, 33), (23, 31)])
@pytest.mark.parametrize("shape", [(23, 31, 2), (24, 30, 2)])
def test_crop_and_padding_lie_where_monai_puts_them(size: tuple[int, int], shape: tuple[int, int, int]) -> None:
    image = CropOrError(size, pad=True)(in_space(shape))
    peer = ResizeWithPadOrCrop((*size, -1))(in_space(shape))
    assert torch.equal(image.as_tensor(), peer.as_tensor())
    torch.testing.assert_close(image.affine, peer.affine)


@pytest.mark.parametrize("size", [(8, 9), (40, 16)], ids=["crop", "pad and crop"])
def test_inverse_of_the_crop_restores_size_and_affine(size: tuple[int, int]) -> None:
    crop, source = CropOrError(size, pad=True), in_space()
    restored = crop.inverse(crop(source))
    assert restored.shape == source.shape
    torch.testing.assert_close(restored.affine, OBLIQUE)
    kept = restored.as_tensor() != 0
    torch.testing.assert_close(restored.as_tensor()[kept], source.as_tensor()[kept])


def layers(*counts: int) -> MetaTensor:
    """Mask (1, 8, 8, Z) with ``counts[z]`` voxels in slice z."""
    mask = torch.zeros(64, len(counts), dtype=torch.uint8)
    for z, count in enumerate(counts):
        mask[:count, z] = 1
    return MetaTensor(mask.reshape(1, 8, 8, -1), meta={"filename_or_obj": "patient004.nii.gz"})


@pytest.mark.parametrize(
    ("counts", "number", "block"),
    [
        ((0, 0, 1, 1, 1, 1, 1, 0, 0, 0), 3, (3, 3)),
        ((0, 0, 1, 1, 1, 1, 1, 0, 0, 0), 4, (2, 4)),
        ((0, 9, 1, 1, 1, 1, 1, 1, 1, 0), 3, (0, 3)),  # weighed by voxels: half of them lie in slice 1
        ((9, 0, 0, 0, 0, 0), 4, (0, 4)),
        ((0, 0, 0, 0, 0, 9), 4, (2, 4)),
        ((0, 2, 2, 0), 1, (1, 1)),
        ((0, 1, 0), 5, (0, 3)),
        ((0, 1, 0), 3, (0, 3)),
        ((0, 1, 0), None, (0, 3)),
        ((0, 0, 0), None, (0, 3)),
    ],
    ids=[
        "odd",
        "even",
        "by voxels",
        "bottom",
        "top",
        "lower of two",
        "too thin",
        "just enough",
        "all",
        "all of nothing",
    ],
)
def test_the_block_lies_around_the_median_slice_and_inside_of_the_volume(
    counts: tuple[int, ...], number: int | None, block: tuple[int, int]
) -> None:
    assert slice_block(layers(*counts), number) == block


def test_the_median_slice_is_that_of_all_foreground_voxels() -> None:
    """Oracle: the median over the list of z coordinates (odd counts, so that it is a slice)."""
    counts = np.random.default_rng(0).integers(0, 64, 41)
    counts[0] += 1 - counts.sum() % 2
    coordinates = np.repeat(np.arange(41), counts)
    assert slice_block(layers(*counts.tolist()), 1) == (int(np.median(coordinates)), 1)


def test_a_block_of_slices_stays_in_place_and_comes_back() -> None:
    mask = torch.zeros(1, 23, 31, 9, dtype=torch.uint8)
    mask[..., 5:8] = 1
    item = {"source": in_space((23, 31, 9)), "label": in_space((23, 31, 9)), "mask": MetaTensor(mask, affine=OBLIQUE)}
    block = SliceBlockd(["source", "label", "mask"], "mask", 3, fill=[-1.0, -7.0, 0.0])
    cut = block(item)
    assert cut["source"].meta["slice_block"] == (5, 3)
    assert cut["mask"].shape == (1, 23, 31, 3)
    assert cut["mask"].min() == 1
    assert_in_place(cut["source"])
    assert_in_place(cut["label"])
    restored = block.inverse(cut)
    for key, fill in (("source", -1), ("label", -7), ("mask", 0)):
        torch.testing.assert_close(restored[key].affine, OBLIQUE)
        assert torch.equal(restored[key][..., 5:8].as_tensor(), item[key][..., 5:8].as_tensor())
        assert (restored[key][..., :5] == fill).all()
        assert (restored[key][..., 8:] == fill).all()
        assert not restored[key].applied_operations


def test_left_out_slices_of_the_mask_are_0_whatever_the_images_get() -> None:
    item = {"source": in_space((8, 8, 3)), "mask": layers(0, 1, 0)}
    block = SliceBlockd(["source", "mask"], "mask", 1)
    assert block.inverse(block(item))["mask"].sum() == 1


@pytest.mark.parametrize(
    ("counts", "share", "run"),
    [
        ((0, 3, 4, 9, 4, 3, 0), 4 / 64, (2, 3)),  # 4 of 8 x 8 pixels are just enough
        ((0, 9, 0, 0, 9, 1), 4 / 64, (1, 4)),  # gaps inside of the run stay
        ((0, 0, 5), 4 / 64, (2, 1)),
        ((0, 1, 0), 0, (0, 3)),
        ((64, 63), 1, (0, 1)),
    ],
    ids=["both ends", "gaps", "one slice", "no share", "full"],
)
def test_the_run_goes_from_the_first_to_the_last_slice_with_enough_mask(
    counts: tuple[int, ...], share: float, run: tuple[int, int]
) -> None:
    assert masked_run(layers(*counts), share) == run


def test_the_share_is_that_of_the_square_a_slice_is_padded_to() -> None:
    """20 of 8 x 20 pixels are 5 % of 20 x 20, 19 are not."""
    mask = torch.zeros(160, 3, dtype=torch.uint8)
    mask[:20, 1], mask[:19, 2] = 1, 1
    assert masked_run(MetaTensor(mask.reshape(1, 8, 20, 3)), 0.05) == (1, 1)
    assert masked_run(MetaTensor(mask.reshape(1, 20, 8, 3)), 0.05) == (1, 1)


def test_a_masked_run_of_slices_stays_in_place_and_comes_back() -> None:
    mask = torch.zeros(1, 23, 31, 9, dtype=torch.uint8)
    mask[..., 5:8] = 1
    mask[:, :2, :3, 1] = 1  # too little
    item = {"source": in_space((23, 31, 9)), "target": in_space((23, 31, 9)), "mask": MetaTensor(mask, affine=OBLIQUE)}
    run = MaskedSlicesd(["source", "target", "mask"], "mask", 0.05)
    cut = run(item)
    assert cut["source"].meta["slice_block"] == (5, 3)
    assert cut["mask"].shape == (1, 23, 31, 3)
    assert_in_place(cut["source"])
    assert torch.equal(cut["source"].as_tensor(), cut["target"].as_tensor())
    restored = run.inverse(cut)
    torch.testing.assert_close(restored["source"].affine, OBLIQUE)
    assert torch.equal(restored["source"][..., 5:8].as_tensor(), item["source"][..., 5:8].as_tensor())
    assert (restored["source"][..., :5] == -1).all()
    assert restored["mask"].sum() == mask[..., 5:8].sum()


def test_volumes_without_a_slice_of_enough_mask_are_named_with_the_share_they_have() -> None:
    with pytest.raises(ValueError, match=r"patient004\.nii\.gz: .* at most 4\.69% .*8 x 8 .*the 5\.00% .*min_share"):
        MaskedSlices(0.05)(MetaTensor(torch.zeros(1, 8, 8, 3)), layers(0, 3, 0))
    with pytest.raises(ValueError, match="min_share=5 is a share"):
        MaskedSlices(5)


def test_a_thin_volume_is_kept_whole_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    volume = MetaTensor(torch.rand(1, 8, 8, 3), meta={"filename_or_obj": "patient004.nii.gz"})
    block = SliceBlockd(["source", "mask"], "mask", 5)
    for _ in range(2):
        assert block({"source": volume, "mask": layers(0, 1, 0)})["source"].shape == volume.shape
    assert [record.message for record in caplog.records] == [
        "patient004.nii.gz has 3 slices, fewer than 5: all are taken."
    ]


def test_slices_restack_to_the_same_cine() -> None:
    cine = MetaTensor(torch.arange(2.0 * 5 * 4 * 3).reshape(2, 5, 4, 3), affine=OBLIQUE)
    cut = CutSlices()
    stack = cut(cine)
    assert stack.shape == (6, 5, 4)
    assert torch.equal(stack[1 * 3 + 2].as_tensor(), cine[1, :, :, 2].as_tensor())  # frame 1, slice 2
    restored = cut.inverse(stack * 1.0)
    assert torch.equal(restored.as_tensor(), cine.as_tensor())
    torch.testing.assert_close(restored.affine, OBLIQUE)


def test_a_random_slice_is_the_same_for_image_and_label_and_stays_in_place() -> None:
    pick = RandSliced(["image", "label"]).set_random_state(0)
    seen = set()
    for _ in range(40):
        item = pick({"image": in_space(), "label": in_space() * 2})
        assert item["image"].shape == (1, 23, 31, 1)
        assert_in_place(item["image"])
        assert torch.equal(item["label"].as_tensor(), 2 * item["image"].as_tensor())
        seen.add(round(float(item["image"].affine[2, 3])))
    assert len(seen) == 4


def test_the_whole_chain_inverts_to_the_source_geometry() -> None:
    chain = Compose([RespaceInPlaned("image", 1.7), CropOrErrord("image", (10, 12)), CutSlicesd("image")])
    restored = chain.inverse(chain({"image": in_space()}))["image"]
    assert restored.shape == (1, 23, 31, 4)
    torch.testing.assert_close(restored.affine, OBLIQUE)
    torch.testing.assert_close(
        restored[:, 9:14, 13:18].as_tensor(), in_space()[:, 9:14, 13:18].as_tensor(), atol=SAMPLED_TRIANGLE, rtol=0
    )


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        RespaceInPlane(0.0)
    with pytest.raises(ValueError, match="larger than the whole image"):
        RespaceInPlane(500.0)(in_space())
    with pytest.raises(ValueError, match="two positive numbers"):
        CropOrError((96, 96, 8))
    with pytest.raises(ValueError, match="tolerance=5"):
        RespaceInPlane(1.0, tolerance=5)
    with pytest.raises(ValueError, match="number=0 must be positive"):
        SliceBlock(0)
    with pytest.raises(ValueError, match=r"patient004\.nii\.gz: the mask is empty"):
        SliceBlock(2)(MetaTensor(torch.zeros(1, 8, 8, 3)), layers(0, 0, 0))
    with pytest.raises(ValueError, match=r"shape \(8, 8, 4\), its mask \(8, 8, 3\)"):
        SliceBlock(2)(MetaTensor(torch.zeros(1, 8, 8, 4)), layers(0, 1, 0))
