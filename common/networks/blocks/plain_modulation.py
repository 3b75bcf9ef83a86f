"""Spatially adaptive normalization whose modulation is a function of the label map nearby, as it was published."""

from monai.networks.blocks.spade_norm import SPADE
from torch import nn


def plain_modulation(network: nn.Module) -> None:
    """Take out what normalizes gamma and beta in every :class:`SPADE` of ``network``, in place.

    MONAI computes them by convolution blocks that end in an instance normalization. With it gamma and beta have mean 0
    and variance 1 over every image: what a label means for a pixel would depend on the labels of the whole slice, and
    a slice of a single label would hardly be modulated at all. It has no weights, so state dicts stay as they are.

    Source: Park et al. 2019, "Semantic image synthesis with spatially-adaptive normalization", eq. 1 and figure 3.
    """
    for module in network.modules():
        if isinstance(module, SPADE):
            for convolution in (module.mlp_gamma, module.mlp_beta):
                convolution.adn = nn.Identity()
