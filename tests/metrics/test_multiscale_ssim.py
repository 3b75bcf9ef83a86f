"""MS-SSIM against the product formula written out with SciPy, and its size rule."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import convolve
from torch import Tensor

from common.metrics.multiscale_ssim import PROFILES, MultiscaleSSIM, Profile, multiscale_ssim, profile_for

STANDARD = PROFILES[0]
SMALLEST = {STANDARD: 176, Profile(5, 7): 112, Profile(3, 11): 44, Profile(2, 7): 14}


def smooth(size: int, seed: int, count: int = 1) -> Tensor:
    """Images with structure on every scale."""
    noise = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))
    parts = [
        torch.nn.functional.interpolate(noise[..., : size // k, : size // k], (size, size), mode="bilinear")
        for k in (1, 4, 16)
        if size // k > 1
    ]
    return (0.5 + 0.1 * torch.stack(parts).sum(0)).clamp(0, 1)


def window(side: int) -> NDArray[np.float64]:
    place = np.arange(side) - (side - 1) / 2
    bell = np.exp(-(place**2) / (2 * 1.5**2))
    return np.outer(bell, bell) / bell.sum() ** 2


def product_formula(first: Tensor, second: Tensor, levels: int, side: int) -> float:
    """Wang et al. 2003, eq. 7, for one pair of images."""
    x, y = (image[0].double().numpy() for image in (first, second))
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:levels])
    if levels < 5:
        weights = weights / weights.sum()
    kernel, c1, c2, border = window(side), 0.01**2, 0.03**2, side // 2

    def blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return convolve(image, kernel)[border:-border, border:-border]

    value = 1.0
    for level, weight in enumerate(weights):
        mean_x, mean_y = blurred(x), blurred(y)
        var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
        structure = (2 * (blurred(x * y) - mean_x * mean_y) + c2) / (var_x + var_y + c2)
        if level == levels - 1:
            structure = structure * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        value *= max(structure.mean(), 0) ** weight
        x, y = (image[: len(image) // 2 * 2, : len(image) // 2 * 2] for image in (x, y))
        x, y = (image.reshape(len(image) // 2, 2, -1, 2).mean((1, 3)) for image in (x, y))
    return value


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_value_is_the_product_over_the_scales(profile: Profile) -> None:
    size = SMALLEST[profile] + 3  # odd sizes on the way down, too
    first = smooth(size, 0)
    second = (first + 0.2 * (smooth(size, 1) - 0.5)).clamp(0, 1)
    expected = product_formula(first[0], second[0], profile.levels, profile.kernel_size)
    assert 0.3 < expected < 0.99
    assert multiscale_ssim(first, second, profile).item() == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_identical_images_have_1(profile: Profile) -> None:
    """Not the number of scales, as the sum that some papers print would give."""
    images = smooth(SMALLEST[profile], 0, count=2)
    torch.testing.assert_close(multiscale_ssim(images, images, profile), torch.ones(2, dtype=torch.float64))


def test_opposite_contrast_counts_as_0() -> None:
    images = smooth(64, 0)
    assert multiscale_ssim(images, 1 - images).item() == 0


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_sides_from_the_smallest_on_pass(profile: Profile) -> None:
    """11 px and five scales: 175 raises, 176 passes; in general kernel x max((L - 1)^2, 2^(L - 1))."""
    smallest = SMALLEST[profile]
    assert profile.smallest == smallest
    images = smooth(smallest, 0)
    assert multiscale_ssim(images, images, profile).item() == pytest.approx(1)
    with pytest.raises(ValueError, match=f"need sides of at least {smallest} px"):
        multiscale_ssim(images[..., 1:], images[..., 1:], profile)


@pytest.mark.parametrize(
    ("size", "profile"),
    [
        ((256, 256), STANDARD),
        ((176, 300), STANDARD),
        ((175, 300), Profile(5, 7)),
        ((128, 128), Profile(5, 7)),
        ((64, 64), Profile(3, 11)),
        ((32, 64), Profile(2, 7)),
    ],
)
def test_profile_is_the_fullest_that_fits(size: tuple[int, int], profile: Profile) -> None:
    assert profile_for(size) == profile


def test_weights_of_fewer_scales_keep_their_proportions() -> None:
    assert STANDARD.weights == (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    assert Profile(3, 11).weights == pytest.approx((0.0711, 0.4530, 0.4760), abs=1e-4)
    assert math.fsum(Profile(3, 11).weights) == pytest.approx(1)
    assert Profile(5, 7).describe()["weights"] == list(STANDARD.weights)


def test_metric_is_the_mean_over_all_images_seen() -> None:
    pred, target = smooth(32, 0, count=5), smooth(32, 1, count=5)
    metric = MultiscaleSSIM()
    metric(y_pred=pred[:2], y=target[:2])
    metric(y_pred=list(pred[2:]), y=list(target[2:]))
    assert metric.aggregate().item() == pytest.approx(multiscale_ssim(pred, target).mean().item())


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match="the smallest that can be compared are 14x14 px"):
        profile_for((13, 64))
    with pytest.raises(ValueError, match="differ in shape"):
        multiscale_ssim(smooth(32, 0), smooth(32, 0, count=2))
    with pytest.raises(ValueError, match="give the target images as `y`"):
        MultiscaleSSIM()(y_pred=smooth(32, 0))
    with pytest.raises(ValueError, match="no images were given"):
        MultiscaleSSIM().aggregate()
