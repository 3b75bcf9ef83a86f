"""The space that label-guided diffusion is trained in, by name."""

import os
from pathlib import Path
from typing import Literal, get_args

from ...state_files import load_state
from ..nets.pixel_space import PixelSpace
from ..nets.quantized_autoencoder import QuantizedAutoencoder

LatentSpaceKind = Literal["quantized", "pixel"]


def latent_space(kind: LatentSpaceKind, path: str | os.PathLike | None = None) -> QuantizedAutoencoder | PixelSpace:
    """A trained autoencoder, frozen, in evaluation mode, on the CPU; or the pixels themselves.

    Args:
        kind: ``"quantized"``: trained by the stage ``train_autoencoder.json``; ``"pixel"``: no autoencoder.
        path: of ``"quantized"`` the file of its weights: a state dict, or one under ``"model"``.

    Raises:
        FileNotFoundError: no weights; says where they come from.
        RuntimeError: the file is broken.
        ValueError: unknown kind, or a file of something else.
    """
    if kind not in get_args(LatentSpaceKind):
        raise ValueError(
            f"latent_space: kind={kind!r} is unknown; choose one of {', '.join(get_args(LatentSpaceKind))}."
        )
    if kind == "pixel":
        return PixelSpace().eval()
    if path is None or not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no trained autoencoder at {path}. Train it first, by the stage train_autoencoder.json "
            "(python -m monai.bundle run --config_file <bundle>/configs/train_autoencoder.json), or give the path of "
            "its model.pt."
        )
    state = load_state(Path(path))
    try:
        return QuantizedAutoencoder.from_state_dict(state.get("model", state)).freeze()
    except ValueError as error:
        raise ValueError(f"{path} holds no autoencoder of train_autoencoder.json: {error}") from error
