"""Generator of Pix2pix: a convolutional encoder and decoder with skip connections at every level."""

import torch
from monai.networks.utils import normal_init
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.precision import full_precision

_WIDEST = 8  # in units of the base width


class UNetGenerator(nn.Module):
    """U-Net of Pix2pix (Isola et al. 2017, section 6.1.1), "U-Net 256" with 8 levels.

    image ``(B, in_channels, X, Y)`` -> image ``(B, out_channels, X, Y)`` in (-1, 1), float32, under autocast, too.

    A level halves X and Y with a 4x4 convolution on the way down and doubles them with a transposed one on the way up,
    where it gets what came out of the convolution of the same size, too. Leaky ReLU down, ReLU up, batch norm
    everywhere but at the two ends and at the bottom. Widths 1, 2, 4, 8, 8, ... times ``channels``.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the result.
        channels: base width.
        num_downs: levels; X and Y must be multiples of ``2**num_downs``, :attr:`size_multiple`.
        dropout: probability of a zero, in training, after the levels of full width above the deepest one: three of 8.

    Raises:
        ValueError: fewer than two levels.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: int = 64,
        num_downs: int = 8,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if num_downs < 2:
            raise ValueError(f"UNetGenerator: num_downs={num_downs} must be at least 2.")
        self.in_channels, self.num_downs = in_channels, num_downs
        self.size_multiple = 2**num_downs
        widths = [channels * min(2**level, _WIDEST) for level in range(num_downs)]

        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for level, width in enumerate(widths):
            deepest = level == num_downs - 1
            down: list[nn.Module] = [nn.Conv2d(widths[level - 1] if level else in_channels, width, 4, 2, 1, bias=False)]
            if level and not deepest:
                down.append(nn.BatchNorm2d(width))
            self.downs.append(nn.Sequential(*down))
            width_in = width if deepest else 2 * width  # from below, and the skip connection
            if level == 0:
                self.ups.append(nn.ConvTranspose2d(width_in, out_channels, 4, 2, 1))
                continue
            above = widths[level - 1]
            up: list[nn.Module] = [nn.ConvTranspose2d(width_in, above, 4, 2, 1, bias=False), nn.BatchNorm2d(above)]
            if above == width and not deepest:
                up.append(nn.Dropout(dropout))
            self.ups.append(nn.Sequential(*up))
        self.apply(normal_init)  # weights N(0, 0.02), of the norms N(1, 0.02); biases 0

    def forward(self, image: Tensor) -> Tensor:
        self._check_input(image)
        features = [self.downs[0](image)]
        for down in list(self.downs)[1:]:
            features.append(down(F.leaky_relu(features[-1], 0.2)))
        h = features.pop()  # (B, widest, X / 2**num_downs, Y / 2**num_downs)
        for up in reversed(list(self.ups)[1:]):
            h = torch.cat([features.pop(), up(F.relu(h))], dim=1)
        with full_precision(h.device):  # bfloat16 would cut the image to 8 bits
            return self.ups[0](F.relu(h).float()).tanh()

    def _check_input(self, image: Tensor) -> None:
        multiple = self.size_multiple
        if image.ndim != 4 or image.shape[1] != self.in_channels or any(side % multiple for side in image.shape[2:]):
            raise ValueError(
                f"UNetGenerator: got an image of shape {tuple(image.shape)}; this network takes (B, "
                f"{self.in_channels}, X, Y) with X and Y multiples of {multiple}, because it halves them "
                f"{self.num_downs} times. Pad the images with background, or build it with fewer num_downs."
            )
