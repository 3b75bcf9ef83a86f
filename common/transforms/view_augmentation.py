"""Another look at the same slice: small changes of pose and what a scanner changes, on whole batches.

All functions but `augment_view` work on brightness in [0, 1] with 0 as background, which stays 0.
"""

import math

import torch
from torch import Tensor

from .sampling_grid import pose_matrix, sample, sampling_grid

MAX_ROTATION = math.radians(5)
MAX_SCALING = 0.04
MAX_SHIFT = 4 / 224  # of the image's sides
GAMMAS = (0.7, 1.5)
MAX_BIAS = 0.15
MAX_NOISE = 0.05  # standard deviation, of the range from black to white


def augment_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random view of each image.

    Rotation within +-5 degrees, scaling within +-4 % and shift within +-4/224 of the sides; gamma between 0.7 and 1.5;
    a smooth field within +-15 %; Gaussian noise with a standard deviation of up to 5 % of the range. All are uniform,
    gamma in its logarithm.

    Args:
        images: (B, 1, X, Y) in [-1, 1] with -1 as background.
        generator: of the images' device.

    Returns:
        the same shape, in [-1, 1], background -1.
    """
    device = images.device

    def draw(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(len(images), *size, generator=generator, device=device)

    brightness = (images.float() + 1) / 2
    rotation, scaling = draw(-MAX_ROTATION, MAX_ROTATION), draw(1 - MAX_SCALING, 1 + MAX_SCALING)
    brightness = change_pose(brightness, rotation, scaling, draw(-MAX_SHIFT, MAX_SHIFT, 2))
    low, high = GAMMAS
    brightness = brightness ** draw(math.log(low), math.log(high)).exp().reshape(-1, 1, 1, 1)
    field = smooth_field(draw(-1, 1, 3, 3), images.shape[2:], draw(0, MAX_BIAS))
    noise = torch.randn(images.shape, generator=generator, device=device) * draw(0, MAX_NOISE).reshape(-1, 1, 1, 1)
    brightness = (brightness > 0) * (brightness * field + noise).clamp(0, 1)
    return 2 * brightness - 1


def change_pose(images: Tensor, rotation: Tensor, scaling: Tensor, shift: Tensor) -> Tensor:
    """Rotate and scale images around their center, then shift them; linear interpolation, 0 comes in from outside.

    Args:
        images: (B, 1, X, Y), with square pixels.
        rotation: (B,) radians, from axis X towards axis Y.
        scaling: (B,), above 1 makes things larger.
        shift: (B, 2) along X and Y, as shares of the sides.
    """
    width, height = images.shape[2:]
    return sample(images, sampling_grid(pose_matrix(rotation, scaling, shift, (width, height)), (width, height)))


def smooth_field(weights: Tensor, size: tuple[int, ...], strength: Tensor) -> Tensor:
    """Factors around 1, as uneven coils have: a few slow cosines, scaled to reach ``strength`` away from 1.

    Args:
        weights: (B, n, n) of ``cos(pi i x) cos(pi j y)`` with i, j < n and x, y in 0..1; that of i = j = 0, which is
            a mere change of brightness, is not used.
        size: (X, Y).
        strength: (B,), largest distance from 1.

    Returns:
        (B, 1, X, Y)
    """
    orders = torch.arange(weights.shape[1], device=weights.device)
    waves = [  # (n, X) and (n, Y)
        torch.cos(math.pi * orders[:, None] * (torch.arange(side, device=weights.device) + 0.5) / side) for side in size
    ]
    weights = weights.clone()
    weights[:, 0, 0] = 0
    field = torch.einsum("bij,ix,jy->bxy", weights, *waves)[:, None]
    peak = field.abs().amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(field.dtype).tiny)
    return 1 + strength.reshape(-1, 1, 1, 1) * field / peak
