"""Patch discriminator: sizes, what a logit sees, and that it is a logit."""

import pytest
import torch
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import nn

from common.networks.nets.patch_discriminator import Norm, patch_discriminator


@pytest.mark.parametrize(("in_channels", "norm", "count"), [(2, "batch", 2_764_609), (1, "instance", 2_761_793)])
def test_parameters_are_as_many_as_specified(in_channels: int, norm: Norm, count: int) -> None:
    with torch.device("meta"):
        network = patch_discriminator(in_channels, norm=norm)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(("size", "logits"), [(256, 30), (224, 26), (64, 6)])
def test_logits_form_a_map(size: int, logits: int) -> None:
    with torch.device("meta"):
        assert patch_discriminator(2)(torch.empty(3, 2, size, size)).shape == (3, 1, logits, logits)


def test_the_map_is_the_last_of_monai_s_features() -> None:
    torch.manual_seed(0)
    network = patch_discriminator(2, channels=8)
    torch.manual_seed(0)
    reference = PatchDiscriminator(2, 8, 2)
    image = torch.randn(2, 2, 64, 64)
    logits = network(image)
    assert torch.equal(logits, reference(image)[-1])
    assert network.state_dict().keys() == reference.state_dict().keys()


def test_a_logit_sees_70_by_70_pixels() -> None:
    torch.manual_seed(0)
    network = patch_discriminator(1, channels=4).eval()
    image = torch.randn(1, 1, 128, 128, requires_grad=True)
    network(image)[0, 0, 7, 7].backward()
    rows, columns = image.grad[0, 0].any(1).nonzero(), image.grad[0, 0].any(0).nonzero()
    assert rows[-1] - rows[0] + 1 == 70
    assert columns[-1] - columns[0] + 1 == 70


def test_logits_have_no_activation() -> None:
    """Adding to the last bias shifts them all, also below zero, where any squashing would show."""
    torch.manual_seed(0)
    network, image = patch_discriminator(1, channels=4), torch.randn(2, 1, 64, 64)
    logits = network(image)
    with torch.no_grad():
        network[-1].conv.bias -= 5
    torch.testing.assert_close(network(image), logits - 5)


def test_instance_norm_separates_the_images_of_a_batch_and_batch_norm_does_not() -> None:
    torch.manual_seed(0)
    image = torch.randn(3, 1, 64, 64)
    image[0] *= 4
    change = {}
    for norm in ("batch", "instance"):
        network = patch_discriminator(1, channels=8, norm=norm)
        change[norm] = (network(image)[1:2] - network(image[1:2])).abs().max()
    assert change["instance"] < 1e-5
    assert change["batch"] > 1e-2


def test_initial_kernels_deviate_by_002() -> None:
    torch.manual_seed(0)
    for module in patch_discriminator(1, channels=16).modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15)


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="norm='layer' is unknown; choose one of batch, instance"):
        patch_discriminator(1, norm="layer")  # type: ignore[arg-type]
