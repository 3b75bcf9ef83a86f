"""Loss of a network that fills in what was hidden of an image."""

from collections.abc import Mapping

from torch import Tensor, nn


class ContextLoss(nn.Module):
    """Mean squared error inside the mask plus ``outside`` times the one outside of it, a float32 scalar.

    Called with the prediction (B, 1, X, Y) and the target ``{"image", "mask"}`` of the same shape, mask 1 where the
    image was hidden. Both means are taken image by image: the loss of a batch is the mean of its images' losses.

    Args:
        outside: factor of the error where the network saw the image.
    Source: Pathak et al. 2016, "Context encoders: feature learning by inpainting", eq. 1, without the adversarial term;
        the features are wanted here, not the pictures.
    """

    def __init__(self, outside: float = 0.1) -> None:
        super().__init__()
        if not outside >= 0:
            raise ValueError(f"ContextLoss: outside={outside} must not be negative.")
        self.outside = outside

    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        image, mask = target["image"].float(), target["mask"].float()
        if not pred.shape == image.shape == mask.shape:
            raise ValueError(
                f"ContextLoss: prediction {tuple(pred.shape)}, image {tuple(image.shape)} and mask {tuple(mask.shape)} "
                "differ in shape; broadcasting them would compare the wrong pixels."
            )
        error, hidden = (pred.float() - image).square().flatten(1), mask.flatten(1)  # (B, X Y)
        inside = (hidden * error).sum(1) / hidden.sum(1).clamp(min=1)
        seen = ((1 - hidden) * error).sum(1) / (1 - hidden).sum(1).clamp(min=1)
        return (inside + self.outside * seen).mean()
