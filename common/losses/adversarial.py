"""Objectives of the two players of a generative adversarial network, from a discriminator's logits.

Each has ``generator(fake_logits)`` and ``discriminator(real_logits, fake_logits)``: logits of any shape, such as a
patch map ``(B, 1, h, w)``, to a float32 scalar, computed outside autocast. Detaching the fake images for the
discriminator, and weights such as the usual 0.5 on its two terms, are the trainer's business.
"""

import torch
from monai.losses import PatchAdversarialLoss
from torch import Tensor, nn


class _LabelGAN(nn.Module):
    """Both terms as distances of the logits to the labels real (1) and fake (0)."""

    def __init__(self, distance: PatchAdversarialLoss) -> None:
        super().__init__()
        self.distance = distance

    def generator(self, fake_logits: Tensor) -> Tensor:
        """How far the discriminator is from taking the fakes for real."""
        return self._to_label(fake_logits, real=True, for_discriminator=False)

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """How far the discriminator is from telling both kinds right; the sum of the two."""
        real = self._to_label(real_logits, real=True, for_discriminator=True)
        return real + self._to_label(fake_logits, real=False, for_discriminator=True)

    def _to_label(self, logits: Tensor, *, real: bool, for_discriminator: bool) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return self.distance(logits.float(), target_is_real=real, for_discriminator=for_discriminator)


class LeastSquaresGAN(_LabelGAN):
    """``mean((D(fake) - 1)^2)`` against ``mean((D(real) - 1)^2) + mean(D(fake)^2)``, on the logits as they are.

    Source: Mao et al. 2017, "Least squares generative adversarial networks", eq. 9 without the factors 1/2.
    """

    def __init__(self) -> None:
        # without the flag MONAI puts a LeakyReLU on the logits
        super().__init__(PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True))


class CrossEntropyGAN(_LabelGAN):
    """``-mean(log p(fake))`` against ``-mean(log p(real)) - mean(log(1 - p(fake)))`` with ``p = sigmoid(D)``.

    Source: Goodfellow et al. 2014, "Generative adversarial nets", with the non-saturating generator.
    """

    def __init__(self) -> None:
        super().__init__(PatchAdversarialLoss(criterion="bce"))


class WassersteinGAN(nn.Module):
    """``-mean(D(fake))`` against ``mean(D(fake)) - mean(D(real))``; D must be kept Lipschitz, see gradient_penalty.

    Source: Arjovsky et al. 2017, "Wasserstein GAN".
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """How low the critic scores the fakes."""
        return -fake_logits.float().mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """How much higher the critic scores fakes than real images."""
        return fake_logits.float().mean() - real_logits.float().mean()


class HingeGAN(nn.Module):
    """``-mean(D(fake))`` against ``mean(relu(1 - D(real))) + mean(relu(1 + D(fake)))``, on the logits as they are.

    Source: Lim & Ye 2017, "Geometric GAN", eqs. 7 and 8. MONAI's ``criterion="hinge"`` puts a tanh on the logits.
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """How low the discriminator scores the fakes."""
        return -fake_logits.float().mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """How far real images stay below 1 and fakes above -1; the sum of the two."""
        return (1 - real_logits.float()).relu().mean() + (1 + fake_logits.float()).relu().mean()
