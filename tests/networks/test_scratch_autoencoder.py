"""The autoencoder that is trained here: sizes, posterior, precision, and what its checkpoint tells."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from common.networks.nets.scratch_autoencoder import ScratchAutoencoder

WINDOW = (-1024.0, 2000.0)
SMALL = {"channels": (4, 8), "norm_groups": 2, "mid_attention": True}
LARGE = {"channels": (64, 128, 256, 256), "num_res_blocks": 2, "mid_attention": True}


def autoencoder(**changes: Any) -> ScratchAutoencoder:
    torch.manual_seed(0)
    return ScratchAutoencoder(**{"ct_window": WINDOW, **SMALL, **changes})


def images(batch: int = 2, size: tuple[int, int] = (8, 12)) -> Tensor:
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def stored(network: torch.nn.Module) -> dict[str, Tensor]:
    """State dict as it comes out of a file of plain tensors."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize(
    ("settings", "count", "size", "latent"),
    [({}, 251_569, (64, 64), (4, 16, 16)), (LARGE, 18_201_857, (224, 224), (4, 28, 28))],
    ids=["cpu", "gpu"],
)
def test_weights_and_latents_are_as_many_as_planned(
    settings: dict[str, Any], count: int, size: tuple[int, int], latent: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        network = ScratchAutoencoder(ct_window=WINDOW, **settings)
        assert sum(parameter.numel() for parameter in network.parameters()) == count
        mean, logvar = network.encode_moments(torch.empty(2, 1, *size))
        assert mean.shape == logvar.shape == (2, *latent)
        assert network.decode(mean).shape == (2, 1, *size)
    assert network.factor == size[0] // latent[1]
    assert network.latent_channels == latent[0]


def test_the_second_moment_is_the_log_variance() -> None:
    """MONAI's ``encode`` gives the standard deviation; its last layer before that, the log variance."""
    network = autoencoder()
    mean, logvar = network.encode_moments(images())
    features = network.network.encoder(images())
    torch.testing.assert_close(mean, network.network.quant_conv_mu(features))
    torch.testing.assert_close(logvar, network.network.quant_conv_log_sigma(features), atol=1e-6, rtol=1e-5)


def test_training_decodes_samples_of_the_posterior_and_evaluation_its_mean() -> None:
    network = autoencoder()
    network._image = lambda z: z  # type: ignore[method-assign]
    one = images(1)
    mean, logvar = (moment[0].detach() for moment in network.encode_moments(one))
    torch.manual_seed(0)
    drawn = network.train()(one.expand(4000, -1, -1, -1))["image"].detach()
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.08, rtol=0)
    torch.testing.assert_close(drawn.std(0), (0.5 * logvar).exp(), atol=0.06, rtol=0)
    torch.testing.assert_close(network.eval()(one)["image"][0], mean)


def test_reconstruction_is_clipped_for_use_but_not_for_training() -> None:
    """Outside [-1, 1] a clipped image has no gradient."""
    network = autoencoder().eval()
    with torch.no_grad():
        network.network.decoder.blocks[-1].conv.bias.fill_(50.0)
    output = network(images())
    assert output["image"].min() > 1
    output["image"].mean().backward()
    gradient = network.network.decoder.blocks[-1].conv.bias.grad
    torch.testing.assert_close(gradient, torch.ones(1))
    decoded = network.decode(output["mean"])
    assert torch.equal(decoded, torch.ones_like(decoded))
    assert decoded.dtype == torch.float32


def test_every_weight_gets_a_gradient() -> None:
    """Otherwise distributed training would wait for it forever."""
    network = autoencoder().train()
    output = network(images())
    loss = output["image"].square().mean() + output["mean"].square().mean() + output["logvar"].exp().mean()
    loss.backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_autocast_changes_nothing() -> None:
    network = autoencoder().eval()
    expected = network(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(images().bfloat16().float())
        mean, logvar = network.encode_moments(images())
        image = network.decode(mean)
    assert {value.dtype for value in output.values()} == {torch.float32}
    assert torch.equal(mean, expected["mean"])
    assert torch.equal(logvar, expected["logvar"])
    assert torch.equal(image, expected["image"].clamp(-1, 1))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 8, 8), (2, 1, 8, 9), (2, 1, 8, 8, 8)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needed are \(B, 1, X, Y\) with X and Y multiples of 2\. Pad or resize"):
        autoencoder().encode_moments(torch.zeros(shape))


def test_latents_of_another_autoencoder_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needed are \(B, 4, x, y\)\. They come from another autoencoder"):
        autoencoder().decode(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("window", [(0, 0), (2000, -1024), (float("nan"), 1)])
def test_a_window_must_rise(window: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be two rising HU values"):
        autoencoder(ct_window=window)


# The scale


def test_scale_is_the_reciprocal_of_the_deviation_and_survives_a_file() -> None:
    network = autoencoder()
    assert network.scale != network.scale  # NaN: not measured yet
    network.set_scale(4.0)
    assert network.scale == 0.25
    assert ScratchAutoencoder.from_state_dict(stored(network)).scale == 0.25


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deviation_that_gives_no_scale_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        autoencoder().set_scale(std)


# The checkpoint


def test_a_state_dict_alone_rebuilds_the_network() -> None:
    changes = {
        "channels": (4, 8, 8),
        "num_res_blocks": 2,
        "latent_channels": 3,
        "norm_groups": 4,
        "ct_window": (-9, 9.5),
    }
    network = autoencoder(**changes).eval()
    rebuilt = ScratchAutoencoder.from_state_dict(stored(network)).eval()
    assert rebuilt.ct_window == (-9.0, 9.5)
    assert (rebuilt.factor, rebuilt.latent_channels) == (4, 3)
    assert torch.equal(rebuilt(images())["image"], network(images())["image"])
    assert rebuilt.state_dict().keys() == network.state_dict().keys()
    assert rebuilt.identity == network.identity


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ct_window": (-1024, 3000)}, "ct_high: checkpoint 2000.0, this network 3000.0"),
        ({"channels": (4, 4)}, "channels: checkpoint 4,8, this network 4,4"),
        ({"norm_groups": 4}, "norm_groups: checkpoint 2, this network 4"),
        ({"mid_attention": False}, "mid_attention: checkpoint 1, this network 0"),
    ],
)
def test_weights_of_another_network_are_refused_before_loading(changes: dict[str, Any], line: str) -> None:
    network = autoencoder(**changes)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match="made for another network") as error:
        network.load_state_dict(autoencoder().state_dict())
    assert line in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items() if "scale" not in name)


def without(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: value for name, value in state.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (without("settings."), "ct_low: not recorded"),
        (without("settings.ct_low"), "ct_low: not recorded"),
        (without("latent_scale"), "latent_scale: not in the checkpoint"),
        (without("network.decoder.blocks.0"), r"network\.decoder\.blocks\.0\.conv\.weight: checkpoint absent"),
    ],
)
def test_incomplete_checkpoints_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], line: str
) -> None:
    with pytest.raises(ValueError, match=line):
        ScratchAutoencoder.from_state_dict(change(stored(autoencoder())))


def test_it_loads_as_a_part_of_another_module() -> None:
    inside = torch.nn.ModuleDict({"autoencoder": autoencoder(channels=(4, 4))})
    other = torch.nn.ModuleDict({"autoencoder": ScratchAutoencoder(ct_window=WINDOW, **SMALL | {"channels": (4, 4)})})
    other.load_state_dict(stored(inside))
    assert other["autoencoder"].identity == inside["autoencoder"].identity


def test_identity_tells_weights_apart_and_nothing_else() -> None:
    network = autoencoder()
    identity = network.identity
    assert identity.startswith("scratch:")
    assert len(identity) == len("scratch:") + 12
    network.set_scale(2.0)
    assert network.identity == identity
    with torch.no_grad():
        next(network.parameters()).mul_(1.001)
    assert network.identity != identity
