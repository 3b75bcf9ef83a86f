"""The segmentation network, with all that is needed to use it in its state dict."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from .pixel_network import Architecture, PixelNetwork, recorded


class Segmenter(PixelNetwork):
    """Class of each pixel of a grey slice.

    image ``(B, 1, X, Y)`` in [0, 1] -> logits ``(B, K, X, Y)`` in float32. The default U-Net has 2.0 M weights, the
    classic one, features (64, 128, 256, 512, 1024, 64), 31.1 M, the Swin-Unet 27.2 M.

    Args:
        architecture: ``"unet"`` or ``"swin_unet"``.
        label_values: value in the label files -> class index; the indices are 0..K-1, 0 the background.
        image_size: see :class:`PixelNetwork`.
        spacing_mm: side of a pixel in the images it is trained on; None: as the files have it.
        window: lower and upper bound of the recipe's intensity scaling (HU), (0, 1) where it goes by percentiles.
        axcodes: orientation of the volumes that slices are cut from, e.g. "RAS"; None: as each file has it.
        features: of the U-Net.
        embed_dim, depths, num_heads, window_size, drop_path: of the Swin-Unet.
    """

    def __init__(
        self,
        *,
        architecture: Architecture = "unet",
        label_values: Mapping[int, int],
        image_size: Sequence[int],
        spacing_mm: float | None = None,
        window: Sequence[float] = (0.0, 1.0),
        axcodes: str | None = None,
        features: Sequence[int] = (32, 32, 64, 128, 256, 32),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_path: float = 0.2,
    ) -> None:
        values = {int(value): int(index) for value, index in label_values.items()}
        indices = sorted(set(values.values()))
        if len(indices) < 2 or indices != list(range(len(indices))):
            raise ValueError(
                f"Segmenter: label_values={values} must lead to the indices 0..K-1 without gaps, K at least 2."
            )
        super().__init__(
            len(indices),
            {
                "label_values": ",".join(f"{value}:{index}" for value, index in sorted(values.items())),
                "spacing_mm": float(spacing_mm or 0),  # 0: as the files have it
                "window_low": float(window[0]),
                "window_high": float(window[1]),
                "axcodes": axcodes or "",
            },
            architecture=architecture,
            image_size=image_size,
            features=features,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            drop_path=drop_path,
        )
        self.label_values = values
        self.num_classes = len(indices)
        self.spacing_mm = float(spacing_mm) if spacing_mm else None
        self.window = (float(window[0]), float(window[1]))
        self.axcodes = axcodes

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> "Segmenter":
        """The network that a state dict describes, with its weights.

        Raises:
            ValueError: it describes none, or not the one whose weights it holds.
        """
        pairs = (pair.split(":") for pair in recorded(cls.__name__, state_dict, "label_values").split(","))
        segmenter = cls(
            label_values={int(value): int(index) for value, index in pairs},
            spacing_mm=recorded(cls.__name__, state_dict, "spacing_mm") or None,
            window=[recorded(cls.__name__, state_dict, f"window_{bound}") for bound in ("low", "high")],
            axcodes=recorded(cls.__name__, state_dict, "axcodes") or None,
            **cls.recorded_arguments(state_dict),
        )
        segmenter.load_state_dict(state_dict)
        return segmenter

    def predict(self, image: Tensor) -> Tensor:
        """Most likely class of each pixel: ``(B, 1, X, Y)`` in [0, 1] -> indices ``(B, 1, X, Y)`` int64."""
        return self(image).argmax(dim=1, keepdim=True)
