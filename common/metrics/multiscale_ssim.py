"""Multi-scale structural similarity (MS-SSIM), with as many scales as the images have room for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from monai.metrics import CumulativeIterationMetric
from monai.metrics.regression import compute_ms_ssim
from torch import Tensor

from .shapes import check_one_shape

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first (Wang et al. 2003, section 3.2)


class Profile(NamedTuple):
    """How MS-SSIM is computed; values of different profiles do not compare.

    ``levels``: scales, each half the size of the one before; ``kernel_size``: side of the Gaussian window (standard
    deviation 1.5 px) on each of them.
    """

    levels: int
    kernel_size: int

    @property
    def weights(self) -> tuple[float, ...]:
        """Exponents of the scales, finest first: the five published ones, or the first of these with a sum of 1."""
        kept = _WEIGHTS[: self.levels]
        return kept if kept == _WEIGHTS else tuple(weight / sum(kept) for weight in kept)

    @property
    def smallest(self) -> int:
        """Shortest side in pixels: the window must fit into the coarsest scale, and MONAI asks for (levels - 1)^2."""
        return self.kernel_size * max(2 ** (self.levels - 1), (self.levels - 1) ** 2)

    def describe(self) -> dict[str, Any]:
        """What a file of results states."""
        weights = [round(weight, 4) for weight in self.weights]
        return {"levels": self.levels, "kernel_size": self.kernel_size, "sigma": 1.5, "weights": weights}


PROFILES = (Profile(5, 11), Profile(5, 7), Profile(3, 11), Profile(2, 7))
"""The published one first; the others for images from 112, 44 and 14 pixels on."""


def profile_for(size: Sequence[int]) -> Profile:
    """The first of :data:`PROFILES` that images of ``size`` (X, Y) pixels have room for.

    Raises:
        ValueError: a side of less than 14 pixels.
    """
    for profile in PROFILES:
        if min(size) >= profile.smallest:
            return profile
    raise ValueError(
        f"MS-SSIM: images of {'x'.join(map(str, size))} px; the smallest that can be compared are "
        f"{PROFILES[-1].smallest}x{PROFILES[-1].smallest} px."
    )


def multiscale_ssim(pred: Tensor, target: Tensor, profile: Profile | None = None) -> Tensor:
    """MS-SSIM of each pair of images ``(B, C, X, Y)`` in [0, 1]: ``(B,)`` float64, 1 if the two are equal.

    ``l_M^(w_M) prod_j (c_j s_j)^(w_j)``, a product over the scales: luminance at the coarsest, contrast and structure
    at all, means over the image at each; negative ones count as 0.

    Args:
        pred: images.
        target: as ``pred``.
        profile: scales and window; ``None``: :func:`profile_for` their size.

    Raises:
        ValueError: the images differ in shape, or are too small for the profile.
    Source: Wang et al. 2003, "Multiscale structural similarity for image quality assessment", eq. 7, as MONAI has it.
    """
    check_one_shape("multiscale_ssim", {"prediction": pred, "target": target})
    profile = profile_for(pred.shape[-2:]) if profile is None else profile
    if min(pred.shape[-2:]) < profile.smallest:
        raise ValueError(
            f"multiscale_ssim: images of {pred.shape[-2]}x{pred.shape[-1]} px; {profile.levels} scales with a window "
            f"of {profile.kernel_size} px need sides of at least {profile.smallest} px. Take profile_for(size)."
        )
    x, y = (images.detach().as_subclass(Tensor).float() for images in (pred, target))
    values = compute_ms_ssim(x, y, spatial_dims=2, kernel_size=profile.kernel_size, weights=profile.weights)
    return values[:, 0].double()  # (B, 1) -> (B,)


class MultiscaleSSIM(CumulativeIterationMetric):
    """Mean over all images of :func:`multiscale_ssim`; higher is better.

    Called with ``y_pred`` and ``y``, both ``(B, 1, X, Y)`` in [0, 1].

    Args:
        profile: scales and window; ``None``: those that the images have room for.
    """

    def __init__(self, profile: Profile | None = None) -> None:
        super().__init__()
        self.profile = profile

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        if y is None:
            raise ValueError("MultiscaleSSIM: give the target images as `y`.")
        return multiscale_ssim(y_pred, y, self.profile)[:, None]  # (B, 1)

    def aggregate(self) -> Tensor:
        """Mean over the images seen by all processes since the last reset."""
        values = self.get_buffer()
        if values is None:
            raise ValueError("MultiscaleSSIM: no images were given before aggregate().")
        return values.mean()
