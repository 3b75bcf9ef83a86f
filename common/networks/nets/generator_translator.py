"""Translation of one modality into another by a single pass of a generator: what a checkpoint of a GAN holds."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.compatibility import refuse, settings_differences, weight_differences
from ..blocks.recorded_settings import RecordedSettings

_BACKGROUND = -1.0


class GeneratorTranslator(nn.Module):
    """A generator for slices of any size, with the task and the intensity windows it was trained for.

    source ``(B, 1, X, Y)`` in [-1, 1] -> target ``(B, 1, X, Y)`` in [-1, 1], in float32, under autocast, too. Images of
    a size that the generator does not take are padded evenly with background, and its answer is cropped.

    The state dict records the settings; one that was made for another network or window is refused with one message
    before anything is loaded.

    Args:
        generator: network on ``(B, 1, X, Y)``; its ``size_multiple`` divides the sides it takes.
        source, target: names of the modalities, as the data set calls them.
        image_size: (X, Y) of the slices in pixels.
        fit: how slices were brought to the image size, see ``FitInPlane``.
        hu_min, hu_max: window of CT in HU.
        mr_lower: percentile of MR inside of the mask that is black.
    """

    def __init__(
        self,
        generator: nn.Module,
        source: str,
        target: str,
        image_size: Sequence[int],
        *,
        fit: str = "resize",
        hu_min: float = -1024.0,
        hu_max: float = 2000.0,
        mr_lower: float = 0.5,
    ) -> None:
        super().__init__()
        if source == target:
            raise ValueError(f"GeneratorTranslator: source and target are both {source!r}; name two modalities.")
        if len(image_size) != 2 or min(image_size) < 1:
            raise ValueError(f"GeneratorTranslator: image_size must be two positive numbers (x, y), not {image_size}.")
        if not hu_min < hu_max:
            raise ValueError(f"GeneratorTranslator: hu_min={hu_min} must be below hu_max={hu_max}.")
        self.generator = generator
        self.source, self.target = source, target
        width, height = image_size
        self.image_size = (int(width), int(height))
        self.padding = _even_padding(self.image_size, cast(int, generator.size_multiple))
        self.settings = RecordedSettings(
            {
                "generator": type(generator).__name__,
                "source": source,
                "target": target,
                "width": self.image_size[0],
                "height": self.image_size[1],
                "fit": fit,
                "hu_min": float(hu_min),
                "hu_max": float(hu_max),
                "mr_lower": float(mr_lower),
            }
        )

    def forward(self, source: Tensor) -> Tensor:
        """The target, ``(B, 1, X, Y)``."""
        if tuple(source.shape[2:]) != self.image_size:
            raise ValueError(
                f"GeneratorTranslator: got images of {tuple(source.shape[2:])} pixels, built for {self.image_size}."
            )
        padded = F.pad(source, self.padding, value=_BACKGROUND)  # (B, 1, X', Y')
        top, left = self.padding[2], self.padding[0]
        width, height = self.image_size
        return self.generator(padded)[..., top : top + width, left : left + height].float()  # (B, 1, X, Y)

    def check_ready(self) -> None:
        """Nothing is missing once the network is built."""

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        lines = settings_differences("GeneratorTranslator", self.settings, state_dict, prefix)
        lines = lines or weight_differences(self.generator, state_dict, prefix, "generator")
        refuse("GeneratorTranslator", lines)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _even_padding(size: tuple[int, int], multiple: int) -> tuple[int, int, int, int]:
    """What ``torch.nn.functional.pad`` adds to (X, Y), last axis first, so that ``multiple`` divides both."""
    (x_before, x_after), (y_before, y_after) = ((-side % multiple // 2, (-side % multiple + 1) // 2) for side in size)
    return (y_before, y_after, x_before, x_after)
