"""BiomedCLIP's vision tower as a source of one vector per image; real weights or an error.

Only the tower is built, by timm alone: open_clip would ask the hub for the text tower's configuration even where all
files are local. The folder is the one of :mod:`.biomedclip`, of which ``text/`` is not needed.
"""

import json
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.compatibility import weight_differences
from ..blocks.precision import full_precision
from ..blocks.weights_digest import weights_digest
from .biomedclip import MODEL
from .hub import FoundFiles, find_files, reading


class BiomedCLIPVision(nn.Module):
    """Vision transformer and projection of BiomedCLIP (86.2 M weights), frozen, in evaluation mode, on the CPU.

    Grey images ``(B, 1, X, Y)`` in [-1, 1] -> vectors ``(B, 512)`` float32, not L2-normalized. Images are brought to
    the 224x224 pixels of the tower (bilinear, antialiased), to [0, 1], to three channels and to mean and standard
    deviation of its training. All is computed in float32, under autocast, too.

    ``identity`` is ``biomedclip:<digest of the weights>`` and tells raw input apart: vectors of equal identity fit
    together.

    Args:
        folder: folder with ``open_clip_config.json`` and the weights; without it the Hugging Face cache is searched.
        allow_download: consent to a download of about 800 MB into that cache.
        normalize: False feeds the images in [-1, 1] as they are, as the public code of Med-DiT does.

    Raises:
        FileNotFoundError: the files are not there; says how to provide them or do without.
        RuntimeError: they are there but broken, incomplete or not BiomedCLIP's.
        ImportError: timm is not installed.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, folder: str | os.PathLike | None = None, *, allow_download: bool = False, normalize: bool = True
    ) -> None:
        super().__init__()
        (files,) = find_files(
            MODEL,
            folder=folder,
            allow_download=allow_download,
            instead="image_encoder 'small_cnn', a small network that is trained along, or 'none'",
        )
        with reading("BiomedCLIP", "timm", files):
            config = json.loads(files.paths[0].read_text(encoding="utf-8"))
            self.trunk, self.projection = _load(files, config["model_cfg"])
            mean, std = (torch.tensor(config["preprocess_cfg"][name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
        self.image_size: tuple[int, int] = tuple(self.trunk.patch_embed.img_size)
        self.normalize = normalize
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.eval().requires_grad_(False)
        self.identity = f"biomedclip{'' if normalize else '-raw'}:{weights_digest(self)}"

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Vectors ``(B, 512)`` of images ``(B, 1, X, Y)``."""
        if image.ndim != 4 or image.shape[1] != 1:
            raise ValueError(f"BiomedCLIPVision: got images of shape {tuple(image.shape)}; needed are (B, 1, X, Y).")
        with full_precision(image.device):
            image = F.interpolate(image.float(), self.image_size, mode="bilinear", antialias=True)
            image = image.expand(-1, 3, -1, -1)  # (B, 1, 224, 224) -> (B, 3, 224, 224)
            if self.normalize:
                image = ((image + 1) / 2 - self.mean) / self.std
            return self.projection(self.trunk(image))  # (B, 768) -> (B, 512)


def _load(files: FoundFiles, config: dict[str, Any]) -> tuple[Any, nn.Linear]:
    """Transformer and projection with every weight from the file, which holds the text tower, too."""
    import timm

    vision = config["vision_cfg"]
    if vision.get("timm_pool") or vision.get("timm_proj") != "linear":
        raise ValueError(f"{files.paths[0]} describes another vision tower (timm_pool, timm_proj)")
    trunk: Any = timm.create_model(vision["timm_model_name"], pretrained=False, num_classes=0)
    projection = nn.Linear(trunk.num_features, config["embed_dim"], bias=False)
    tower = nn.ModuleDict({"trunk": trunk, "head": nn.ModuleDict({"proj": projection})})
    weights = {name: value for name, value in _read(files).items() if name.startswith("visual.")}
    lines = weight_differences(tower, weights, "", "visual")
    if lines:
        raise ValueError(f"the weights are not those of a {vision['timm_model_name']}: {'; '.join(lines)}")
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} is not finite")
    tower.load_state_dict({name.removeprefix("visual."): value for name, value in weights.items()})
    return trunk, projection


def _read(files: FoundFiles) -> dict[str, Tensor]:
    path = files.paths[1]
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
