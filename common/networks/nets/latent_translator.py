"""Translation of one modality into another by diffusion in a latent space: all that a checkpoint of Med-DiT holds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from ...diffusion.gaussian import linear_schedule
from ...image_size import check_image_size
from ..blocks.compatibility import has_settings, refuse, settings_differences, weight_differences
from ..blocks.recorded_settings import RecordedSettings
from .dit import DiT
from .image_cnn import ImageCNN
from .vision_embedder import VisionEmbedder

Conditioning = Literal["spatial", "global"]
ImageEncoder = Literal["biomedclip", "small_cnn", "none"]

VISION_CHANNELS = 512  # of BiomedCLIP's projected image vector
_PARTS = ("backbone", "embedder", "image_cnn", "projection")


class LatentSpace(Protocol):
    """What the translator has to know of an autoencoder; ``LatentAutoencoder`` has it."""

    latent_channels: int
    factor: int

    @property
    def identity(self) -> str: ...

    @property
    def scale(self) -> float: ...


class Identified(Protocol):
    """A pretrained image encoder; ``BiomedCLIPVision`` is one."""

    identity: str


class LatentTranslator(nn.Module):
    """Noise prediction for latents of the target, given the source: backbone, embedder, image encoder and schedule.

    x_t ``(B, C, h, w)``, t ``(B,)`` original steps 0..T-1, source latent ``(B, C, h, w)`` -> ``(B, 2C, h, w)`` in
    float32: predicted noise and, after it, where the variance lies between its bounds (``(B, C, h, w)`` without
    ``learn_sigma``). Each step of the backbone is modulated by the embedder's vector of the source latent and, unless
    ``image_encoder`` is ``"none"``, by a vector of the source image (report on Med-DiT, eqs. 3, 5 and 6).

    The state dict records all settings, the identity of the autoencoder and the intensity windows. One that was made
    for another network, autoencoder or window is refused with one message before anything is loaded. The autoencoder
    itself is not a part of it. The embedder is frozen.

    Args:
        backbone: network on latents; its number of conditions and source channels must be those needed here.
        embedder: pretrained on latents of source images.
        autoencoder: the latent space; only what :class:`LatentSpace` names is used.
        image_size: (X, Y) of the slices in pixels.
        source, target: names of the modalities, as the data set calls them.
        conditioning: ``"spatial"``: the backbone sees the source latent beside x_t; ``"global"``: only the vectors (the
            published method, which cannot place the patient's anatomy).
        image_encoder: ``"biomedclip"``: 512 numbers per slice from outside, projected if the backbone has another
            width; ``"small_cnn"``: a small network that is trained along; ``"none"``.
        vision: the pretrained encoder of ``"biomedclip"``, of which the identity is recorded.
        num_train_steps, beta_start, beta_end: see ``linear_schedule``.
        learn_sigma: the backbone predicts variances, too.
        fit: how slices were brought to the image size, see ``FitInPlane``.
        hu_min, hu_max: window of CT in HU.
        mr_lower: percentile of MR inside of the mask that is black.

    Raises:
        ValueError: an unknown choice, parts that do not fit together (each difference is named), or latents of which
            the scale was not measured.
    """

    def __init__(
        self,
        backbone: DiT,
        embedder: VisionEmbedder,
        autoencoder: LatentSpace,
        image_size: Sequence[int],
        source: str,
        target: str,
        *,
        conditioning: Conditioning = "spatial",
        image_encoder: ImageEncoder = "small_cnn",
        vision: Identified | None = None,
        num_train_steps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        learn_sigma: bool = True,
        fit: str = "resize",
        hu_min: float = -1024.0,
        hu_max: float = 2000.0,
        mr_lower: float = 0.5,
    ) -> None:
        super().__init__()
        if source == target:
            raise ValueError(f"LatentTranslator: source and target are both {source!r}; name two modalities.")
        if conditioning not in get_args(Conditioning):
            raise ValueError(f"LatentTranslator: conditioning={conditioning!r} must be 'spatial' or 'global'.")
        if image_encoder not in get_args(ImageEncoder):
            raise ValueError(
                f"LatentTranslator: image_encoder={image_encoder!r} is unknown; choose one of "
                f"{', '.join(get_args(ImageEncoder))}."
            )
        if (image_encoder == "biomedclip") != (vision is not None):
            raise ValueError(
                f"LatentTranslator: image_encoder={image_encoder!r}, but a pretrained encoder was "
                f"{'not ' if vision is None else ''}given as `vision`; the two belong together."
            )
        width, height = check_image_size(image_size, autoencoder.factor, backbone.patch_size)
        self.image_size = (width, height)
        self.source, self.target = source, target
        self.conditioning, self.image_encoder = conditioning, image_encoder
        self.scale, identity = float(autoencoder.scale), autoencoder.identity
        if not 0 < self.scale < math.inf:
            raise ValueError(
                f"LatentTranslator: the scale of the latents is {self.scale}; take an autoencoder whose training has "
                "measured it."
            )
        self.latent_channels, self.learn_sigma = autoencoder.latent_channels, learn_sigma
        channels, latent_size = autoencoder.latent_channels, (width // autoencoder.factor, height // autoencoder.factor)
        for_backbone = {
            "input_size": latent_size,
            "latent_channels": channels,
            "source_channels": channels if conditioning == "spatial" else 0,
            "out_channels": channels * (2 if learn_sigma else 1),
            "num_conditions": 1 if image_encoder == "none" else 2,
        }
        for_embedder = {
            "input_size": latent_size,
            "in_channels": channels,
            "embed_dim": backbone.hidden_size,
            "autoencoder": identity,
        }
        _require("backbone", backbone, for_backbone)
        _require("embedder", embedder, for_embedder)
        self.schedule = linear_schedule(num_train_steps, beta_start, beta_end)
        self.backbone = backbone
        self.embedder = embedder.eval().requires_grad_(False)
        self.image_cnn = ImageCNN(out_channels=backbone.hidden_size) if image_encoder == "small_cnn" else None
        needs_projection = image_encoder == "biomedclip" and backbone.hidden_size != VISION_CHANNELS
        self.projection = nn.Linear(VISION_CHANNELS, backbone.hidden_size) if needs_projection else None
        self.settings = RecordedSettings(
            {
                "source": source,
                "target": target,
                "width": width,
                "height": height,
                "fit": fit,
                "hu_min": float(hu_min),
                "hu_max": float(hu_max),
                "mr_lower": float(mr_lower),
                "autoencoder": identity,
                "latent_scale": self.scale,
                "conditioning": conditioning,
                "image_encoder": image_encoder if vision is None else vision.identity,
                "num_train_steps": num_train_steps,
                "beta_start": float(beta_start),
                "beta_end": float(beta_end),
                "learn_sigma": int(learn_sigma),
                **backbone.settings(),
            }
        )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return (self.latent_channels, *self.backbone.input_size)

    def train(self, mode: bool = True) -> "LatentTranslator":
        """Training mode for all but the embedder."""
        super().train(mode)
        self.embedder.eval()
        return self

    def conditions(self, source: Tensor, image: Tensor | None = None, vector: Tensor | None = None) -> list[Tensor]:
        """Vectors ``(B, D)`` that modulate the backbone; they do not depend on x_t, so sampling computes them once.

        Args:
            source: latent of the source, ``(B, C, h, w)``.
            image: source slices ``(B, 1, X, Y)`` in [-1, 1]; needed for ``"small_cnn"`` only.
            vector: ``(B, 512)`` of the pretrained encoder; needed for ``"biomedclip"`` only.
        """
        with torch.no_grad():
            vectors = [self.embedder.vector(source)]
        if self.image_cnn is not None:
            if image is None:
                raise ValueError("LatentTranslator: image_encoder='small_cnn' needs the source's slices as `image`.")
            vectors.append(self.image_cnn(image))
        elif self.image_encoder == "biomedclip":
            if vector is None:
                raise ValueError("LatentTranslator: image_encoder='biomedclip' needs its vectors as `vector`.")
            vectors.append(vector if self.projection is None else self.projection(vector))
        return vectors

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        source: Tensor,
        image: Tensor | None = None,
        vector: Tensor | None = None,
        conditions: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Noise and variance, ``(B, 2C or C, h, w)``; ``conditions`` in place of ``image`` and ``vector``."""
        if conditions is None:
            conditions = self.conditions(source, image, vector)
        return self.backbone(x_t, t, conditions, source if self.conditioning == "spatial" else None).float()

    def check_ready(self) -> None:
        """Nothing is missing once the network is built."""

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        lines = settings_differences("LatentTranslator", self.settings, state_dict, prefix)
        if has_settings(state_dict, prefix):
            embedder = settings_differences("VisionEmbedder", self.embedder.settings, state_dict, f"{prefix}embedder.")
            lines += [f"embedder.{line}" for line in embedder]
        if not lines:
            for name in _PARTS:
                part = getattr(self, name)
                lines += [] if part is None else weight_differences(part, state_dict, prefix, name)
        refuse("LatentTranslator", lines)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _require(name: str, part: nn.Module, needed: Mapping[str, Any]) -> None:
    """Raise one ``ValueError`` naming all attributes of ``part`` that are not as ``needed``."""
    lines = [
        f"{key}: needed {value}, the {name} has {getattr(part, key)}"
        for key, value in needed.items()
        if getattr(part, key) != value
    ]
    if lines:
        raise ValueError(f"LatentTranslator: the {name} was built for something else:\n  " + "\n  ".join(lines))
