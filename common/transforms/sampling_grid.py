"""Where each pixel of a moved image comes from, for whole batches: the grids that ``grid_sample`` takes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pose_matrix(rotation: Tensor, scaling: Tensor, shift: Tensor, size: tuple[int, int]) -> Tensor:
    """Affine map from a place in the moved image to the one in the original: rotation, scaling, then shift.

    Places count in half sides from the center, in the order X, Y; angles are true on pixel grids of any shape.

    Args:
        rotation: (B,) radians, from axis X towards axis Y.
        scaling: (B,), above 1 makes things larger.
        shift: (B, 2) along X and Y, as shares of the sides.
        size: (X, Y) in pixels, which are square.

    Returns:
        (B, 2, 3)
    """
    sides = rotation.new_tensor(size)  # (X, Y)
    cos, sin = torch.cos(rotation) / scaling, torch.sin(rotation) / scaling
    back = torch.stack([torch.stack([cos, sin], dim=1), torch.stack([-sin, cos], dim=1)], dim=1)  # new place -> old
    back = back * sides[None, None, :] / sides[None, :, None]  # pixels -> half sides
    origin = -(back @ (2 * shift)[:, :, None])
    return torch.cat([back, origin], dim=2)


def sampling_grid(matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Grid (B, X, Y, 2) of an affine map (B, 2, 3) in the order X, Y; the grid's last axis is in the order Y, X."""
    swapped = torch.cat([matrix[:, :, [1, 0]], matrix[:, :, 2:]], dim=2)[:, [1, 0]]  # grid_sample: last axis first
    return F.affine_grid(swapped, [len(matrix), 1, *size], align_corners=False)


def sample(images: Tensor, grid: Tensor, *, nearest: bool = False) -> Tensor:
    """Images (B, C, X, Y) at the places of a grid (B, X, Y, 2); 0 comes in from outside.

    Args:
        images: of any type; the result has it.
        grid: see :func:`sampling_grid`.
        nearest: take the nearest pixel, as label maps need; otherwise interpolate linearly.
    """
    mode = "nearest" if nearest else "bilinear"
    moved = F.grid_sample(images.float(), grid, mode=mode, padding_mode="zeros", align_corners=False)
    return moved.to(images.dtype)
