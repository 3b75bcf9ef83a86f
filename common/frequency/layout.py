"""How many tokens, of how many numbers, an image becomes."""

from dataclasses import dataclass

from .zigzag import num_kept


@dataclass(frozen=True)
class TokenLayout:
    """Sizes that follow from image, block and truncation.

    Args:
        image_size: pixels along the two axes; padded to multiples of ``2 * block`` inside the network.
        block: side of a DCT block in pixels (b).
        dropped: highest zigzag frequencies cut off per block (m), 0..b^2 - 1.
    """

    image_size: tuple[int, int]
    block: int
    dropped: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", (int(self.image_size[0]), int(self.image_size[1])))
        num_kept(self.block, self.dropped)  # raises if they do not fit together
        if min(self.image_size) < 1:
            raise ValueError(f"TokenLayout: image_size {self.image_size} must be two positive numbers of pixels.")

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens along the two axes."""
        side = 2 * self.block
        return -(-self.image_size[0] // side), -(-self.image_size[1] // side)

    @property
    def num_features(self) -> int:
        """Numbers per token, F = 4 (b^2 - m)."""
        return 4 * num_kept(self.block, self.dropped)
