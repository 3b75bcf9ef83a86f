"""Edge maps of shapes whose edges are known."""

import pytest
import torch
from torch import Tensor

from common.transforms.edges import canny_edges


def disc(radius: float = 18.0, contrast: float = 0.6, size: int = 64) -> Tensor:
    """(1, 1, size, size) with a disc about the center, and the distance of each pixel to its rim."""
    x = torch.arange(size) - (size - 1) / 2
    apart = torch.hypot(x[:, None], x) - radius
    return torch.stack([0.2 + contrast * (apart < 0), apart])[:, None, None]


def test_the_edge_of_a_disc_is_a_thin_ring() -> None:
    image, apart = disc()
    edges = canny_edges(image)
    assert edges.shape == image.shape
    assert edges.dtype == torch.uint8
    assert edges.unique().tolist() == [0, 1]
    assert apart[0][edges[0] == 1].abs().max() < 1.5
    # a closed line of one pixel: as many as the circumference has, diagonal steps being longer
    assert 0.8 * 2 * torch.pi * 18 < edges.sum() < 1.1 * 2 * torch.pi * 18


def test_thresholds_are_in_intensity() -> None:
    """A low step is no edge; smoothed with sigma 1, a step of s rises by about 0.4 s per pixel, Sobel sums by 4."""
    assert canny_edges(disc(contrast=0.02)[0]).sum() == 0
    assert canny_edges(disc(contrast=0.02)[0], low=0.001, high=0.002).sum() > 50
    assert canny_edges(disc()[0], high=5.0, low=4.0).sum() == 0


def test_images_of_a_batch_do_not_see_each_other() -> None:
    images = torch.cat([disc(10)[0], disc(20)[0], torch.full((1, 1, 64, 64), 0.5)])
    edges = canny_edges(images)
    assert torch.equal(edges[1:2], canny_edges(images[1:2]))
    assert edges[2].sum() == 0
    assert edges[0].sum() < edges[1].sum()


def test_a_wider_gaussian_drops_noise() -> None:
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert canny_edges(noise, sigma=4.0).sum() < 0.5 * canny_edges(noise, sigma=1.0).sum()


def test_no_gradient_passes() -> None:
    assert not canny_edges(disc()[0].requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 8, 8), r"images of shape \(1, 3, 8, 8\); needed are \(B, 1, X, Y\)"),
        (255 * disc()[0], r"intensities lie in 51\.\.204; .*Divide grey levels by 255 first"),
        (torch.full((1, 1, 8, 8), torch.nan), "intensities lie in nan"),
    ],
)
def test_other_images_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canny_edges(images)


def test_falling_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"low=0\.3 and high=0\.2 must be two rising thresholds"):
        canny_edges(disc()[0], low=0.3)
