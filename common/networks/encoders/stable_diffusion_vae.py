"""Stable Diffusion's autoencoder for grey images.

A folder given by the user holds::

    <folder>/config.json
    <folder>/diffusion_pytorch_model.safetensors

Source: Rombach et al. 2022, weights of ``stabilityai/sd-vae-ft-mse`` (MIT); 83.7 M parameters.
"""

import math
import os
from typing import Any

import torch
from torch import Tensor

from ..nets.latent_autoencoder import LatentAutoencoder
from .hub import FoundFiles, HubFiles, find_files, reading

KIND = "sd-vae-ft-mse"
FILES = HubFiles(f"stabilityai/{KIND}", needed=(("config.json",), ("diffusion_pytorch_model.safetensors",)))


class StableDiffusionVAE(LatentAutoencoder):
    """The published weights, frozen, in evaluation mode, on the CPU.

    image ``(B, 1, X, Y)`` in [-1, 1] <-> mean and log variance ``(B, 4, X / 8, Y / 8)``. The network has three colour
    channels: the image is repeated to three, what is decoded is the mean of three. The scale is the configuration's.
    Other autoencoders of this architecture can be given as a folder; their weights give them another ``identity``.

    Args:
        folder: folder with the files named above; without it the Hugging Face cache is searched.
        allow_download: consent to a download of about 335 MB into that cache.

    Raises:
        FileNotFoundError: the files are not there; says how to provide them or do without.
        RuntimeError: they are there but broken, incomplete or not of this architecture.
        ImportError: diffusers is not installed.
    """

    network: Any

    def __init__(self, folder: str | os.PathLike | None = None, *, allow_download: bool = False) -> None:
        (files,) = find_files(
            FILES,
            folder=folder,
            allow_download=allow_download,
            instead="autoencoder 'scratch', which the stage train_autoencoder.json trains on your images",
        )
        with reading(FILES.repository, "diffusers", files):
            network = _load(files)
        config = network.config
        super().__init__(
            KIND,
            network,
            latent_channels=config.latent_channels,
            factor=2 ** (len(config.block_out_channels) - 1),
            scale=config.scaling_factor,
        )
        self.eval().requires_grad_(False)

    def _posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.network.encode(image.expand(-1, 3, -1, -1)).latent_dist  # (B, 1, X, Y) -> (B, 3, X, Y)
        return posterior.mean, posterior.logvar

    def _image(self, z: Tensor) -> Tensor:
        return self.network.decode(z).sample.mean(dim=1, keepdim=True)  # (B, 3, X, Y) -> (B, 1, X, Y)


def _load(files: FoundFiles) -> Any:
    """``diffusers.AutoencoderKL`` with every weight from the file; diffusers alone would leave lacking ones random."""
    from diffusers import AutoencoderKL

    network, report = AutoencoderKL.from_pretrained(
        str(files.folder),
        local_files_only=True,
        use_safetensors=True,
        torch_dtype=torch.float32,
        low_cpu_mem_usage=False,
        output_loading_info=True,
    )
    lacking = [f"{problem} {report[problem][:3]}" for problem in ("missing_keys", "unexpected_keys") if report[problem]]
    if lacking:
        raise ValueError(f"the weights are not those of config.json: {', '.join(lacking)}")
    config = network.config
    if (config.in_channels, config.out_channels) != (3, 3) or config.get("shift_factor") is not None:
        raise ValueError("config.json describes another autoencoder: not three channels to three, or with a shift")
    if not 0 < config.scaling_factor < math.inf:
        raise ValueError(f"scaling_factor={config.scaling_factor} in config.json is no scale")
    for name, value in network.state_dict().items():
        if not value.isfinite().all():
            raise ValueError(f"{name} is not finite")
    return network
