"""What a checkpoint of Med-DiT holds and is refused for, what conditions the backbone, and what stays frozen."""

import copy
import io
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.diffusion.gaussian import linear_schedule
from common.engines.optimization import adamw
from common.handlers.ema import EMA
from common.networks.nets.dit import DiT
from common.networks.nets.latent_translator import LatentTranslator
from common.networks.nets.vision_embedder import VisionEmbedder


@dataclass
class Space:
    """What the translator has to know of an autoencoder."""

    latent_channels: int = 4
    factor: int = 2
    identity: str = "scratch:abc"
    scale: float = 0.5


@dataclass
class Vision:
    identity: str = "biomedclip:def"


SIZE, LATENT = (16, 24), (8, 12)


def parts(
    conditioning: str = "spatial",
    image_encoder: str = "small_cnn",
    learn_sigma: bool = True,
    *,
    space: Space | None = None,
    backbone: dict[str, Any] | None = None,
    embedder: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Backbone, embedder, autoencoder and image encoder that belong together, but for what is asked otherwise."""
    space = space or Space()
    dit = {
        "input_size": LATENT,
        "source_channels": 4 if conditioning == "spatial" else 0,
        "out_channels": 8 if learn_sigma else 4,
        "hidden_size": 16,
        "depth": 2,
        "num_heads": 2,
        "num_conditions": 1 if image_encoder == "none" else 2,
    } | (backbone or {})
    vectors = {
        "input_size": dit["input_size"],
        "embed_dim": dit["hidden_size"],
        "reduction": 2,
        "autoencoder": space.identity,
    } | (embedder or {})
    return {
        "backbone": DiT(**dit),
        "embedder": VisionEmbedder(**vectors),
        "autoencoder": space,
        "conditioning": conditioning,
        "image_encoder": image_encoder,
        "learn_sigma": learn_sigma,
        "vision": Vision() if image_encoder == "biomedclip" else None,
    }


def translator(*choice: Any, image_size: Any = SIZE, source: str = "mr", target: str = "ct", **more: Any) -> Any:
    torch.manual_seed(0)
    names = {"conditioning", "image_encoder", "learn_sigma", "space", "backbone", "embedder"}
    made = parts(*choice, **{name: value for name, value in more.items() if name in names})
    others = {name: value for name, value in more.items() if name not in names}
    return LatentTranslator(image_size=image_size, source=source, target=target, **made | others)


def away_from_start(network: LatentTranslator) -> LatentTranslator:
    """Fill the weights that are zero at the start, so that every input has an influence."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1, generator=generator)
    return network


def inputs(batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x_t, source = torch.randn(2, batch, 4, *LATENT, generator=generator)
    return {
        "x_t": x_t,
        "t": torch.arange(batch) * 400 % 1000,
        "source": source,
        "image": torch.rand(batch, 1, *SIZE, generator=generator) * 2 - 1,
        "vector": torch.randn(batch, 512, generator=generator),
    }


def stored(network: nn.Module) -> dict[str, Tensor]:
    """State dict as it comes out of a file of plain tensors."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


every_kind = pytest.mark.parametrize("image_encoder", ["small_cnn", "biomedclip", "none"])
both_conditionings = pytest.mark.parametrize("conditioning", ["spatial", "global"])


# What comes out


@both_conditionings
@every_kind
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_noise_and_variance_have_the_latents_shape(conditioning: str, image_encoder: str, learn_sigma: bool) -> None:
    """A fresh network predicts exactly 0."""
    network = translator(conditioning, image_encoder, learn_sigma)
    assert network.latent_shape == (4, *LATENT)
    network.check_ready()
    y = network(**inputs())
    assert y.shape == (3, 8 if learn_sigma else 4, *LATENT)
    assert y.dtype == torch.float32
    assert torch.equal(y, torch.zeros_like(y))


@both_conditionings
@pytest.mark.parametrize(
    ("image_encoder", "seen"), [("small_cnn", {"image"}), ("biomedclip", {"vector"}), ("none", set())]
)
def test_the_prediction_depends_on_what_the_choice_says(conditioning: str, image_encoder: str, seen: set[str]) -> None:
    network, given = away_from_start(translator(conditioning, image_encoder)), inputs()
    y = network(**given)
    changes = {name: 1 - value if name != "t" else value + 50 for name, value in given.items()}
    for name, value in changes.items():
        difference = (network(**given | {name: value}) - y).abs().amax()
        assert difference > 1e-3 if name in seen | {"x_t", "t", "source"} else difference == 0, name


def test_the_schedule_is_the_one_asked_for() -> None:
    network = translator(num_train_steps=50, beta_start=0.002, beta_end=0.4)
    expected = linear_schedule(50, 0.002, 0.4)
    assert torch.equal(network.schedule.alpha_bar, expected.alpha_bar)
    assert torch.equal(network.schedule.timesteps, expected.timesteps)


@every_kind
def test_conditions_computed_before_give_the_same_prediction(image_encoder: str) -> None:
    """Sampling computes them once for all steps."""
    network, given = away_from_start(translator("spatial", image_encoder)).eval(), inputs()
    vectors = network.conditions(given["source"], given["image"], given["vector"])
    assert [tuple(vector.shape) for vector in vectors] == [(3, 16)] * network.backbone.num_conditions
    first = {name: given[name] for name in ("x_t", "t", "source")}
    assert torch.equal(network(**first, conditions=vectors), network(**given))


def test_the_embedders_vector_comes_first_then_the_images() -> None:
    """The order of eq. 6."""
    network, given = away_from_start(translator()), inputs()
    first, second = network.conditions(given["source"], given["image"])
    torch.testing.assert_close(first, network.embedder(given["source"]).mean(1))
    assert torch.equal(second, network.image_cnn(given["image"]))


def test_mixed_precision_does_not_reach_the_result() -> None:
    network, given = away_from_start(translator("spatial", "biomedclip")), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        y = network(**given)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, network(**given), atol=0.05, rtol=0.05)


# Whether the conditioning knows places


@every_kind
def test_global_conditioning_does_not_notice_that_the_source_was_moved(image_encoder: str) -> None:
    """By whole patches, that is: a vector of the source is all that the backbone sees."""
    network, given = away_from_start(translator("global", image_encoder)), inputs()
    y = network(**given)
    for shift in [(2, 0), (4, -6)]:
        moved = given["source"].roll(shift, dims=(2, 3))
        assert (moved - given["source"]).abs().max() > 1
        torch.testing.assert_close(network(**given | {"source": moved}), y, atol=1e-5, rtol=0)
    assert (network(**given | {"source": given["source"].roll(1, dims=2)}) - y).abs().max() > 1e-4  # no whole patch


def test_spatial_conditioning_answers_at_the_place_that_moved() -> None:
    """A patch that is brighter than the rest goes elsewhere: the two places change most, the vector does not."""
    network, given = away_from_start(translator("spatial", "none")), inputs(1)
    source = torch.zeros(1, 4, *LATENT)
    source[..., 2:4, 4:6] = 1.0  # patch (1, 2)
    moved = source.roll((4, -2), dims=(2, 3))  # patch (3, 1)
    torch.testing.assert_close(network.embedder.vector(moved), network.embedder.vector(source), atol=1e-6, rtol=0)
    before, after = (network(given["x_t"], given["t"], place) for place in (source, moved))
    change = nn.functional.avg_pool2d((after - before).abs().mean(dim=1, keepdim=True), 2)[0, 0]  # (4, 6) patches
    assert set(change.flatten().topk(2).indices.tolist()) == {1 * 6 + 2, 3 * 6 + 1}
    assert change[1, 2] > 0.01


# The paper's size


@pytest.mark.parametrize(
    ("conditioning", "image_encoder", "hidden_size", "width", "trainable"),
    [
        ("spatial", "biomedclip", 512, 1024, 102_263_328),
        ("global", "biomedclip", 512, 1024, 102_255_136),
        ("global", "none", 512, 512, 76_565_024),
        ("spatial", "biomedclip", 384, 768, None),
    ],
)
def test_widths_and_weights_of_the_published_network(
    conditioning: str, image_encoder: str, hidden_size: int, width: int, trainable: int | None
) -> None:
    """c is as wide as both vectors, each as wide as the backbone: 1024; BiomedCLIP's 512 numbers fit as they are."""
    with torch.device("meta"):
        made = parts(
            conditioning,
            image_encoder,
            space=Space(factor=8),
            backbone={"input_size": (28, 28), "hidden_size": hidden_size, "depth": 16, "num_heads": 8},
            embedder={"reduction": 16},
        )
    network = LatentTranslator(image_size=(224, 224), source="mr", target="ct", **made).to("meta")
    seen: list[Tensor] = []
    network.backbone.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    latent, vector = torch.empty(2, 4, 28, 28, device="meta"), torch.empty(2, 512, device="meta")
    y = network(latent, torch.empty(2, dtype=torch.int64, device="meta"), latent, vector=vector)
    assert y.shape == (2, 8, 28, 28)
    assert seen[0].shape == (2, width)
    if image_encoder == "biomedclip":
        assert (network.conditions(latent, vector=vector)[1] is vector) == (hidden_size == 512)
    if trainable is not None:
        assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trainable
        assert sum(p.numel() for p in network.parameters() if not p.requires_grad) == 43_040


# Training


@both_conditionings
@every_kind
def test_training_moves_everything_but_the_embedder(conditioning: str, image_encoder: str) -> None:
    network, given = away_from_start(translator(conditioning, image_encoder)), inputs()
    ema = EMA(network, decay=0.5)
    before = copy.deepcopy(network.state_dict())
    network.eval()
    network.train()
    assert not any(module.training for module in network.embedder.modules())
    assert all(module.training for module in network.backbone.modules())
    optimizer = adamw(network, lr=1e-2, weight_decay=0.5)
    for iteration in (1, 2):
        network(**given).square().sum().backward()
        optimizer.step()
        ema.update(iteration)
    assert all(parameter.grad is None for parameter in network.embedder.parameters())
    averaged = ema.model.state_dict()
    for name, parameter in network.named_parameters():
        if name.startswith("embedder."):
            assert torch.equal(parameter, before[name]), name
            assert torch.equal(averaged[name], before[name]), name
        else:
            assert not torch.equal(parameter, before[name]), name


@both_conditionings
@every_kind
def test_every_trainable_weight_gets_a_gradient_from_the_start(conditioning: str, image_encoder: str) -> None:
    """Otherwise distributed training would wait for it forever."""
    network = translator(conditioning, image_encoder)
    network(**inputs()).sum().backward()
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


# Checkpoints


@both_conditionings
@every_kind
def test_a_checkpoint_is_plain_tensors_and_gives_the_same_predictions(conditioning: str, image_encoder: str) -> None:
    """The embedder is a part of it, the autoencoder and BiomedCLIP are not."""
    saved = away_from_start(translator(conditioning, image_encoder))
    state = stored(saved)
    assert {name.split(".")[0] for name in state} <= {"settings", "backbone", "embedder", "image_cnn", "projection"}
    loaded = translator(conditioning, image_encoder)
    nn.init.normal_(loaded.embedder.norm.bias)
    loaded.load_state_dict(state)
    assert torch.equal(loaded(**inputs()), saved(**inputs()))


def test_one_message_names_everything_that_differs() -> None:
    state = translator().state_dict()
    space = Space(identity="sd-vae-ft-mse:123", scale=0.18215)
    other = translator("global", "biomedclip", space=space, embedder={"gate_axis": "token"}, hu_max=3000.0)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="LatentTranslator: the checkpoint was made for another network") as caught:
        other.load_state_dict(state)
    for line in (
        "hu_max: checkpoint 2000.0, this network 3000.0",
        "autoencoder: checkpoint scratch:abc, this network sd-vae-ft-mse:123",
        "latent_scale: checkpoint 0.5, this network 0.18215",
        "conditioning: checkpoint spatial, this network global",
        "image_encoder: checkpoint small_cnn, this network biomedclip:def",
        "source_channels: checkpoint 4, this network 0",
        "embedder.gate_axis: checkpoint channel, this network token",
        "embedder.autoencoder: checkpoint scratch:abc, this network sd-vae-ft-mse:123",
        "Build the network with the checkpoint's values, or use another checkpoint, or train anew.",
    ):
        assert line in str(caught.value)
    assert str(caught.value).count(": checkpoint ") == 8
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


VARIANTS: dict[str, dict[str, Any]] = {
    "source": {"source": "t1"},
    "target": {"target": "cbct"},
    "width": {"image_size": (24, 24), "backbone": {"input_size": (12, 12)}},
    "height": {"image_size": (16, 16), "backbone": {"input_size": (8, 8)}},
    "fit": {"fit": "crop"},
    "hu_min": {"hu_min": -1000.0},
    "hu_max": {"hu_max": 3000.0},
    "mr_lower": {"mr_lower": 0.0},
    "autoencoder": {"space": Space(identity="scratch:xyz")},
    "latent_scale": {"space": Space(scale=0.6)},
    "conditioning": {"conditioning": "global"},
    "image_encoder": {"image_encoder": "none"},
    "num_train_steps": {"num_train_steps": 500},
    "beta_start": {"beta_start": 0.001},
    "beta_end": {"beta_end": 0.01},
    "learn_sigma": {"learn_sigma": False},
    "num_heads": {"backbone": {"num_heads": 4}},
    "long_skip": {"backbone": {"long_skip": True}},
    "embedder.gate_axis": {"embedder": {"gate_axis": "token"}},
    "embedder.reduction": {"embedder": {"reduction": 4}},
    "embedder.patch_size": {"embedder": {"patch_size": 4}},
}


@pytest.mark.parametrize(("name", "change"), VARIANTS.items(), ids=VARIANTS)
def test_each_setting_is_recorded(name: str, change: dict[str, Any]) -> None:
    """No option that changes the network or the meaning of its weights goes unnoticed."""
    with pytest.raises(ValueError, match=rf"\n  {name}: checkpoint .*, this network"):
        translator(**change).load_state_dict(translator().state_dict())


def test_another_image_encoder_of_the_same_kind_is_refused() -> None:
    saved = translator("spatial", "biomedclip", vision=Vision("biomedclip:old"))
    with pytest.raises(ValueError, match="image_encoder: checkpoint biomedclip:old, this network biomedclip:def"):
        translator("spatial", "biomedclip").load_state_dict(saved.state_dict())


def test_weights_that_are_absent_or_of_another_shape_are_named_in_every_part() -> None:
    state = translator().state_dict()
    del state["backbone.output.bias"]
    state["embedder.norm.weight"] = torch.zeros(3)
    state["image_cnn.extra"] = torch.zeros(2)
    with pytest.raises(ValueError, match="made for another network") as caught:
        translator().load_state_dict(state)
    for line in (
        "backbone.output.bias: checkpoint absent, this network (32,)",
        "embedder.norm.weight: checkpoint (3,), this network (16,)",
        "image_cnn.extra: checkpoint (2,), this network absent",
    ):
        assert line in str(caught.value)


def test_another_models_weights_are_recognized() -> None:
    for state in ({"weight": torch.zeros(1)}, translator().backbone.state_dict()):
        with pytest.raises(ValueError, match="it was not saved from a LatentTranslator"):
            translator().load_state_dict(state)


def test_a_network_inside_another_is_checked_and_loaded_too() -> None:
    saved = away_from_start(translator())
    outer = nn.ModuleDict({"translator": translator()})
    outer.load_state_dict(nn.ModuleDict({"translator": saved}).state_dict())
    assert torch.equal(outer["translator"](**inputs()), saved(**inputs()))
    with pytest.raises(ValueError, match="mr_lower"):
        outer.load_state_dict(nn.ModuleDict({"translator": translator(mr_lower=1.0)}).state_dict())


def test_the_average_is_a_copy_that_loads() -> None:
    network = away_from_start(translator())
    ema = EMA(network)
    loaded = translator()
    loaded.load_state_dict(ema.state_dict())
    assert torch.equal(loaded(**inputs()), network(**inputs()))
    assert ema.model.scale == 0.5
    assert torch.equal(ema.model.schedule.beta, network.schedule.beta)


# Errors


def test_a_backbone_for_something_else_is_refused_in_one_message() -> None:
    with pytest.raises(ValueError, match="the backbone was built for something else") as caught:
        translator(
            backbone={
                "input_size": (8, 8),
                "latent_channels": 3,
                "source_channels": 0,
                "out_channels": 4,
                "num_conditions": 1,
            }
        )
    for line in (
        "input_size: needed (8, 12), the backbone has (8, 8)",
        "latent_channels: needed 4, the backbone has 3",
        "source_channels: needed 4, the backbone has 0",
        "out_channels: needed 8, the backbone has 4",
        "num_conditions: needed 2, the backbone has 1",
    ):
        assert line in str(caught.value)


def test_an_embedder_for_something_else_is_refused_in_one_message() -> None:
    """Above all one that was pretrained in another latent space."""
    other = {"input_size": (8, 8), "in_channels": 3, "embed_dim": 32, "autoencoder": "scratch:old"}
    with pytest.raises(ValueError, match="the embedder was built for something else") as caught:
        translator(embedder=other)
    for line in (
        "input_size: needed (8, 12), the embedder has (8, 8)",
        "in_channels: needed 4, the embedder has 3",
        "embed_dim: needed 16, the embedder has 32",
        "autoencoder: needed scratch:abc, the embedder has scratch:old",
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditioning": "local"}, "conditioning='local' must be 'spatial' or 'global'"),
        ({"image_encoder": "clip"}, "image_encoder='clip' is unknown; choose one of biomedclip, small_cnn, none"),
        ({"image_encoder": "none", "vision": Vision()}, "image_encoder='none', but a pretrained encoder was given as"),
        ({"image_encoder": "biomedclip", "vision": None}, "'biomedclip', but a pretrained encoder was not given as"),
        ({"space": Space(scale=float("nan"))}, "the scale of the latents is nan; take an autoencoder whose"),
        ({"num_train_steps": 1}, "need num_steps >= 2"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        translator(**options)


@pytest.mark.parametrize(("kind", "name"), [("small_cnn", "image"), ("biomedclip", "vector")])
def test_what_the_image_encoder_needs_must_be_given(kind: str, name: str) -> None:
    given = {key: value for key, value in inputs().items() if key != name}
    with pytest.raises(ValueError, match=f"image_encoder='{kind}' needs .* as `{name}`"):
        translator("spatial", kind)(**given)


def test_one_modality_is_no_translation() -> None:
    with pytest.raises(ValueError, match="source and target are both 'ct'"):
        translator("spatial", "none", source="ct")
