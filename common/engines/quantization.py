"""Training step of a quantized autoencoder against a discriminator (FQCDM, sections 3.2 and 3.3)."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, cast, get_args

import torch
from monai.engines import AdversarialTrainer, PrepareBatch
from torch import Tensor, nn

from ..inferers.diffusion import unwrap
from ..losses.adaptive_weight import AdaptiveWeight
from .adversarial import AdversarialIteration, Losses

Distance = Callable[[Tensor, Tensor], Tensor]
EdgeInput = Literal["real", "self", "zeros"]


class Quantized(Protocol):
    """What the step asks of an autoencoder besides its call; ``QuantizedAutoencoder`` has it."""

    last_layer: nn.Parameter


class QuantizationPrepareBatch(PrepareBatch):
    """Images (B, 1, X, Y) from grey levels 0..255 to [0, 1], and beside them their edges (B, 1, X, Y) in {0, 1}."""

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        image, edges = (
            batchdata[name].to(device=device, non_blocking=non_blocking, **kwargs).float()
            for name in ("image", "edges")
        )
        return image / 255, edges


class QuantizationIteration(AdversarialIteration):
    """An autoencoder with a codebook that is told by its distance to the image and, later, by a discriminator.

    Autoencoder: ``L_rec + L_codebook + lambda L_GAN`` with ``L_rec = distance + perceptual_weight LPIPS`` (FQCDM,
    eq. 7, with the trainer's ``recon_loss_function`` as distance) and lambda from ``weight``. Discriminator: half of
    the loss on images as real and reconstructions as fake, both beside the edges of the image (eqs. 12-15). Until
    ``disc_start`` iterations are done lambda is 0; the discriminator learns from ``disc_warmup`` iterations before, so
    that the first gradient does not come from a random one.

    The trainer's ``g_network`` is a ``QuantizedAutoencoder``, its ``d_network`` is called with images and edges.

    Args:
        weight: lambda.
        disc_start: iterations without adversarial term; None: there is none at all.
        disc_warmup: iterations before ``disc_start`` from which on the discriminator learns.
        edge_input: which edges the discriminator sees beside a reconstruction: those of the "real" image, which is also
            what stands beside that image; its own ("self", by ``edges``); or none at all beside either ("zeros").
        edges: edges of images (B, 1, X, Y) in [0, 1]; for "self" only.
        perceptual: distance between images in [-1, 1]; None: none.
        perceptual_weight: its weight.
        amp: run the networks in bf16 where the device has it.
    """

    def __init__(
        self,
        weight: AdaptiveWeight,
        disc_start: int | None,
        disc_warmup: int = 0,
        edge_input: EdgeInput = "real",
        edges: Callable[[Tensor], Tensor] | None = None,
        perceptual: Distance | None = None,
        perceptual_weight: float = 1.0,
        amp: bool = False,
    ) -> None:
        super().__init__(amp=amp)
        if disc_start is not None and (disc_start < 0 or disc_warmup < 0):
            raise ValueError(
                f"{type(self).__name__}: disc_start={disc_start} and disc_warmup={disc_warmup} are numbers of "
                "iterations, not negative; disc_start null trains without a discriminator."
            )
        if edge_input not in get_args(EdgeInput) or (edge_input == "self" and edges is None):
            raise ValueError(
                f"{type(self).__name__}: edge_input={edge_input!r}; choose one of {', '.join(get_args(EdgeInput))}, "
                "and give `edges` for 'self'."
            )
        self.edge_input: EdgeInput = edge_input
        self.edges = edges
        self.weight = weight
        self.disc_start, self.disc_warmup = disc_start, disc_warmup
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight

    def trains_discriminator(self, iteration: int) -> bool:
        """From ``disc_warmup`` iterations before the adversarial term sets in."""
        return self.disc_start is not None and iteration > self.disc_start - self.disc_warmup

    def generate(self, network: nn.Module, batch: Mapping[str, Tensor], *, train: bool) -> Mapping[str, Tensor]:
        """``image``, the reconstruction, and ``codebook_loss``."""
        answer = network(batch["source"])
        return {name: answer[name] for name in ("image", "codebook_loss")}

    def discriminator_loss(self, engine: AdversarialTrainer, images: Mapping[str, Tensor]) -> tuple[Tensor, Losses]:
        """0.5 (real + fake)."""
        discriminator, fake_image = engine.state.d_network, images["image"].detach()
        edges = images["target"] if self.edge_input != "zeros" else torch.zeros_like(images["target"])
        real = self.run(discriminator, images["source"], edges).float()
        fake = self.run(discriminator, fake_image, self._edges_beside(fake_image, images["target"])).float()
        loss = 0.5 * engine.state.d_loss_function(real, fake)
        return loss, {"discriminator_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}

    def generator_loss(
        self, engine: AdversarialTrainer, judge: nn.Module, images: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses]:
        """Reconstruction + codebook + lambda adversarial."""
        image, fake = images["source"], images["image"]
        parts = {"reconstruction_loss": engine.state.recon_loss_function(fake, image)}
        reconstruction = parts["reconstruction_loss"]
        if self.perceptual is not None:
            parts["perceptual_loss"] = self.perceptual(2 * fake - 1, 2 * image - 1)
            reconstruction = reconstruction + self.perceptual_weight * parts["perceptual_loss"]
        parts["codebook_loss"] = images["codebook_loss"]
        total = reconstruction + parts["codebook_loss"]
        if self.disc_start is not None and engine.state.iteration > self.disc_start:
            adversarial = engine.state.g_loss_function(
                self.run(judge, fake, self._edges_beside(fake, images["target"]))
            )
            last_layer = cast(Quantized, unwrap(engine.state.g_network)).last_layer
            weight = self.weight(reconstruction, adversarial, last_layer)
            parts |= {"adversarial_loss": adversarial, "adversarial_weight": weight}
            total = total + weight * adversarial
        return total, parts

    def _edges_beside(self, fake: Tensor, real_edges: Tensor) -> Tensor:
        """The edges that the discriminator sees beside a reconstruction; no gradient passes through them."""
        if self.edge_input == "self" and self.edges is not None:
            return self.edges(fake.detach().clamp(0, 1)).to(fake)
        return real_edges if self.edge_input == "real" else torch.zeros_like(real_edges)
