"""Images as sequences of square patches, and back."""

from collections.abc import Sequence

from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from .precision import full_precision
from .swin import from_windows, to_windows


def token_grid(owner: str, input_size: int | Sequence[int], patch_size: int) -> tuple[int, int]:
    """Patches along the two image axes.

    Raises:
        ValueError: ``input_size`` (X, Y), or a side of both, is no multiple of ``patch_size``; ``owner`` is named.
    """
    x, y = ensure_tuple_rep(input_size, 2)
    if patch_size < 1 or min(x, y) < patch_size or x % patch_size or y % patch_size:
        raise ValueError(
            f"{owner}: input_size={x}x{y} does not divide into patches of patch_size={patch_size}; choose an image "
            f"size whose latents are multiples of {patch_size}, or another patch_size."
        )
    return x // patch_size, y // patch_size


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Image ``(B, C, X, Y)`` -> patches ``(B, X/p * Y/p, p * p * C)``.

    Patch ``i * Y/p + j`` holds pixel (p i + u, p j + v) of channel c at ``(p u + v) C + c``.
    """
    windows = to_windows(image.movedim(1, -1), (patch_size, patch_size))  # (B L, p p, C)
    return windows.flatten(1).unflatten(0, (len(image), -1))


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Invert :func:`patchify` for a grid of (X/p, Y/p) patches."""
    windows = patches.unflatten(-1, (patch_size**2, -1)).flatten(0, 1)  # (B L, p p, C)
    size = grid[0] * patch_size, grid[1] * patch_size
    return from_windows(windows, (patch_size, patch_size), size).movedim(-1, 1)


class PatchEmbedding(nn.Module):
    """A linear map of every patch: the convolution of kernel and stride ``patch_size``.

    image ``(B, C, X, Y)`` -> tokens ``(B, L, D)`` in the order of :func:`patchify`. Full precision under autocast,
    where bfloat16 would cut the image to 8 bits.

    Args:
        in_channels: C.
        patch_size: side of a patch in pixels.
        embed_dim: D.
    """

    def __init__(self, in_channels: int, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.linear = nn.Linear(in_channels * patch_size**2, embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        with full_precision(image.device):
            return self.linear(patchify(image.to(self.linear.weight.dtype), self.patch_size))
