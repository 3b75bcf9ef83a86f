"""The recipes of Med-DiT on made-up images and untrained weights, for ``benchmark.py``."""

from pathlib import Path
from typing import Any

import torch
from benchmark_recipe import read_recipe
from monai.bundle import ConfigParser
from torch import Tensor

from common.allocator import keep_freed_memory
from common.networks.nets.scratch_autoencoder import ScratchAutoencoder

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "med_dit"

PAPER = {"image_size": [224, 224], "hidden_size": 512, "depth": 16, "num_heads": 8}
"""Sizes of the published transformer; with the small image encoder, since BiomedCLIP needs its weights."""

_PAPER_AUTOENCODER = {"channels": (64, 128, 256, 256), "num_res_blocks": 2, "mid_attention": True}


def load_latent_inference(device: str, folder: Path, paper: bool = False, **overrides: Any) -> ConfigParser:
    """``inference.json`` of Med-DiT with a file of untrained weights, see ``read_recipe``.

    Args:
        device: where to translate.
        folder: for weights and outputs.
        paper: use the sizes of the paper, and an autoencoder of 18 million weights.
        overrides: other keys of the config.
    """
    weights = folder / "untrained_latent.pt"
    settings = {**_settings(device, folder, paper), "load_path": str(weights), **overrides}
    recipe = _on_cpu("inference", settings)
    torch.save(recipe.get_parsed_content("network_def").state_dict(), weights)
    return read_recipe([_config("inference")], settings)


def load_latent_training(device: str, folder: Path, paper: bool = False, **overrides: Any) -> ConfigParser:
    """``train.json`` of Med-DiT with an untrained embedder; it does not know of any data set. Arguments: as above."""
    embedder = folder / "untrained_embedder.pt"
    settings = {**_settings(device, folder, paper), "embedder_path": str(embedder), "decay_steps": 10_000, **overrides}
    recipe = _on_cpu("train", settings)
    torch.save(recipe.get_parsed_content("embedder#embedder").state_dict(), embedder)
    return read_recipe([_config("train")], settings)


def made_up_latents(recipe: ConfigParser) -> dict[str, Tensor]:
    """A batch as the latent cache gives it, on the recipe's device."""
    part = recipe.get_parsed_content
    network, batch_size, device = part("network_def"), part("batch_size"), part("device")
    generator = torch.Generator().manual_seed(0)
    shapes = dict.fromkeys(("source_mean", "target_mean"), network.latent_shape) | {"image": (1, *network.image_size)}
    batch = {name: torch.randn(batch_size, *shape, generator=generator) for name, shape in shapes.items()}
    batch |= {f"{name}_logvar": torch.full_like(batch[f"{name}_mean"], -6.0) for name in ("source", "target")}
    return {name: values.to(device) for name, values in batch.items()}


def forward_flops(recipe: ConfigParser) -> int:
    """Floating-point operations of the transformer's forward pass for one latent, counted by PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode

    network, device = (recipe.get_parsed_content(name) for name in ("network_def", "device"))
    backbone = network.backbone
    x, t = torch.zeros(1, *network.latent_shape, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    vectors = [torch.zeros(1, backbone.hidden_size, device=device)] * backbone.num_conditions
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(x, t, vectors, x if backbone.source_channels else None)
    return counter.get_total_flops()


def _settings(device: str, folder: Path, paper: bool) -> dict[str, Any]:
    keep_freed_memory()  # as every recipe does when it begins
    return {
        "bundle_root": str(BUNDLE),
        "output_dir": str(folder / "latent_output"),
        "ckpt_dir": str(folder / "models"),
        "device": device,
        "autoencoder_path": str(_untrained_autoencoder(folder, paper)),
        **(PAPER if paper else {}),
    }


def _untrained_autoencoder(folder: Path, paper: bool) -> Path:
    path = folder / f"untrained_autoencoder_{'paper' if paper else 'demo'}.pt"
    if not path.is_file():
        torch.manual_seed(0)
        architecture: dict[str, Any] = _PAPER_AUTOENCODER if paper else {}
        autoencoder = ScratchAutoencoder(ct_window=(-1024.0, 2000.0), **architecture)
        autoencoder.set_scale(1.0)
        torch.save(autoencoder.state_dict(), path)
    return path


def _on_cpu(name: str, settings: dict[str, Any]) -> ConfigParser:
    """The recipe before it is parsed, to make a file of weights that it asks for."""
    recipe = ConfigParser()
    recipe.read_config([str(_config(name))])
    recipe.update({**settings, "device": "cpu"})
    torch.manual_seed(0)
    return recipe


def _config(name: str) -> Path:
    return BUNDLE / "configs" / f"{name}.json"
