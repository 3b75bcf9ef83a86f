"""What a checkpoint of a translator holds, what it is refused for, and what the backbone gets to see."""

import copy
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.data.text_embeddings import TextTokens, table_tokens
from common.diffusion.residual_shift import residual_shift_schedule
from common.engines.optimization import adamw
from common.handlers.ema import EMA
from common.networks.blocks.recorded_settings import decode_setting
from common.networks.nets.residual_shift_translator import ResidualShiftTranslator
from common.networks.nets.swin_unet import SwinUNet
from common.state_files import load_weights, save_state

SIZE = (16, 24)


def text(task: str = "t1_flair", length: int = 5, prompt_hash: str = "", provenance: str = "table") -> TextTokens:
    return TextTokens(table_tokens(task, length, 24), provenance, prompt_hash, task)


def translator(
    *,
    source: str = "t1n",
    target: str = "t2f",
    described: bool = True,
    backbone: dict[str, Any] | None = None,
    **more: Any,
) -> ResidualShiftTranslator:
    torch.manual_seed(0)
    settings = {
        "image_size": SIZE,
        "channels": 32,
        "channel_mult": (1, 1),
        "num_res_blocks": 1,
        "attention_resolutions": (),
        "window_size": 4,
        "swin_channels": 32,
        "text_channels": 24,
        "guidance_sites": ("mid",),
    }
    knowledge = {"text": text(), "target_level": 700.0} if described else {}
    return ResidualShiftTranslator(SwinUNet(**settings | (backbone or {})), source, target, **knowledge | more)


def away_from_start(network: ResidualShiftTranslator) -> ResidualShiftTranslator:
    """Fill the zero-initialized kernels, so that every input has an influence."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05, generator=generator)
    return network


def inputs(batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    x_t, source = torch.randn(2, batch, 1, *SIZE, generator=torch.Generator().manual_seed(2))
    return x_t, torch.arange(batch) % 4 + 1, source.clamp(-1, 1)


def roundtrip(network: nn.Module) -> dict[str, Tensor]:
    """State dict as it comes out of a file of plain tensors."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# What the backbone sees


def test_the_noisy_image_is_scaled_and_the_source_is_not() -> None:
    """Channels x_t / c_t with c_t = 1 + 3 kappa sqrt(eta_t) = 1.6, 4.1206, 5.5683, 6.94, then the source."""
    network = translator()
    seen: list[tuple] = []
    network.backbone.register_forward_pre_hook(lambda _, args: seen.append(args))
    x_t, t, source = inputs()
    y = network(x_t, t, source)
    scale = torch.tensor([1.6, 4.12057823, 5.56829194, 6.94]).reshape(4, 1, 1, 1)
    image, index, tokens = seen[0]
    torch.testing.assert_close(image, torch.cat([x_t / scale, source], dim=1))
    assert index.tolist() == [0, 1, 2, 3]  # of the 1-based steps
    assert torch.equal(tokens, text().tokens[None])
    assert y.shape == (4, 1, *SIZE)
    assert y.dtype == torch.float32


def test_the_schedule_is_the_one_asked_for() -> None:
    options = {"num_steps": 15, "kappa": 1.0, "min_noise": 0.04, "power": 0.5, "sqrt_eta_end": 0.9}
    network = translator(**options)
    torch.testing.assert_close(network.schedule.eta, residual_shift_schedule(**options).eta)
    assert network.schedule.kappa == 1.0


def test_a_step_that_the_schedule_does_not_have_is_refused() -> None:
    x_t, _, source = inputs(1)
    for t in (0, 5):
        with pytest.raises(IndexError, match=r"outside 1\.\.4"):
            translator()(x_t, torch.tensor([t]), source)


def test_every_input_has_an_influence() -> None:
    network = away_from_start(translator())
    x_t, t, source = inputs()
    y = network(x_t, t, source)
    other = away_from_start(translator(text=text("t1_t2")))
    for changed in (network(-x_t, t, source), network(x_t, t.flip(0), source), network(x_t, t, -source)):
        assert (changed - y).abs().max() > 1e-3
    assert (other(x_t, t, source) - y).abs().max() > 1e-5


def test_a_backbone_without_guidance_gets_no_tokens() -> None:
    network = translator(backbone={"guidance": "none"}, described=False)
    network.check_ready()
    assert network(*inputs()).shape == (4, 1, *SIZE)
    assert network.provenance == "none"


# Checkpoints


def test_a_checkpoint_is_plain_tensors_and_gives_the_same_estimates() -> None:
    saved = away_from_start(translator())
    state = roundtrip(saved)
    assert all(isinstance(value, Tensor) for value in state.values())
    loaded = translator()
    loaded.load_state_dict(state)
    assert torch.equal(loaded(*inputs()), saved(*inputs()))


@pytest.mark.parametrize("length", [3, 40])
def test_tokens_and_white_come_from_the_checkpoint(length: int) -> None:
    """Inference builds the network without them, whatever the length of the description."""
    saved = away_from_start(
        translator(text=text(length=min(length, 11), prompt_hash="abc", provenance="biomedclip"), target_level=432.5)
    )
    loaded = translator(described=False)
    with pytest.raises(
        RuntimeError, match="guided by a description of the task, and none was given; load a checkpoint"
    ):
        loaded.check_ready()
    assert loaded.target_level.isnan()
    loaded.load_state_dict(roundtrip(saved))
    loaded.check_ready()
    assert torch.equal(loaded.text_tokens, saved.text_tokens)
    assert loaded.provenance == "biomedclip"
    assert decode_setting(loaded.prompt_hash) == "abc"
    assert loaded.target_level == 432.5
    assert torch.equal(loaded(*inputs()), saved(*inputs()))


def test_one_message_names_every_setting_that_differs(tmp_path: Path) -> None:
    save_state(translator().state_dict(), tmp_path / "model.pt")
    other = translator(
        source="t1c", pixel_mm=3.5, kappa=1.0, backbone={"image_size": (16, 16), "balance": "none", "window_size": 2}
    )
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="does not fit this network") as caught:
        load_weights(other, tmp_path / "model.pt")
    message = str(caught.value)
    for line in (
        str(tmp_path / "model.pt"),
        "source: checkpoint t1n, this network t1c",
        "pixel_mm: checkpoint 0.0, this network 3.5",
        "kappa: checkpoint 2.0, this network 1.0",
        "image_size: checkpoint 16,24, this network 16,16",
        "balance: checkpoint dfb, this network none",
        "window_size: checkpoint 4, this network 2",
        "Build the network with the checkpoint's values, or use another checkpoint, or train anew.",
    ):
        assert line in message
    assert message.count(": checkpoint ") == 6
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_each_setting_is_recorded() -> None:
    """No option that changes the network or the meaning of its weights goes unnoticed."""
    state = translator().state_dict()
    variants: list[dict[str, Any]] = [
        {"source": "t2w"},
        {"target": "t1c"},
        {"num_steps": 5},
        {"kappa": 1.5},
        {"min_noise": 0.1},
        {"power": 0.5},
        {"sqrt_eta_end": 0.9},
        {"pixel_mm": 1.0},
        {"knowledge": "learned"},
        *({"backbone": {name: value}} for name, value in BACKBONES.items()),
    ]
    for variant in variants:
        name = next(iter(variant.get("backbone", variant)))
        with pytest.raises(ValueError, match=rf"{name}: checkpoint .*, this network"):
            translator(**variant).load_state_dict(state)


BACKBONES: dict[str, Any] = {
    "channel_mult": (1, 2),
    "num_res_blocks": 2,
    "attention_resolutions": (16,),
    "swin_channels": 64,
    "swin_residual": True,
    "balance": "norm_attn",
    "balance_low": False,
    "balance_site": "skip",
    "balance_max_tokens": 100,
    "guidance": "cross_attn",
    "guidance_high": False,
    "guidance_sites": ("mid", "dec0"),
    "band_residual": False,
    "head_norm": False,
    "lambda_init": 0.5,
}


def test_weights_that_are_absent_or_of_another_shape_are_named_at_most_five() -> None:
    state = translator().state_dict()
    del state["backbone.output.bias"]
    state["backbone.input.weight"] = torch.zeros(3)
    state["backbone.extra"] = torch.zeros(())
    with pytest.raises(ValueError, match="made for another network") as caught:
        translator().load_state_dict(state)
    for line in (
        "backbone.output.bias: checkpoint absent, this network (1,)",
        "backbone.input.weight: checkpoint (3,), this network (32, 2, 3, 3)",
        "backbone.extra: checkpoint (), this network absent",
    ):
        assert line in str(caught.value)
    nothing = {name: value for name, value in state.items() if not name.startswith("backbone.")}
    with pytest.raises(ValueError, match=r"\n  \.\.\. and \d+ more\n") as caught:
        translator().load_state_dict(nothing)
    assert str(caught.value).count(": checkpoint absent") == 5


def test_another_model_s_weights_are_recognized() -> None:
    with pytest.raises(ValueError, match="it was not saved from a ResidualShiftTranslator"):
        translator().load_state_dict({"weight": torch.zeros(1)})


@pytest.mark.parametrize("name", ["text_tokens", "text_provenance", "prompt_hash", "target_level"])
def test_knowledge_that_is_absent_is_named(name: str) -> None:
    state = translator().state_dict()
    del state[name]
    with pytest.raises(ValueError, match=f"{name}: not in the checkpoint"):
        translator().load_state_dict(state)


def test_another_description_is_refused_unless_it_comes_with_the_checkpoint() -> None:
    """A prompt that was edited after the training, or tokens of another source."""
    state = translator(text=text(prompt_hash="old", provenance="biomedclip")).state_dict()
    with pytest.raises(ValueError, match="hash of its text: checkpoint 'old', this network 'new'"):
        translator(text=text(prompt_hash="new", provenance="biomedclip")).load_state_dict(state)
    with pytest.raises(
        ValueError, match="provenance of the description: checkpoint 'biomedclip', this network 'table'"
    ):
        translator(text=text(prompt_hash="old")).load_state_dict(state)
    translator(text=text(prompt_hash="old", provenance="biomedclip")).load_state_dict(state)


def test_a_network_inside_another_is_checked_and_loaded_too() -> None:
    """``prefix`` is honored, as for any submodule."""
    outer = nn.ModuleDict({"translator": translator(described=False)})
    saved = translator()
    outer.load_state_dict(nn.ModuleDict({"translator": saved}).state_dict())
    assert torch.equal(outer["translator"].text_tokens, saved.text_tokens)
    with pytest.raises(ValueError, match="kappa"):
        outer.load_state_dict(nn.ModuleDict({"translator": translator(kappa=1.0)}).state_dict())


# Learned tokens


def test_learned_tokens_are_trained_and_saved() -> None:
    network = away_from_start(translator(knowledge="learned", text=None))
    network.check_ready()
    assert network.provenance == "learned"
    assert network.learned_tokens is not None
    start = network.learned_tokens.detach().clone()
    assert start.shape == (64, 24)
    assert start.std().item() == pytest.approx(0.02, rel=0.1)
    optimizer = adamw(network, lr=1e-2)
    network(*inputs()).square().mean().backward()
    optimizer.step()
    assert (network.learned_tokens - start).abs().max() > 1e-3
    loaded = translator(knowledge="learned", described=False)
    loaded.load_state_dict(roundtrip(network))
    assert torch.equal(loaded(*inputs()), network(*inputs()))


def test_tokens_of_a_description_are_not_trained() -> None:
    network = translator()
    assert network.learned_tokens is None
    assert not any("token" in name for name, _ in network.named_parameters())


def test_learned_tokens_take_no_description() -> None:
    assert len(translator(knowledge="learned").text_tokens) == 0


# Copies


def test_the_average_is_a_copy_that_follows_and_stands_alone() -> None:
    """EMA copies the whole translator: average of the weights, the same knowledge, and a state dict that loads."""
    network = away_from_start(translator())
    ema = EMA(network, decay=0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    ema.update(iteration=1)
    rate = min(0.5, 2 / 11)
    for average, current in zip(ema.model.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(average, current - 0.01 * rate)
    assert ema.model.target_level == 700
    assert ema.model.image_size == SIZE
    loaded = translator(described=False)
    loaded.load_state_dict(ema.state_dict())
    torch.testing.assert_close(loaded(*inputs()), ema.model(*inputs()))
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


def test_a_resumed_average_takes_the_length_of_the_checkpoint_s_description() -> None:
    saved = EMA(translator(text=text(length=9)))
    network = translator(described=False)
    resumed = EMA(network)
    network.load_state_dict(saved.state_dict())
    resumed.load_state_dict(saved.state_dict())
    resumed.update(iteration=5)
    assert len(resumed.model.text_tokens) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "ct", "target": "ct"}, "source and target are both 'ct'; name two modalities"),
        ({"knowledge": "random"}, "knowledge='random' must be 'stored' or 'learned'"),
        ({"num_steps": 1}, "num_steps >= 2"),
        ({"min_noise": 3.0}, "sqrt_eta_end"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        translator(**options)


def test_an_unknown_level_is_not_a_number_in_the_file() -> None:
    """So that a file says by itself whether it knows."""
    state = roundtrip(translator(target_level=None))
    assert math.isnan(state["target_level"])
    assert roundtrip(translator())["target_level"] == 700
