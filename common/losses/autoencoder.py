"""Loss of a variational autoencoder of images."""

from collections.abc import Mapping

from torch import Tensor, nn


class AutoencoderLoss(nn.Module):
    """Mean absolute error of the reconstruction plus a little of the latent's divergence, a float32 scalar.

    Called with the prediction ``{"image": (B, C, X, Y), "mean": (B, c, x, y), "logvar": (B, c, x, y)}`` and the target
    image. The divergence ``KL(N(mean, exp(logvar)) || N(0, 1))``, in nats, is summed over the latent of an image and
    averaged over the batch, while the error is averaged over pixels.

    Args:
        kl_weight: factor of the divergence; so small that it only keeps the latents from drifting away.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", appendix B; weight of Rombach et al. 2022,
        "High-resolution image synthesis with latent diffusion models".
    """

    def __init__(self, kl_weight: float = 1e-6) -> None:
        super().__init__()
        if not kl_weight >= 0:
            raise ValueError(f"AutoencoderLoss: kl_weight={kl_weight} must not be negative.")
        self.kl_weight = kl_weight

    def forward(self, pred: Mapping[str, Tensor], target: Tensor) -> Tensor:
        terms = self.terms(pred, target)
        return terms["reconstruction"] + self.kl_weight * terms["kl"]

    def terms(self, pred: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """The two parts, before the weight: ``reconstruction`` and ``kl``."""
        if pred["image"].shape != target.shape:
            raise ValueError(
                f"AutoencoderLoss: reconstruction {tuple(pred['image'].shape)} and image {tuple(target.shape)} differ "
                "in shape; broadcasting them would compare the wrong pixels."
            )
        mean, log_variance = pred["mean"].float(), pred["logvar"].float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1)  # (B,)
        return {"reconstruction": (pred["image"].float() - target.float()).abs().mean(), "kl": kl.mean()}
