"""Training step of Pix2pix (Isola et al. 2017)."""

from collections.abc import Mapping

import torch
from monai.engines import AdversarialTrainer
from torch import Tensor, nn

from .adversarial import AdversarialIteration, Losses


class Pix2PixIteration(AdversarialIteration):
    """A generator that is told by its distance to the target and by a discriminator that sees source and image.

    Discriminator: half of the loss on (source, target) as real and (source, fake) as fake; generator: adversarial loss
    plus ``reconstruction_weight`` times the trainer's ``recon_loss_function`` (Isola et al., eqs. 1, 3, 4).

    Args:
        reconstruction_weight: lambda of eq. 4.
        amp: run the networks in bf16 where the device has it.
    """

    def __init__(self, reconstruction_weight: float = 100.0, amp: bool = False) -> None:
        super().__init__(amp=amp)
        self.reconstruction_weight = reconstruction_weight

    def generate(self, network: nn.Module, batch: Mapping[str, Tensor], *, train: bool) -> Mapping[str, Tensor]:
        """``fake``, the translation of the source."""
        return {"fake": network(batch["source"])}

    def discriminator_loss(self, engine: AdversarialTrainer, images: Mapping[str, Tensor]) -> tuple[Tensor, Losses]:
        """0.5 (real + fake)."""
        discriminator, source = engine.state.d_network, images["source"]
        real = self.run(discriminator, torch.cat([source, images["target"]], dim=1))
        fake = self.run(discriminator, torch.cat([source, images["fake"].detach()], dim=1))
        loss = 0.5 * engine.state.d_loss_function(real, fake)
        return loss, {"discriminator_loss": loss}

    def generator_loss(
        self, engine: AdversarialTrainer, judge: nn.Module, images: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses]:
        """Adversarial + lambda reconstruction."""
        logits = self.run(judge, torch.cat([images["source"], images["fake"]], dim=1))
        adversarial = engine.state.g_loss_function(logits)
        reconstruction = engine.state.recon_loss_function(images["fake"], images["target"])
        parts = {"generator_loss": adversarial, "reconstruction_loss": reconstruction}
        return adversarial + self.reconstruction_weight * reconstruction, parts
