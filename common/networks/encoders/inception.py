"""Features of the published Inception-v3 that the Frechet inception distance (FID) is stated for."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...hub_file import find_hub_file
from ..blocks.precision import full_precision
from ..blocks.weights_digest import weights_digest

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
_LAYER = "2048"  # global average pooling, before the classifier


class InceptionFeatures(nn.Module):
    """Images ``(B, 1, X, Y)`` in [0, 1] -> 2048 features ``(B, 2048)`` in float64.

    The network of 2015 with TensorFlow's weights, as torch-fidelity has it: gray repeated to three channels, rounded to
    8 bit, resized to 299x299 as TensorFlow 1 did, scaled to [-1, 1]. torchvision's network of the same name gives other
    distances. Frozen, in evaluation mode, in float32 also under autocast; moves to the device of the images.

    Args:
        weights: the file; if given, no other place is tried. Without it the cache of ``torch.hub`` is searched.
        allow_download: consent to a download of 91 MB into that cache.

    Raises:
        FileNotFoundError: no weights; says where they were looked for and how to provide them.
        ImportError: torch-fidelity is not installed.
        ValueError: the file is broken or holds something else.

    Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule ..."; weights Apache 2.0.
    """

    name = "fid"
    meaning = (
        "Frechet inception distance: 2048 features of the published Inception-v3 of 2015 (torch-fidelity), gray as "
        "RGB; biased upwards for fewer than 2048 images; lower is better"
    )

    def __init__(self, weights: str | os.PathLike | None = None, *, allow_download: bool = False) -> None:
        super().__init__()
        path = find_hub_file(
            "InceptionFeatures",
            "Inception-v3",
            URL,
            weights,
            allow_download=allow_download,
            instead="To do without, leave the FID out.",
        )
        self.network = _load(path)
        self.requires_grad_(False).eval()
        self.identity = f"inception-v3-2015:{weights_digest(self.network)}"

    def train(self, mode: bool = True) -> "InceptionFeatures":
        """Nothing to do: batch statistics stay those of the file, whatever contains the network."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"InceptionFeatures: images of shape {tuple(images.shape)}; expected (B, 1, X, Y).")
        self.to(images.device)  # copies once, at the first call
        levels = images.as_subclass(Tensor).float().clamp(0, 1).mul(255).round().to(torch.uint8)
        with full_precision(images.device):
            (features,) = self.network(levels.expand(-1, 3, -1, -1))
        return features.double()


def _load(path: Path) -> Any:
    """torch-fidelity's network; it refuses a file that lacks a weight, and reads no weight from anywhere else."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError(f"InceptionFeatures needs `pip install torch-fidelity` ({error}).") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run what is in the file
        if not all(value.isfinite().all() for value in state.values()):
            raise ValueError("weights that are not finite")
        return FeatureExtractorInceptionV3("fid", [_LAYER], feature_extractor_weights_path=str(path))
    except Exception as error:  # pickle, zip and torch raise what they like about a broken file
        raise ValueError(
            f"InceptionFeatures: {path} is not the whole file of Inception-v3 ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); get {URL} again."
        ) from error
