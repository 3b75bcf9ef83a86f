"""Swin-UNet: the published sizes, which configurations are legal, and what its switches promise."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.networks.blocks.frequency_balance import FrequencyBalance, PlainBalance
from common.networks.blocks.knowledge_guidance import KnowledgeGuidance, PlainGuidance
from common.networks.blocks.residual_block import ResidualBlock
from common.networks.blocks.swin import SwinLayer
from common.networks.nets.swin_unet import SwinUNet

# the two networks of DFBK; which levels carry Swin layers is not published
PAPER_192 = {"image_size": 192, "channel_mult": (1, 1, 2, 2, 4, 4), "window_size": 8}
PAPER_192 |= {"attention_resolutions": (48, 24, 6)}
PAPER_224 = {"image_size": 224, "channel_mult": (1, 1, 2, 2, 4), "window_size": 14}
PAPER_224 |= {"attention_resolutions": (56, 28, 14)}
BASE = {"balance": "none", "guidance": "none"}
ONE_SITE = {"guidance_sites": ("mid",)}
SMALL = {
    "image_size": 64,
    "channels": 32,
    "channel_mult": (1, 1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (16,),
    "swin_channels": 64,
    "balance_max_tokens": 256,
    "balance_above_cap": "none",
    "guidance_sites": ("mid",),
}
TINY = {
    "image_size": (16, 24),
    "channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (8,),
    "window_size": 4,
    "swin_channels": 32,
    "text_channels": 24,
}


def tiny(**arguments: object) -> SwinUNet:
    torch.manual_seed(0)
    return SwinUNet(**{**TINY, **arguments})


def away_from_start(network: nn.Module) -> nn.Module:
    """Give what starts at zero a value, so that no block is the identity."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return network


def batch(network: SwinUNet) -> tuple[Tensor, Tensor, Tensor | None]:
    torch.manual_seed(2)
    x, t = torch.randn(2, network.in_channels, *network.image_size), torch.tensor([0, 3])
    return x, t, None if network.guidance == "none" else torch.randn(1, 5, network.text_channels)


def count(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def modules(network: nn.Module, cls: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, cls)]


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [
        (PAPER_192 | BASE, 188.4),
        (PAPER_192 | ONE_SITE, 259.0),
        (PAPER_192, 259.0 + 12.1),
        (PAPER_224 | BASE, 126.6),
        (PAPER_224 | ONE_SITE, 180.8),
        (PAPER_224, 180.8 + 12.1),
        (SMALL, 1.95),
    ],
    ids=["192-base", "192-one-site", "192", "224-base", "224-one-site", "224", "small"],
)
def test_parameters_are_as_many_as_specified(arguments: dict[str, object], millions: float) -> None:
    with torch.device("meta"):
        assert count(SwinUNet(**arguments)) == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "gigaflops"),
    [
        (PAPER_192 | BASE, 454),
        (PAPER_192 | ONE_SITE | {"balance_max_tokens": 2304}, 546),
        (PAPER_192 | ONE_SITE | {"balance_max_tokens": 10**6}, 843),
        (PAPER_224 | BASE, 620),
        (PAPER_224 | ONE_SITE, 770),
    ],
    ids=["192-base", "192", "192-global", "224-base", "224"],
)
def test_forward_pass_costs_as_much_as_specified(arguments: dict[str, object], gigaflops: float) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = SwinUNet(**arguments)
        text = None if network.guidance == "none" else torch.empty(1, 70, 768)
        network(torch.empty(1, 2, *network.image_size), torch.zeros(1).long(), text)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflops, rel=0.005)


@pytest.mark.parametrize("arguments", [PAPER_192, PAPER_224], ids=["192", "224"])
def test_published_networks_map_images_to_images(arguments: dict[str, object]) -> None:
    with torch.device("meta"):
        network = SwinUNet(**arguments)
        x, t, text = torch.empty(2, 2, *network.image_size), torch.zeros(2).long(), torch.empty(1, 70, 768)
        y = network(x, t, text, torch.ones(1, 70).bool())
    assert y.shape == (2, 1, *network.image_size)
    assert y.dtype == torch.float32


def test_published_widths_meet_the_balance_at_every_decoder_level() -> None:
    with torch.device("meta"):
        network = SwinUNet(**PAPER_192)
    widths = [module.bands.low.query.in_features for module in modules(network, FrequencyBalance)]
    assert widths == [640, 640, 640, 320, 320, 160]
    assert [module.window for module in modules(network, FrequencyBalance)] == [None] * 5 + [(8, 8)]
    assert len(modules(network, SwinLayer)) == 3 + 1 + 3


def test_modules_run_in_the_published_order() -> None:
    network = tiny(num_res_blocks=2)
    names = {module: name for name, module in network.named_modules()}
    kinds = (ResidualBlock, SwinLayer, FrequencyBalance, KnowledgeGuidance, nn.Conv2d)
    order: list[str] = []
    for module in modules(network, nn.Module):
        if isinstance(module, kinds) and ".residual." not in names[module]:
            module.register_forward_hook(lambda module, *_: order.append(names[module]))
    network(*batch(network))
    assert order == [
        "input",
        "encoder.0.stages.0.residual",
        "encoder.0.stages.1.residual",
        "encoder.0.down",
        "encoder.1.stages.0.residual",
        "encoder.1.stages.0.swin",  # after the first block of a level only
        "encoder.1.stages.1.residual",
        "mid_entry.residual",
        "mid_entry.swin",
        "mid_guidance",
        "mid_exit.residual",
        "decoder.0.balance",  # before the first concatenation of a level
        "decoder.0.stages.0.residual",
        "decoder.0.stages.0.swin",
        "decoder.0.stages.1.residual",
        "decoder.0.stages.2.residual",
        "decoder.0.guidance",
        "decoder.0.up",
        "decoder.1.balance",
        "decoder.1.stages.0.residual",
        "decoder.1.stages.1.residual",
        "decoder.1.stages.2.residual",
        "output",
    ]


@pytest.mark.parametrize("site", ["decoder", "skip"])
def test_balance_acts_on_one_side_of_the_first_concatenation(site: str) -> None:
    """What the balance returns is replaced by a mark, which then shows up in the channels of the side it belongs to."""
    network = tiny(channel_mult=(1, 1), guidance="none", balance_site=site)
    level = network.decoder[1]
    level.balance.register_forward_hook(lambda *_: torch.full((2, 32, 16, 24), 7.0))
    seen: list[Tensor] = []
    for stage in level.stages:
        stage.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(*batch(network)[:2])
    marked = [[bool((half == 7).all()) for half in x.split(32, dim=1)] for x in seen]
    assert marked == [[site == "decoder", site == "skip"], [False, False]]


def test_balance_on_skip_connections_has_the_encoder_s_widths() -> None:
    with torch.device("meta"):
        network = SwinUNet(**PAPER_192, balance_site="skip")
    widths = [module.bands.low.query.in_features for module in modules(network, FrequencyBalance)]
    assert widths == [640, 640, 320, 320, 160, 160]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            PAPER_192 | {"channel_mult": (1, 1, 2, 2, 4), "attention_resolutions": (48, 24)},
            "deepest level of size 12x12",
        ),
        (PAPER_192 | {"attention_resolutions": (48, 24, 12, 6)}, "Swin layer at size 12x12 is impossible"),
        (PAPER_192 | {"channel_mult": (1, 1, 2, 2, 4)}, "attention_resolutions has 6, but .* 192, 96, 48, 24, 12"),
        (PAPER_192 | {"image_size": 200}, "200x200 does not halve 5 times.*pad to multiples of 32"),
        (PAPER_192 | {"image_size": (192, 200)}, "192x200 does not halve"),
        (PAPER_192 | {"channels": 100}, "channels=100 do not divide into 32 groups"),
        (PAPER_192 | {"swin_channels": 100}, "channels=100 do not divide into"),
        (PAPER_192 | {"head_channels": 48}, "do not divide into heads of head_channels=48"),
        (
            {"image_size": 24, "channel_mult": (1,), "attention_resolutions": (), "balance_max_tokens": 100},
            "balance on 12x12 tokens, more than balance_max_tokens=100, would attend in windows of window_size=8",
        ),
        (PAPER_192 | {"balance": "haar"}, "balance='haar' is unknown; choose one of dfb, norm_attn, none"),
        (PAPER_192 | {"balance_site": "encoder"}, "balance_site='encoder' is unknown"),
        (PAPER_192 | {"balance_above_cap": "stripes"}, "balance_above_cap='stripes' is unknown"),
        (PAPER_192 | {"guidance": "text"}, "guidance='text' is unknown"),
        (PAPER_192 | {"guidance_sites": ("mid", "dec9")}, "guidance_sites='dec9' is unknown; choose one of mid, dec0"),
        (PAPER_192 | {"lambda_init": "deep"}, "lambda_init='deep' is unknown"),
    ],
)
def test_illegal_configuration_is_refused(arguments: dict[str, object], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        SwinUNet(**arguments)


def test_message_on_windows_names_the_levels_that_are_allowed() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=r"window_size=8; .* 192x192, 96x96, 48x48, 24x24, 6x6"):
        SwinUNet(**PAPER_192 | {"attention_resolutions": (12,)})


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"channel_mult": (1,), "attention_resolutions": ()},
        {"balance": "norm_attn", "guidance": "cross_attn"},
        {"balance_site": "skip", "swin_residual": True, "lambda_init": "depth"},
        {"balance_max_tokens": 30},
        {"balance_max_tokens": 30, "balance_above_cap": "none", "head_norm": False},
        {"balance_low": False, "guidance_high": False, "band_residual": False},
        {"num_res_blocks": 2, "guidance_sites": ("dec0",), "in_channels": 4, "out_channels": 3},
    ],
    ids=lambda arguments: ",".join(arguments) or "default",
)
def test_every_parameter_takes_part_in_every_step(arguments: dict[str, object]) -> None:
    """What lets DistributedDataParallel run without searching for unused parameters."""
    network = tiny(**arguments)
    x, t, text = batch(network)
    y = network(x, t, text)
    assert y.shape == (2, network.output.out_channels, 16, 24)
    y.square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("switches", "built"),
    [
        ({}, {FrequencyBalance: 2, KnowledgeGuidance: 2}),
        (BASE, {}),
        ({"balance_low": False, "balance_high": False, "guidance_low": False, "guidance_high": False}, {}),
        ({"balance": "none", "guidance_sites": ("dec0",)}, {KnowledgeGuidance: 1}),
        ({"guidance_sites": ()}, {FrequencyBalance: 2}),
        ({"balance": "norm_attn", "guidance": "cross_attn"}, {PlainBalance: 2, PlainGuidance: 2}),
        ({"balance_max_tokens": 30, "balance_above_cap": "none", "guidance": "none"}, {FrequencyBalance: 1}),
        ({"balance_max_tokens": 30, "balance_above_cap": "window", "guidance": "none"}, {FrequencyBalance: 2}),
    ],
)
def test_what_is_switched_off_is_not_built(switches: dict[str, object], built: dict[type[nn.Module], int]) -> None:
    network = tiny(**switches)
    kinds = (FrequencyBalance, PlainBalance, KnowledgeGuidance, PlainGuidance)
    assert {kind: len(modules(network, kind)) for kind in kinds if modules(network, kind)} == built
    assert (network.guidance == "none") == (not {KnowledgeGuidance, PlainGuidance} & set(built))


def test_balance_and_guidance_start_without_effect_so_that_a_base_network_can_be_continued() -> None:
    base, full = away_from_start(tiny(**BASE)), tiny()
    missing, unexpected = full.load_state_dict(base.state_dict(), strict=False)
    assert not unexpected
    assert all(".balance." in name or "guidance." in name for name in missing)
    x, t, text = batch(full)
    torch.testing.assert_close(full(x, t, text), base(x, t), atol=0, rtol=0)


def test_each_input_matters() -> None:
    network = away_from_start(tiny())
    x, t, text = batch(network)
    y = network(x, t, text)
    for other in (
        network(x.flip(1), t, text),
        network(x, t.flip(0), text),
        network(x, t, text.flip(0, 1, 2)),
        network(x, t, text, torch.tensor([[True, True, True, False, False]])),
    ):
        assert (other - y).abs().max() > 1e-4


def test_images_of_a_batch_do_not_mix() -> None:
    network = away_from_start(tiny())
    x, t, text = batch(network)
    texts = torch.cat([text, text.flip(2)])
    together = network(x, t, texts)
    for i in range(2):
        torch.testing.assert_close(together[i], network(x[i : i + 1], t[i : i + 1], texts[i : i + 1])[0])


def test_times_count_in_steps() -> None:
    """The frequencies are those of integer indices: at the highest, one step advances the angle by one radian."""
    network = tiny(**BASE)
    seen = []
    network.time_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(*batch(network)[:2])
    assert seen[0][1, 0].item() == pytest.approx(torch.tensor(3.0).cos().item(), abs=1e-6)
    assert seen[0][1, 16].item() == pytest.approx(torch.tensor(3.0).sin().item(), abs=1e-6)


def test_depth_schedule_of_lambda() -> None:
    with torch.device("meta"):
        network = SwinUNet(**PAPER_192, lambda_init="depth")
    starts = [module.bands.high.weight.initial for module in modules(network, FrequencyBalance)]
    assert starts == pytest.approx([0.2, 0.3555, 0.4707, 0.5561, 0.6193, 0.6661], abs=1e-4)
    assert [module.bands.high.weight.initial for module in modules(network, KnowledgeGuidance)] == [
        pytest.approx(0.2)
    ] * 2


def test_prediction_under_autocast_is_float32_and_not_rounded_to_bfloat16() -> None:
    network = away_from_start(tiny())
    x, t, text = batch(network)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x, t, text)
    assert y.dtype == torch.float32
    assert (y != y.bfloat16().float()).float().mean() > 0.9
    exact = network(x, t, text)
    assert (y - exact).norm() < 0.05 * exact.norm()


def test_checkpointing_changes_neither_prediction_nor_gradients() -> None:
    plain, saving = away_from_start(tiny()), away_from_start(tiny(checkpointing=True))
    saving.load_state_dict(plain.state_dict())
    results = []
    for network in (plain, saving):
        y = network(*batch(network))
        y.square().mean().backward()
        results.append([y, *(parameter.grad for parameter in network.parameters())])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


def test_settings_are_plain_and_tell_architectures_apart() -> None:
    settings = tiny().settings()
    assert all(isinstance(value, int | float | str) for value in settings.values())
    assert settings["image_size"] == "16,24"
    assert settings["channel_mult"] == "1,2"
    variants: list[dict[str, object]] = [
        {"head_norm": False},
        {"balance_max_tokens": 30},
        {"lambda_init": "depth"},
        {"swin_residual": True},
        {"guidance_sites": ("mid",)},
        {"balance_site": "skip"},
        {"band_residual": False},
    ]
    assert all(tiny(**variant).settings() != settings for variant in variants)
    assert tiny(checkpointing=True).settings() == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 2, 24, 16)}, r"input of shape \(2, 2, 24, 16\); this network takes \(B, 2, 16, 24\)"),
        ({"x": torch.zeros(2, 1, 16, 24)}, r"takes \(B, 2, 16, 24\)"),
        ({"t": torch.tensor([1])}, r"times of shape \(1,\); give one per image, \(2,\)"),
        ({"text": None}, "text missing; the network was built with guidance"),
        ({"text": torch.zeros(1, 5, 32)}, r"text of shape \(1, 5, 32\); this network takes \(2 or 1, L, 24\)"),
        ({"text": torch.zeros(3, 5, 24)}, r"text of shape \(3, 5, 24\)"),
        ({"text_mask": torch.ones(1, 4, dtype=torch.bool)}, r"text_mask of torch.bool and shape \(1, 4\)"),
        ({"text_mask": torch.ones(1, 5)}, "text_mask of torch.float32 .* must be boolean"),
    ],
)
def test_input_that_does_not_fit_is_refused(change: dict[str, Tensor | None], message: str) -> None:
    network = tiny()
    x, t, text = batch(network)
    with pytest.raises(ValueError, match=message):
        network(**{"x": x, "t": t, "text": text, "text_mask": None} | change)


def test_text_without_guidance_is_refused() -> None:
    network = tiny(guidance="none")
    with pytest.raises(ValueError, match="text given, but the network was built without guidance"):
        network(*batch(network)[:2], torch.zeros(1, 5, 24))
