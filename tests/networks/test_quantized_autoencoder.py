"""The quantized autoencoder: sizes, what is quantized and when, and what its checkpoint tells."""

import copy
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import VQVAE
from torch import Tensor

from common.engines.optimization import adamw
from common.networks.blocks.feature_quantizer import CodebookMode
from common.networks.nets.quantized_autoencoder import QuantizedAutoencoder

sys.path.insert(0, str(Path(__file__).parent))
from quantized_training import tiny_autoencoder

each_mode = pytest.mark.parametrize("mode", ["gradient", "ema"])


def images(batch: int = 2, size: tuple[int, int] = (16, 24)) -> Tensor:
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(1))


def begun(mode: CodebookMode = "gradient", **changes: Any) -> QuantizedAutoencoder:
    """Its codes are latents, its images gray, so that clipping hides nothing; in evaluation mode."""
    network = tiny_autoencoder(mode, **changes)
    network(images(8))
    with torch.no_grad():
        network.decoder.blocks[-1].conv.bias.fill_(0.5)  # type: ignore[union-attr, operator]
    return network.eval()


def stored(network: torch.nn.Module) -> dict[str, Tensor]:
    """State dict as it comes out of a file of plain tensors."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


CPU = {"channels": (16, 32), "num_res_layers": 1, "num_embeddings": 64, "embedding_dim": 4}


@pytest.mark.parametrize(
    ("settings", "size", "latent"),
    [({}, (128, 128), (8, 32, 32)), (CPU, (64, 64), (4, 16, 16)), ({"channels": (8, 8, 8)}, (64, 32), (8, 8, 4))],
    ids=["default", "cpu", "three levels"],
)
def test_latents_are_as_large_as_planned(
    settings: dict[str, Any], size: tuple[int, int], latent: tuple[int, int, int]
) -> None:
    with torch.device("meta"):
        network = QuantizedAutoencoder(**settings)
        encoded = network.encode(torch.empty(2, 1, *size))
        assert encoded.shape == (2, *latent)
        assert network.decode(encoded, quantize=False).shape == (2, 1, *size)
    assert network.factor == size[0] // latent[1]
    assert network.latent_channels == latent[0]
    assert network.num_embeddings == len(network.quantizer.codebook)


def test_encoder_and_decoder_are_those_of_monai_s_vqvae() -> None:
    torch.manual_seed(0)
    reference = VQVAE(
        2,
        1,
        1,
        channels=(4, 8),
        num_res_layers=1,
        num_res_channels=(4, 8),
        downsample_parameters=((2, 4, 1, 1), (2, 4, 1, 1)),
        upsample_parameters=((2, 4, 1, 1, 0), (2, 4, 1, 1, 0)),
        embedding_dim=3,
        ddp_sync=False,
    )
    with torch.no_grad():
        reference.decoder.blocks[-1].conv.bias.fill_(0.5)
    network = tiny_autoencoder()
    network.encoder.load_state_dict(reference.encoder.state_dict())
    network.decoder.load_state_dict(reference.decoder.state_dict())
    latent = network.encode(images())
    assert torch.equal(latent, reference.encode(images()))
    assert torch.equal(network.decode(latent, quantize=False), reference.decode(latent))


def test_latents_are_continuous_and_images_are_made_of_codes() -> None:
    network = begun()
    latent = network.encode(images())
    codes = network.quantizer.embed(network.codes(images()))
    assert not torch.equal(latent, codes)
    assert torch.equal(network.decode(latent), network.decode(codes, quantize=False))
    assert not torch.equal(network.decode(latent), network.decode(latent, quantize=False))
    # what diffusion misses by less than half way to the next code does not matter
    assert torch.equal(network.decode(latent + 0.9 * (codes - latent)), network.decode(latent))


def test_all_ways_to_a_reconstruction_are_one() -> None:
    network = begun()
    output = network(images())
    expected = network.decode(network.encode(images()))
    assert torch.equal(network.reconstruct(images()), expected)
    assert torch.equal(output["image"].clamp(0, 1), expected)
    assert torch.equal(output["latent"], network.encode(images()))
    assert torch.equal(output["indices"], network.codes(images()))
    assert not network.reconstruct(images()).requires_grad


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = begun()
    torch.testing.assert_close(network.reconstruct(images(3))[1:2], network.reconstruct(images(3)[1:2]))


def test_reconstruction_is_clipped_for_use_but_not_for_training() -> None:
    """Outside [0, 1] a clipped image has no gradient."""
    network = begun()
    with torch.no_grad():
        network.decoder.blocks[-1].conv.bias.fill_(50.0)  # type: ignore[union-attr, operator]
    output = network(images())
    assert output["image"].min() > 1
    (gradient,) = torch.autograd.grad(output["image"].mean(), network.decoder.blocks[-1].conv.bias)  # type: ignore
    torch.testing.assert_close(gradient, torch.ones(1))
    assert torch.equal(network.reconstruct(images()), torch.ones_like(images()))


def test_the_last_layer_makes_the_image() -> None:
    """Twice its weights make twice the image, without the bias."""
    network = begun()
    bias = network.decoder.blocks[-1].conv.bias  # type: ignore[union-attr]
    image = network(images())["image"] - bias  # type: ignore[operator]
    with torch.no_grad():
        network.last_layer.mul_(2)
    torch.testing.assert_close(network(images())["image"] - bias, 2 * image)  # type: ignore[operator]
    assert any(parameter is network.last_layer for parameter in network.parameters())


@each_mode
def test_only_a_training_forward_moves_the_codebook(mode: CodebookMode) -> None:
    """Generated latents that are decoded in training mode must not become codes."""
    network = tiny_autoencoder(mode, restart_after=1).train()
    before = stored(network)
    latent = network.encode(images())
    network.decode(latent + 5)
    network.reconstruct(images())
    network.codes(images())
    assert equal(stored(network), before)
    network.eval()(images())
    assert equal(stored(network), before)
    network.train()(images())
    assert not equal(stored(network), before)


def test_decoding_with_monai_in_training_mode_moves_its_codebook() -> None:
    """Why its ``decode_stage_2_outputs`` is not used, nor ``encode_stage_2_inputs``, which quantizes."""
    theirs = VQVAE(2, 1, 1, (4, 8), 1, (4, 8), ((2, 4, 1, 1),) * 2, ((2, 4, 1, 1, 0),) * 2, embedding_dim=3).train()
    before = theirs.quantizer.quantizer.embedding.weight.clone()
    theirs.decode_stage_2_outputs(torch.randn(1, 3, 4, 4))
    assert not torch.equal(theirs.quantizer.quantizer.embedding.weight, before)
    theirs.eval()
    assert not torch.equal(theirs.encode_stage_2_inputs(images()), theirs.encode(images()))


@each_mode
def test_a_frozen_autoencoder_stays_as_it_is_whatever_contains_it(mode: CodebookMode) -> None:
    network = begun(mode, restart_after=1).freeze()
    container = torch.nn.ModuleDict({"autoencoder": network}).train()
    assert network.training
    before = stored(container)
    output = network(images())
    assert equal(stored(container), before)
    assert not output["image"].requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_every_weight_gets_a_gradient() -> None:
    """Otherwise distributed training would wait for it forever."""
    network = tiny_autoencoder()
    output = network(images())
    (output["image"].square().mean() + output["codebook_loss"]).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_weight_decay_does_not_reach_the_codebook() -> None:
    """With gradients of zero decay alone moves weights; codes that shrink would no longer fit the latents."""
    network = begun()
    before = stored(network)
    optimizer = adamw(network, lr=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = stored(network)
    assert torch.equal(after["quantizer.codebook"], before["quantizer.codebook"])
    name = "encoder.blocks.0.conv.weight"
    torch.testing.assert_close(after[name], 0.95 * before[name])


def test_results_are_float32_under_autocast() -> None:
    network = begun()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latent, output = network.encode(images()), network(images())
        decoded = [network.decode(latent, quantize=quantize) for quantize in (True, False)]
    assert {value.dtype for value in (latent, *decoded)} == {torch.float32}
    assert {name: value.dtype for name, value in output.items()} == {
        "image": torch.float32,
        "codebook_loss": torch.float32,
        "indices": torch.int64,
        "latent": torch.float32,
    }


@pytest.mark.parametrize("shape", [(1, 1, 16, 18), (1, 2, 16, 16), (1, 16, 16)])
def test_images_that_do_not_divide_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needed are \(B, 1, X, Y\) with X and Y multiples of 4\. Pad or resize"):
        tiny_autoencoder().encode(torch.zeros(shape))


@pytest.mark.parametrize("quantize", [True, False])
def test_latents_of_another_autoencoder_are_refused(quantize: bool) -> None:
    with pytest.raises(ValueError, match=r"latents of shape \(1, 4, 2, 2\); needed are \(B, 3, x, y\)"):
        tiny_autoencoder().decode(torch.zeros(1, 4, 2, 2), quantize=quantize)


@each_mode
def test_a_state_dict_makes_the_network_again(mode: CodebookMode) -> None:
    network = begun(mode, num_res_channels=(2, 6), commitment=0.5, decay=0.9, restart_after=7, num_res_layers=2)
    again = QuantizedAutoencoder.from_state_dict(stored(network)).eval()
    assert again.settings() == network.settings()
    assert again.identity == network.identity
    assert torch.equal(again.reconstruct(images()), network.reconstruct(images()))
    assert equal(stored(again), stored(network))
    rebuilt, original = again.quantizer, network.quantizer
    for name in ("mode", "commitment", "decay", "restart_after"):
        assert getattr(rebuilt, name) == getattr(original, name)
    assert rebuilt.codebook.requires_grad == (mode == "gradient")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"channels": (4, 4)}, "channels: checkpoint 4,8, this network 4,4"),
        ({"num_embeddings": 41}, "num_embeddings: checkpoint 40, this network 41"),
        ({"mode": "ema"}, "mode: checkpoint gradient, this network ema"),
        ({"commitment": 1.0}, r"commitment: checkpoint 0.25, this network 1.0"),
    ],
)
def test_weights_of_another_network_are_refused_before_loading(changes: dict[str, Any], line: str) -> None:
    network = tiny_autoencoder(**changes)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match="QuantizedAutoencoder: the checkpoint was made for another network") as error:
        network.load_state_dict(begun().state_dict())
    assert line in str(error.value)
    assert equal(dict(network.state_dict()), before)


def without(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: value for name, value in state.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("prefix", "line"),
    [
        ("settings.", "channels: not recorded"),
        ("settings.decay", "decay: not recorded"),
        ("quantizer.codebook", "quantizer.codebook: checkpoint absent"),
        ("quantizer.unused", "quantizer.unused: checkpoint absent"),
        ("decoder.blocks.0", r"decoder\.blocks\.0\.conv\.weight: checkpoint absent"),
    ],
)
def test_incomplete_checkpoints_are_refused(prefix: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        QuantizedAutoencoder.from_state_dict(without(prefix)(stored(begun())))


def test_it_loads_as_a_part_of_another_module() -> None:
    inside = torch.nn.ModuleDict({"autoencoder": begun()})
    other = torch.nn.ModuleDict({"autoencoder": tiny_autoencoder()})
    other.load_state_dict(stored(inside))
    assert other["autoencoder"].identity == inside["autoencoder"].identity


@pytest.mark.parametrize("name", ["encoder.blocks.0.conv.bias", "decoder.blocks.0.conv.bias", "quantizer.codebook"])
def test_identity_tells_weights_apart_and_nothing_else(name: str) -> None:
    network = begun()
    identity = network.identity
    assert identity.startswith("quantized:")
    assert len(identity) == len("quantized:") + 12
    network.quantizer.unused += 1
    assert network.train().freeze().identity == identity
    with torch.no_grad():
        network.get_parameter(name).add_(0.001)
    assert network.identity != identity
