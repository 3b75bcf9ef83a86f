"""Spatially adaptive normalization is the published one: gamma and beta are convolutions of the label map."""

import torch
from monai.networks.blocks.spade_norm import SPADE
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.blocks.plain_modulation import plain_modulation


def spade() -> SPADE:
    torch.manual_seed(0)
    return SPADE(label_nc=3, norm_nc=8, hidden_channels=5, norm="GROUP", norm_params={"num_groups": 2})


def one_hot(label: Tensor) -> Tensor:
    return F.one_hot(label, 3).movedim(-1, 1).float()


def test_the_modulation_is_two_convolutions_of_one() -> None:
    norm = spade()
    plain_modulation(nn.Sequential(norm))
    x, seg = torch.randn(2, 8, 9, 7), one_hot(torch.randint(3, (2, 9, 7)))
    weights = norm.state_dict()

    def convolved(name: str, values: Tensor) -> Tensor:
        return F.conv2d(values, weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"], padding=1)

    hidden = F.leaky_relu(convolved("mlp_shared", seg), 0.01)
    normalized = F.group_norm(x, 2, weights["param_free_norm.weight"], weights["param_free_norm.bias"], eps=1e-5)
    expected = normalized * (1 + convolved("mlp_gamma", hidden)) + convolved("mlp_beta", hidden)
    torch.testing.assert_close(norm(x, seg), expected)


def test_what_a_label_means_for_a_pixel_depends_on_the_labels_nearby_alone() -> None:
    """Two convolutions of 3 x 3 reach two pixels far."""
    norm = spade()
    plain_modulation(norm)
    x, label = torch.randn(1, 8, 16, 16), torch.randint(3, (1, 16, 16))
    other = label.clone()
    other[:, :4] = (label[:, :4] + 1) % 3
    change = (norm(x, one_hot(label)) - norm(x, one_hot(other))).abs().amax(dim=(0, 1, 3))
    assert (change[:6] > 0).all()
    assert (change[6:] == 0).all()


def test_weights_keep_their_names() -> None:
    norm = spade()
    before = norm.state_dict()
    plain_modulation(norm)
    assert norm.state_dict().keys() == before.keys()
