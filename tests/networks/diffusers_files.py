"""Files in the format of Stable Diffusion's autoencoder, written by diffusers itself."""

from pathlib import Path
from typing import Any

import torch

WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = {"block_out_channels": (4, 8, 8), "layers_per_block": 1, "norm_num_groups": 2, "scaling_factor": 0.25}
PUBLISHED = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}


def make_vae(folder: Path, **settings: Any) -> Any:
    """Write an autoencoder with random weights; returns it. The settings are those of ``diffusers.AutoencoderKL``."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    levels = len(settings["block_out_channels"])
    vae = AutoencoderKL(
        **{
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            **settings,
        }
    ).eval()
    vae.save_pretrained(folder)
    return vae
