"""Grey levels: windows by percentile and by given levels."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from common.transforms.intensity import FixedWindow, FixedWindowd, PercentileWindow, PercentileWindowd


def volume(seed: int = 0, shape: tuple[int, ...] = (2, 12, 10, 5)) -> MetaTensor:
    values = torch.from_numpy(np.random.default_rng(seed).gamma(2.0, 90.0, shape)).float()
    return MetaTensor(values, affine=torch.diag(torch.tensor([1.5, 2.0, 8.0, 1.0])))


def test_percentiles_of_a_ramp_are_known() -> None:
    """Levels 0..1000: percentiles 0.5 and 99.5 are 5 and 995, so y = 255 (x - 5) / 990 between them."""
    ramp = torch.arange(1001.0).reshape(1, 1001, 1, 1)
    expected = (255 * (ramp - 5) / 990).clamp(0, 255)
    torch.testing.assert_close(PercentileWindow()(ramp).as_tensor(), expected)


def test_gain_and_offset_of_the_scanner_do_not_matter() -> None:
    image = volume()
    torch.testing.assert_close(
        PercentileWindow()(3.7 * image + 40).as_tensor(), PercentileWindow()(image).as_tensor(), atol=1e-2, rtol=0
    )


def test_frames_of_a_cine_share_one_window() -> None:
    """A frame that is twice as bright stays twice as bright."""
    frame = volume(shape=(1, 12, 10, 5))
    cine = PercentileWindow(lower=0, upper=100)(torch.cat([frame, 2 * frame]))
    low = float(frame.min()) * 255 / float((2 * frame).max() - frame.min())
    torch.testing.assert_close(cine[1].as_tensor() + low, 2 * (cine[0].as_tensor() + low), atol=1e-2, rtol=0)


def test_quantize_rounds_to_whole_levels() -> None:
    exact, rounded = PercentileWindow()(volume()), PercentileWindow(quantize=True)(volume())
    torch.testing.assert_close(rounded.as_tensor(), exact.as_tensor().round(), atol=0, rtol=0)
    assert not torch.equal(rounded, exact)


def test_the_default_fixed_window_leaves_8_bit_sources_as_they_are() -> None:
    levels = torch.arange(256.0).reshape(1, 16, 16, 1)
    torch.testing.assert_close(FixedWindow()(levels).as_tensor(), levels, atol=1e-4, rtol=0)


def test_a_fixed_window_clips_and_scales() -> None:
    levels = torch.tensor([-2000.0, -1000.0, 0.0, 1000.0, 3000.0]).reshape(1, 5, 1, 1)
    expected = torch.tensor([0.0, 0.0, 127.5, 255.0, 255.0]).reshape(1, 5, 1, 1)
    torch.testing.assert_close(FixedWindow(-1000, 1000)(levels).as_tensor(), expected)


@pytest.mark.parametrize("window", [PercentileWindow(), FixedWindow(20, 500)], ids=["percentile", "fixed"])
def test_inverse_restores_all_but_the_clipped_values(window: PercentileWindow | FixedWindow) -> None:
    image = volume()
    low, high = window.limits(image)
    restored = window.inverse(window(image))
    torch.testing.assert_close(restored.as_tensor(), image.as_tensor().clamp(low, high), atol=1e-3, rtol=0)
    assert not restored.applied_operations
    torch.testing.assert_close(restored.affine, image.affine)


def test_the_source_is_not_changed() -> None:
    image = volume()
    before = image.clone()
    PercentileWindow()(image)
    assert torch.equal(image, before)
    assert not image.applied_operations


@pytest.mark.parametrize("window", [PercentileWindowd("image"), FixedWindowd("image", 20, 500)])
def test_invertd_takes_a_prediction_back_to_the_source_levels(window: PercentileWindowd | FixedWindowd) -> None:
    """As in inference: the prediction is inverted by the trace of the image it came from."""
    transform = Compose([window])
    item = transform({"image": volume()})
    item["pred"] = MetaTensor(torch.full_like(item["image"].as_tensor(), 127.5))
    invert = Invertd("pred", transform, orig_keys="image", nearest_interp=False, to_tensor=True)
    low, high = window.window.limits(volume())
    torch.testing.assert_close(invert(item)["pred"].mean().item(), (low + high) / 2, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (torch.full((1, 20, 20, 5), 7.0), "is constant"),
        (
            torch.zeros(1, 20, 20, 5)
            .index_fill(3, torch.tensor(0), 0.0)
            .index_put((torch.tensor(0),) * 4, torch.tensor(9.0)),
            "is almost constant",
        ),
    ],
    ids=["constant", "one bright voxel"],
)
def test_an_image_without_contrast_is_named(levels: torch.Tensor, message: str) -> None:
    image = MetaTensor(levels, meta={"filename_or_obj": "patient007.nii.gz"})
    with pytest.raises(ValueError, match=rf"patient007\.nii\.gz {message}.*Remove it, or use a fixed window"):
        PercentileWindow()(image)


def test_windows_without_width_are_refused() -> None:
    with pytest.raises(ValueError, match="lower < upper"):
        PercentileWindow(60, 40)
    with pytest.raises(ValueError, match="below high"):
        FixedWindow(5, 5)
