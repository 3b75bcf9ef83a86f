"""Small convolutional encoder of an image into one vector, trained with the network that it serves."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..blocks.precision import full_precision

_GROUPS = 8


class ImageCNN(nn.Module):
    """Convolutions of stride 2, each with group norm and SiLU; mean over all pixels; a linear layer.

    image ``(B, 1, X, Y)`` of any size -> vector ``(B, out_channels)`` in float32, under autocast, too.

    Args:
        out_channels: width of the vector.
        channels: of each convolution, multiples of 8.

    Raises:
        ValueError: no convolution, or channels that do not divide into 8 groups.
    """

    def __init__(self, out_channels: int, channels: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        if not channels or any(width < 1 or width % _GROUPS for width in channels):
            raise ValueError(f"ImageCNN: channels={tuple(channels)} must be one or more multiples of {_GROUPS}.")
        layers: list[nn.Module] = []
        for width_in, width in zip((1, *channels), channels, strict=False):
            convolution = nn.Conv2d(width_in, width, 3, stride=2, padding=1)
            layers += [convolution, nn.GroupNorm(_GROUPS, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(channels[-1], out_channels)

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim != 4 or image.shape[1] != 1:
            raise ValueError(f"ImageCNN: got an image of shape {tuple(image.shape)}; it takes (B, 1, X, Y).")
        features = self.layers(image).float().mean(dim=(2, 3))  # (B, channels[-1])
        with full_precision(image.device):
            return self.output(features)
