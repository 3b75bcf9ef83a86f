"""The pairs of networks of a CycleGAN, each pair as one module: one forward pass, one optimizer, one DDP wrapper."""

from torch import Tensor, nn


class GeneratorPair(nn.Module):
    """Translators in both directions (Zhu et al. 2017, section 3).

    Args:
        to_target: source ``(B, 1, X, Y)`` -> target ``(B, 1, X, Y)``.
        to_source: the other direction.
    """

    def __init__(self, to_target: nn.Module, to_source: nn.Module) -> None:
        super().__init__()
        self.to_target, self.to_source = to_target, to_source

    def translate(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Both translations: ``fake_target`` of the source, ``fake_source`` of the target."""
        return {"fake_target": self.to_target(source), "fake_source": self.to_source(target)}

    def forward(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """All images of a training step, each ``(B, 1, X, Y)``.

        Besides the two translations ``cycle_source`` and ``cycle_target``, which have gone there and back, and
        ``identity_source`` and ``identity_target``: what each translator makes of its own target domain.
        """
        fakes = self.translate(source, target)
        return {
            **fakes,
            "cycle_source": self.to_source(fakes["fake_target"]),
            "cycle_target": self.to_target(fakes["fake_source"]),
            "identity_source": self.to_source(source),
            "identity_target": self.to_target(target),
        }


class DiscriminatorPair(nn.Module):
    """One discriminator for each domain.

    Args:
        of_source: images of the source domain ``(B, 1, X, Y)`` -> logits.
        of_target: images of the target domain -> logits.
    """

    def __init__(self, of_source: nn.Module, of_target: nn.Module) -> None:
        super().__init__()
        self.of_source, self.of_target = of_source, of_target

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of images of each domain."""
        return self.of_source(source), self.of_target(target)
