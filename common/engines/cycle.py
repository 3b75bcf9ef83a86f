"""Training step of CycleGAN (Zhu et al. 2017), with labels or as a Wasserstein GAN."""

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from monai.engines import AdversarialTrainer
from torch import Tensor, nn

from ..inferers.diffusion import unwrap
from ..losses.gradient_penalty import gradient_penalty
from ..parallel import process_count, process_rank
from .adversarial import AdversarialIteration, Losses
from .image_pool import ImagePool
from .randomness import StepRandomness

_POOL, _PENALTY = 1, 2  # purposes of random numbers


class Translators(Protocol):
    """A pair of generators; ``GeneratorPair`` is one."""

    def translate(self, source: Tensor, target: Tensor) -> dict[str, Tensor]: ...


class Critics(Protocol):
    """A pair of discriminators; ``DiscriminatorPair`` is one."""

    of_source: nn.Module
    of_target: nn.Module


class CycleIteration(AdversarialIteration):
    """Translators in both directions that invert each other, and a discriminator in each domain.

    Discriminators: for each domain ``discriminator_weight`` times the loss on its images and on fakes out of its pool,
    plus ``penalty_weight`` times the gradient penalty between the two. Generators: both adversarial losses, plus
    ``cycle_weight`` times the distances after both translations and ``identity_weight`` times those of each domain's
    images to what the translator into this domain makes of them (Zhu et al., eqs. 1-3 and section 5.2). Distances are
    the trainer's ``recon_loss_function``; its ``g_network`` is a ``GeneratorPair``, its ``d_network`` a
    ``DiscriminatorPair``.

    Args:
        randomness: source of the random numbers; see :class:`StepRandomness`.
        source_pool, target_pool: earlier fakes of each domain; they belong into the training checkpoint.
        cycle_weight: of the cycle losses.
        identity_weight: of the identity losses.
        discriminator_weight: 0.5 with labels real and fake, 1 for a Wasserstein GAN (Gulrajani et al. 2017, eq. 3).
        penalty_weight: of the gradient penalty; 0: none.
        critic_steps: iterations per step of the generators.
        amp: run the networks in bf16 where the device has it.
    """

    def __init__(
        self,
        randomness: StepRandomness,
        source_pool: ImagePool,
        target_pool: ImagePool,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        discriminator_weight: float = 0.5,
        penalty_weight: float = 0.0,
        critic_steps: int = 1,
        amp: bool = False,
    ) -> None:
        super().__init__(critic_steps, amp)
        self.randomness = randomness
        self.source_pool, self.target_pool = source_pool, target_pool
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.discriminator_weight, self.penalty_weight = discriminator_weight, penalty_weight

    def generate(self, network: nn.Module, batch: Mapping[str, Tensor], *, train: bool) -> Mapping[str, Tensor]:
        """The images of ``GeneratorPair.forward``, or, without ``train``, the two translations only."""
        if train:
            return network(batch["source"], batch["target"])
        return cast(Translators, unwrap(network)).translate(batch["source"], batch["target"])

    def discriminator_loss(self, engine: AdversarialTrainer, images: Mapping[str, Tensor]) -> tuple[Tensor, Losses]:
        """Sum over the domains."""
        state = engine.state
        generator = self.randomness.shared("cpu", _POOL)
        real = images["source"], images["target"]
        fake = (
            self.source_pool.query(images["fake_source"], generator),
            self.target_pool.query(images["fake_target"], generator),
        )
        logits = zip(self.run(state.d_network, *real), self.run(state.d_network, *fake), strict=True)
        loss = self.discriminator_weight * sum(state.d_loss_function(*pair) for pair in logits)
        parts = {"discriminator_loss": loss}
        if self.penalty_weight:
            parts["gradient_penalty"] = penalty = self._penalty(unwrap(state.d_network), real, fake)
            loss = loss + self.penalty_weight * penalty
        return loss, parts

    def _penalty(self, critics: nn.Module, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> Tensor:
        """Sum over the domains; every process draws for all of them and keeps its rows."""
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in critics.modules()):
            raise ValueError(
                "CycleIteration: a discriminator has batch norm, which mixes the samples whose slopes the gradient "
                "penalty looks at one by one; build it with norm='instance'."
            )
        pair = cast(Critics, critics)
        size, count, rank = len(real[0]), process_count(), process_rank()
        generator = self.randomness.shared(real[0].device, _PENALTY)
        u = torch.rand(size * count, 2, generator=generator, device=real[0].device)[rank::count]  # (B, 2)
        return gradient_penalty(pair.of_source, real[0], fake[0], u[:, 0]) + gradient_penalty(
            pair.of_target, real[1], fake[1], u[:, 1]
        )

    def generator_loss(
        self, engine: AdversarialTrainer, judge: nn.Module, images: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses]:
        """Adversarial + cycle + identity, each the sum over the domains."""
        state = engine.state
        logits = self.run(judge, images["fake_source"], images["fake_target"])
        adversarial = sum(state.g_loss_function(one) for one in logits)

        def distance(kind: str) -> Tensor:
            pairs = ((images[f"{kind}_{domain}"], images[domain]) for domain in ("source", "target"))
            return sum(state.recon_loss_function(*pair) for pair in pairs)

        parts = {"generator_loss": adversarial, "cycle_loss": distance("cycle"), "identity_loss": distance("identity")}
        total = adversarial + self.cycle_weight * parts["cycle_loss"] + self.identity_weight * parts["identity_loss"]
        return total, parts
