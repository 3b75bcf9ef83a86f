"""The segmentation network with one channel, to be pretrained by filling in what was hidden of images."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from .pixel_network import Architecture, PixelNetwork


class ContextEncoder(PixelNetwork):
    """Image of the same size: ``(B, 1, X, Y)`` in [0, 1] -> ``(B, 1, X, Y)`` in float32.

    Its body is that of a :class:`Segmenter` with the same arguments, whose ``load_body`` takes it over.

    Args:
        architecture, image_size, features, embed_dim, depths, num_heads, window_size, drop_path: see
            :class:`PixelNetwork`.
    """

    def __init__(
        self,
        *,
        architecture: Architecture = "unet",
        image_size: Sequence[int],
        features: Sequence[int] = (32, 32, 64, 128, 256, 32),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__(
            1,
            {},
            architecture=architecture,
            image_size=image_size,
            features=features,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            drop_path=drop_path,
        )

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> "ContextEncoder":
        """The network that a state dict describes, with its weights; ValueError if it describes none."""
        network = cls(**cls.recorded_arguments(state_dict))
        network.load_state_dict(state_dict)
        return network
