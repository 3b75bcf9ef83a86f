"""The latent space that a diffusion model is trained in, by name."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from ...state_files import load_state
from ..nets.latent_autoencoder import LatentAutoencoder
from ..nets.scratch_autoencoder import ScratchAutoencoder
from .stable_diffusion_vae import StableDiffusionVAE

AutoencoderKind = Literal["scratch", "sd-vae-ft-mse"]


def pretrained_autoencoder(
    kind: AutoencoderKind,
    path: str | os.PathLike | None = None,
    *,
    ct_window: Sequence[float],
    allow_download: bool = False,
) -> LatentAutoencoder:
    """A trained autoencoder, frozen, in evaluation mode, on the CPU.

    Args:
        kind: ``"scratch"``: trained by the stage ``train_autoencoder.json``; ``"sd-vae-ft-mse"``: Stable Diffusion's.
        path: of ``"scratch"`` the file of its weights; of ``"sd-vae-ft-mse"`` a folder, see
            :class:`StableDiffusionVAE`, or None for the Hugging Face cache.
        ct_window: HU that are -1 and +1 in the CT images; ``"scratch"`` must have been trained with the same.
        allow_download: of ``"sd-vae-ft-mse"``.

    Raises:
        FileNotFoundError: no weights; says where they come from.
        RuntimeError: the file is broken.
        ValueError: unknown kind, another HU window, a file of something else, or without the scale of its latents.
    """
    if kind not in get_args(AutoencoderKind):
        raise ValueError(
            f"pretrained_autoencoder: kind={kind!r} is unknown; choose one of {', '.join(get_args(AutoencoderKind))}."
        )
    if kind == "sd-vae-ft-mse":
        return StableDiffusionVAE(path, allow_download=allow_download)
    return _scratch(path, ct_window)


def _scratch(path: str | os.PathLike | None, ct_window: Sequence[float]) -> ScratchAutoencoder:
    """Read the file of a trained :class:`ScratchAutoencoder`; all that it is not good for is an error."""
    if path is None or not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no trained autoencoder at {path}. Train it first, by the stage train_autoencoder.json "
            "(python -m monai.bundle run --config_file <bundle>/configs/train_autoencoder.json), or give the path of "
            "its model.pt, or choose the autoencoder 'sd-vae-ft-mse'."
        )
    state = load_state(Path(path))
    try:
        autoencoder = ScratchAutoencoder.from_state_dict(state.get("model", state))
    except ValueError as error:
        raise ValueError(f"{path} holds no autoencoder of train_autoencoder.json: {error}") from error
    if autoencoder.ct_window != tuple(map(float, ct_window)):
        raise ValueError(
            f"{path}: the autoencoder was trained on CT between {_hu(autoencoder.ct_window)} HU, asked for is "
            f"{_hu(ct_window)} HU. Set hu_min and hu_max to the former, or train another autoencoder."
        )
    if not autoencoder.scale > 0:
        raise ValueError(
            f"{path}: the scale of the latents is not set, so these weights were not saved by the stage "
            "train_autoencoder.json; give its model.pt, or run it."
        )
    return autoencoder.eval().requires_grad_(False)


def _hu(window: Sequence[float]) -> str:
    return " and ".join(f"{level:g}" for level in window)
