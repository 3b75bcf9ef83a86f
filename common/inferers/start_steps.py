"""Reconstructions of the same images from several amounts of noise."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor


class StartSteps(Inferer):
    """Labels (B, 1, X, Y) -> reconstructions (B, S, X, Y), channel s from ``starts[s]`` steps of noise.

    For ``ReconstructionReport``. All inferers see the same inputs; what they draw does not depend on each other.

    Args:
        inferer: makes the inferer of a start step; called as ``inferer(start=k)``, k = 0 being the autoencoder alone.
        starts: steps, rising.

    Raises:
        ValueError: no steps, or not rising.
    """

    def __init__(self, inferer: Callable[..., Inferer], starts: Sequence[int]) -> None:
        if not starts or sorted(set(starts)) != list(starts):
            raise ValueError(f"StartSteps: starts={list(starts)} must be one or more steps, each larger than the last.")
        self.inferers = [inferer(start=start) for start in starts]

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        return torch.cat([inferer(inputs, network, *args, **kwargs) for inferer in self.inferers], dim=1)
