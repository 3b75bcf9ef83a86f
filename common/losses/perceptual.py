"""LPIPS, the learned perceptual distance between images, with real weights or an error."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..hub_file import find_hub_file

PerceptualNetwork = Literal["vgg", "alex"]


@dataclass(frozen=True)
class Backbone:
    """A network below LPIPS and where its weights come from."""

    builder: str  # in lpips.pretrained_networks
    url: str  # torchvision's file, whose name ends with the start of its SHA-256
    smallest: int  # image side in pixels that still leaves something after the last pooling


BACKBONES = {
    "vgg": Backbone("vgg16", "https://download.pytorch.org/models/vgg16-397923af.pth", 16),
    "alex": Backbone("alexnet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", 31),
}


class PerceptualLoss(nn.Module):
    """``sum_l mean_xy w_l . (f_l(prediction) - f_l(target))^2``, averaged over the batch (LPIPS, Zhang et al. 2018).

    f_l are the unit-normalized features of five layers of a frozen VGG-16 or AlexNet, w_l the weights that the
    ``lpips`` package ships (version 0.1). Images ``(B, 1, H, W)`` in [-1, 1], taken as gray pictures; returns a float32
    scalar, also under autocast. Always in evaluation mode.

    Args:
        network: "vgg" or "alex".
        weights: torchvision's file of the network trained on ImageNet; if given, no other place is tried. Without it
            the cache of ``torch.hub`` is searched.
        allow_download: consent to a download into that cache (VGG-16: 528 MB, AlexNet: 233 MB).

    Raises:
        FileNotFoundError: no weights; says where they were looked for and how to provide them.
        ValueError: unknown network, or a file that is broken or belongs to another network.
    """

    def __init__(
        self,
        network: PerceptualNetwork = "vgg",
        *,
        weights: str | os.PathLike | None = None,
        allow_download: bool = False,
    ) -> None:
        super().__init__()
        if network not in get_args(PerceptualNetwork):
            choices = ", ".join(get_args(PerceptualNetwork))
            raise ValueError(f"PerceptualLoss: network={network!r} is unknown; choose one of {choices}.")
        import lpips

        self.smallest = BACKBONES[network].smallest
        file = find_hub_file(
            "PerceptualLoss",
            repr(network),
            BACKBONES[network].url,
            weights,
            allow_download=allow_download,
            instead="To do without, set the weight of this loss to 0.",
        )
        self.trunk = _load_trunk(network, file)
        self.scaling = lpips.ScalingLayer()
        shipped = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{network}.pth"
        heads = torch.load(shipped, map_location="cpu", weights_only=True)
        self.heads = nn.ParameterList(heads[f"lin{layer}.model.1.weight"] for layer in range(5))  # each (1, C_l, 1, 1)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Nothing to do: the networks stay as they are, whatever contains the loss."""
        return super().train(False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.distances(pred, target).mean()

    def distances(self, pred: Tensor, target: Tensor) -> Tensor:
        """The distance of each pair of images, ``(B,)`` float32; the loss is their mean."""
        if pred.shape != target.shape or pred.ndim != 4 or pred.shape[1] != 1:
            raise ValueError(
                f"PerceptualLoss: prediction {tuple(pred.shape)} and target {tuple(target.shape)} must both be "
                "(B, 1, H, W); give several channels or slices as a larger batch."
            )
        if min(pred.shape[-2:]) < self.smallest:
            raise ValueError(
                f"PerceptualLoss: images of {pred.shape[-2]}x{pred.shape[-1]} px vanish in the network's poolings; it "
                f"needs at least {self.smallest} px along each side."
            )
        self.to(pred.device)  # copies once, at the first call
        with torch.autocast(pred.device.type, enabled=False):
            with torch.no_grad():
                references = self._features(target)
            distance = pred.new_zeros(len(pred), dtype=torch.float32)
            for head, feature, reference in zip(self.heads, self._features(pred), references, strict=True):
                squares = (feature - reference).square() * head  # (B, C, h, w)
                distance = distance + squares.sum(1).mean((1, 2))  # (B,)
        return distance

    def _features(self, image: Tensor) -> list[Tensor]:
        """Five feature maps ``(B, C_l, h_l, w_l)``, of unit length along the channels."""
        features = self.trunk(self.scaling(image.float().expand(-1, 3, -1, -1)))
        return [feature / (torch.linalg.vector_norm(feature, dim=1, keepdim=True) + 1e-10) for feature in features]


def _load_trunk(network: PerceptualNetwork, path: Path) -> nn.Module:
    """The five slices of the backbone, all of their weights from the file."""
    from lpips import pretrained_networks

    with torch.device("meta"), warnings.catch_warnings():  # no random weights, so that none can be left over
        warnings.simplefilter("ignore", UserWarning)  # torchvision on the argument that lpips uses
        trunk = getattr(pretrained_networks, BACKBONES[network].builder)(pretrained=False)
    names = {name: f"features.{name.split('.', 1)[1]}" for name in trunk.state_dict()}  # slice2.5.bias: features.5.bias
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        wanted = {name: state[there].float() for name, there in names.items()}
        if not all(value.isfinite().all() for value in wanted.values()):
            raise ValueError("weights that are not finite")
        trunk.load_state_dict(wanted, assign=True)
    except Exception as error:  # pickle, zip and torch raise what they like about a broken file
        raise ValueError(
            f"PerceptualLoss: {path} is not torchvision's whole file of {network!r} ({type(error).__name__}: {error}); "
            f"get {BACKBONES[network].url} again."
        ) from error
    return trunk
