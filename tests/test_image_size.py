"""Image sizes that become whole tokens."""

import pytest

from common.image_size import check_image_size, latent_size


@pytest.mark.parametrize("size", [(224, 224), (256, 320), (16, 448)])
def test_sizes_of_whole_patches_are_taken(size: tuple[int, int]) -> None:
    assert check_image_size(list(size), factor=8, patch_size=2) == size


@pytest.mark.parametrize("size", [(224, 232), (8, 16), (0, 16), (16,), (16, 16, 16), (-16, 16)], ids=str)
def test_other_sizes_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be two multiples of 16: .* 8 pixels per latent pixel"):
        check_image_size(size, 8, 2)


def test_the_nearest_size_is_named() -> None:
    with pytest.raises(ValueError, match=r"image_size=\[220, 230\] .* The nearest is \[224, 224\]"):
        check_image_size([220, 230], factor=8)


def test_latent_pixels_are_whole() -> None:
    assert latent_size([224, 320], factor=8) == (28, 40)
    with pytest.raises(ValueError, match="multiples of 16"):
        latent_size([224, 328], factor=8)
