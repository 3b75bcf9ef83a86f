"""CropAboutLabeld: one window for all, about the image or the label, and back; losses are named."""

import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms.label_crop import CropAboutLabeld

AFFINE = torch.tensor([[-1.5, 0, 0, 10.0], [0, -1.5, 0, 20.0], [0, 0, 8, -5.0], [0, 0, 0, 1]], dtype=torch.float64)


def item(x: int, y: int, heart: tuple[slice, slice], depth: int = 2) -> dict[str, MetaTensor]:
    """Image whose voxels say where they are (100 x + y), and a label map with one rectangle of class 2."""
    places = 100 * torch.arange(1, x + 1)[:, None] + torch.arange(1, y + 1)
    image = places[None, :, :, None].repeat(1, 1, 1, depth).float()
    label = torch.zeros_like(image)
    label[0, heart[0], heart[1]] = 2
    meta = {"filename_or_obj": "patient007_gt.nii.gz"}
    return {"image": MetaTensor(image, affine=AFFINE), "label": MetaTensor(label, affine=AFFINE, meta=meta)}


def world(affine: torch.Tensor, *index: int) -> torch.Tensor:
    return affine @ torch.tensor([*index, 0, 1], dtype=torch.float64)


@pytest.mark.parametrize("about", ["image", "label"])
@pytest.mark.parametrize("size", [(6, 8), (16, 8), (24, 20)], ids=["crop", "both", "pad"])
def test_every_voxel_keeps_its_place_in_space_and_comes_back(about: str, size: tuple[int, int]) -> None:
    data = item(15, 12, (slice(9, 13), slice(2, 5)))
    crop = CropAboutLabeld(["image", "label"], "label", size, about=about, tolerance=1)
    done = crop(data)
    assert done["image"].shape == done["label"].shape == (1, *size, 2)
    assert torch.equal(done["image"].affine, done["label"].affine)
    inside = done["image"][0, :, :, 0].nonzero().tolist()
    assert len(inside) == min(size[0], 15) * min(size[1], 12)  # the window holds as much of the image as fits
    for i, j in (inside[0], inside[len(inside) // 2], inside[-1]):
        x, y = divmod(int(done["image"][0, i, j, 0]), 100)
        torch.testing.assert_close(world(done["image"].affine, i, j), world(AFFINE, x - 1, y - 1))
    back = crop.inverse(done)
    for key in ("image", "label"):
        assert back[key].shape == data[key].shape
        torch.testing.assert_close(back[key].affine, AFFINE)
        kept = back["image"] != 0
        assert torch.equal(back[key][kept], data[key][kept])
    assert int(kept.sum()) == 2 * len(inside)


def test_about_the_label_the_middle_of_its_box_is_the_middle_of_the_window() -> None:
    done = CropAboutLabeld(["image", "label"], "label", (8, 8), about="label")(
        item(40, 30, (slice(20, 26), slice(10, 12)))
    )
    hits = done["label"][0, :, :, 0].nonzero()
    assert ((hits.min(0).values + hits.max(0).values + 1) / 2).tolist() == [4, 4]


def test_the_window_about_a_label_at_the_border_stays_inside_the_image() -> None:
    done = CropAboutLabeld(["image", "label"], "label", (8, 8), about="label")(
        item(40, 30, (slice(38, 40), slice(0, 2)))
    )
    assert (done["image"] > 0).all()
    assert int((done["label"] > 0).sum()) == 8  # nothing lost


def test_a_loss_of_labelled_voxels_is_named_with_file_and_share(caplog: pytest.LogCaptureFixture) -> None:
    """Of 10 x 10 labelled pixels a window of 8 rows about the image keeps the rows 6..13 of 4..13: 80 %."""
    data = item(20, 20, (slice(4, 14), slice(4, 14)))
    with caplog.at_level(logging.WARNING):
        CropAboutLabeld(["image", "label"], "label", (8, 20))(data)
    assert "patient007_gt.nii.gz: the crop of 20 x 20 to 8 x 20 pixels loses 20.0 % of the labelled" in caplog.text
    caplog.clear()
    CropAboutLabeld(["image", "label"], "label", (8, 20), tolerance=0.2)(data)
    CropAboutLabeld(["image", "label"], "label", (10, 20), about="label")(data)
    assert not caplog.text


def test_an_image_without_label_is_cropped_about_itself_only() -> None:
    data = {"image": item(20, 20, (slice(4, 14), slice(4, 14)))["image"]}
    keys = ["image", "label"]
    done = CropAboutLabeld(keys, "label", (8, 8), allow_missing_keys=True)(data)
    assert done["image"].shape == (1, 8, 8, 2)
    assert int(done["image"][0, 0, 0, 0]) == 707
    with pytest.raises(KeyError, match="no 'label' in the item"):
        CropAboutLabeld(keys, "label", (8, 8), about="label", allow_missing_keys=True)(data)


def test_an_empty_label_map_has_no_middle() -> None:
    with pytest.raises(ValueError, match=r"patient007_gt\.nii\.gz is empty"):
        CropAboutLabeld(["image", "label"], "label", (8, 8), about="label")(item(20, 20, (slice(0), slice(0))))


def test_without_padding_small_images_are_refused() -> None:
    crop = CropAboutLabeld(["image", "label"], "label", (16, 16), pad=False)
    with pytest.raises(ValueError, match="has 12 x 20 pixels, 16 x 16 are needed"):
        crop(item(12, 20, (slice(2, 4), slice(2, 4))))
    assert crop(item(16, 20, (slice(6, 8), slice(6, 8))))["image"].shape == (1, 16, 16, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_size": (8,)}, "two positive numbers"),
        ({"spatial_size": (8, 0)}, "two positive numbers"),
        ({"about": "heart"}, "about='heart' is unknown; choose one of image, label"),
        ({"tolerance": 1.5}, "must lie in"),
    ],
)
def test_bad_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CropAboutLabeld(**{"keys": ["image"], "label_key": "label", "spatial_size": (8, 8), **arguments})


def test_the_window_is_that_of_monai_s_centered_crop_and_pad() -> None:
    """About the image, the same pixels as MONAI's own transform, for odd and even sizes."""
    from monai.transforms import ResizeWithPadOrCrop

    rng = np.random.default_rng(0)
    for have, need in [((15, 12), (8, 8)), ((14, 13), (7, 20)), ((9, 10), (12, 13))]:
        image = MetaTensor(torch.from_numpy(rng.random((1, *have, 2))).float())
        ours = CropAboutLabeld("image", "label", need)({"image": image})["image"]
        theirs = ResizeWithPadOrCrop((*need, 2))(image)
        assert torch.equal(ours.as_tensor(), theirs.as_tensor()), (have, need)
