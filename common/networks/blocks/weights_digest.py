"""A short name for the weights of a network."""

import hashlib

import torch
from torch import nn


@torch.no_grad()
def weights_digest(module: nn.Module) -> str:
    """First 12 hexadecimal digits of a SHA-256 over names, shapes and float32 values of parameters and buffers.

    It depends neither on the device nor on the memory layout. Reads all weights: 0.2 s for 300 MB.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.float().cpu().contiguous().reshape(-1).numpy())
    return digest.hexdigest()[:12]
