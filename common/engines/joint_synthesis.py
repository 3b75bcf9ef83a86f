"""Training step of autoencoder, discriminator and denoiser together, the single loss of FQCDM's experiments."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.engines import AdversarialTrainer, PrepareBatch
from torch import Tensor, nn

from ..losses.adaptive_weight import AdaptiveWeight
from .adversarial import Losses
from .guided_batch import GuidedDraws
from .quantization import Distance, EdgeInput, QuantizationIteration, QuantizationPrepareBatch


class JointPrepareBatch(PrepareBatch):
    """Images in [0, 1], their edges, and steps, noise and guides for the denoiser.

    A batch holds ``image`` in grey levels 0..255, ``label`` (class indices) and ``edges``, each (B, 1, X, Y).

    Args:
        draws: steps, noise and guides.
    """

    def __init__(self, draws: GuidedDraws) -> None:
        self.draws = draws
        self.images = QuantizationPrepareBatch()

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple, dict[str, Tensor]]:
        image, edges = self.images(batchdata, device, non_blocking, **kwargs)
        label = batchdata["label"].to(device=device, non_blocking=non_blocking, **kwargs).float()
        return image, edges, (), self.draws(label)


class JointIteration(QuantizationIteration):
    """The step of :class:`QuantizationIteration` with the denoiser's loss added.

    The trainer's ``g_network`` is a ``JointSynthesizer``, which also decides whether the denoiser's loss reaches the
    encoder.

    Args:
        noise_loss: of predicted noise and ``{"noise", "t"}``.
        weight, disc_start, disc_warmup, edge_input, edges, perceptual, perceptual_weight, amp: see
            :class:`QuantizationIteration`.
    """

    def __init__(
        self,
        noise_loss: Callable[[Tensor, Mapping[str, Tensor]], Tensor],
        weight: AdaptiveWeight,
        disc_start: int | None,
        disc_warmup: int = 0,
        edge_input: EdgeInput = "real",
        edges: Callable[[Tensor], Tensor] | None = None,
        perceptual: Distance | None = None,
        perceptual_weight: float = 1.0,
        amp: bool = False,
    ) -> None:
        super().__init__(weight, disc_start, disc_warmup, edge_input, edges, perceptual, perceptual_weight, amp)
        self.noise_loss = noise_loss

    def generate(self, network: nn.Module, batch: Mapping[str, Tensor], *, train: bool) -> Mapping[str, Tensor]:
        """``image``, ``codebook_loss`` and ``noise_prediction``."""
        answer = network(batch["source"], batch["guide"], batch["noise"], batch["t"])
        return {name: answer[name] for name in ("image", "codebook_loss", "noise_prediction")}

    def generator_loss(
        self, engine: AdversarialTrainer, judge: nn.Module, images: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses]:
        """Reconstruction + codebook + lambda adversarial + noise."""
        total, parts = super().generator_loss(engine, judge, images)
        parts["noise_loss"] = self.noise_loss(images["noise_prediction"], images)
        return total + parts["noise_loss"], parts
