"""Which image sizes become whole tokens."""

from collections.abc import Sequence


def check_image_size(image_size: Sequence[int], factor: int, patch_size: int = 2) -> tuple[int, int]:
    """``image_size`` as (X, Y), if it becomes whole tokens.

    Args:
        image_size: pixels along x and y.
        factor: pixels per latent pixel.
        patch_size: latent pixels per token, along each axis.

    Raises:
        ValueError: a side is not a positive multiple of ``factor * patch_size``.
    """
    multiple = factor * patch_size
    if len(image_size) != 2 or any(side < multiple or side % multiple for side in image_size):
        nearest = [max(1, round(side / multiple)) * multiple for side in image_size]
        raise ValueError(
            f"image_size={list(image_size)} must be two multiples of {multiple}: the autoencoder has {factor} pixels "
            f"per latent pixel, the transformer {patch_size} latent pixels per token, along each axis. The nearest is "
            f"{nearest}."
        )
    width, height = image_size
    return int(width), int(height)


def latent_size(image_size: Sequence[int], factor: int, patch_size: int = 2) -> tuple[int, int]:
    """Latent pixels along x and y; ``ValueError`` as :func:`check_image_size`."""
    width, height = check_image_size(image_size, factor, patch_size)
    return width // factor, height // factor
