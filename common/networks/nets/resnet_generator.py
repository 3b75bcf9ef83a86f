"""Generator of CycleGAN: residual blocks at a quarter of the image size."""

from monai.networks.utils import normal_init
from torch import Tensor, nn

from ..blocks.precision import full_precision

_SMALLEST = 8  # pixels; a quarter of it must have another pixel to be reflected


class ReflectedBlock(nn.Module):
    """``x + f(x)`` with f two 3x3 convolutions on reflected borders, instance norms and a ReLU. ``(B, C, X, Y)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(channels, channels, 3), nn.ReLU(inplace=True), *_convolution(channels, channels, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResNetGenerator(nn.Module):
    """Residual network of CycleGAN (Zhu et al. 2017, after Johnson et al. 2016), "ResNet-9" with 9 blocks.

    image ``(B, in_channels, X, Y)`` -> image ``(B, out_channels, X, Y)`` in (-1, 1), float32, under autocast, too; X
    and Y multiples of 4 (:attr:`size_multiple`), at least 8.

    A 7x7 convolution, two that halve the size and double the width, the blocks, two transposed ones back, a 7x7
    convolution. Instance norms without weights.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the result.
        channels: base width.
        num_blocks: residual blocks.
    """

    size_multiple = 4

    def __init__(self, in_channels: int = 1, out_channels: int = 1, channels: int = 64, num_blocks: int = 9) -> None:
        super().__init__()
        self.in_channels = in_channels
        layers: list[nn.Module] = [*_convolution(in_channels, channels, 7), nn.ReLU(inplace=True)]
        for width in (channels, 2 * channels):
            layers += [
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
                nn.InstanceNorm2d(2 * width),
                nn.ReLU(inplace=True),
            ]
        layers += [ReflectedBlock(4 * channels) for _ in range(num_blocks)]
        for width in (4 * channels, 2 * channels):
            up = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)
            layers += [up, nn.InstanceNorm2d(width // 2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.output = nn.Conv2d(channels, out_channels, 7, padding=3, padding_mode="reflect")
        self.apply(normal_init)  # weights N(0, 0.02), biases 0

    def forward(self, image: Tensor) -> Tensor:
        if (
            image.ndim != 4
            or image.shape[1] != self.in_channels
            or any(side < _SMALLEST or side % self.size_multiple for side in image.shape[2:])
        ):
            raise ValueError(
                f"ResNetGenerator: got an image of shape {tuple(image.shape)}; this network takes (B, "
                f"{self.in_channels}, X, Y) with X and Y multiples of {self.size_multiple}, at least {_SMALLEST}. Pad "
                "the images with background."
            )
        h = self.layers(image)  # (B, channels, X, Y)
        with full_precision(h.device):  # bfloat16 would cut the image to 8 bits
            return self.output(h.float()).tanh()


def _convolution(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
    """Convolution on reflected borders, which keeps the size, and instance norm."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, padding_mode="reflect")
    return [convolution, nn.InstanceNorm2d(out_channels)]
