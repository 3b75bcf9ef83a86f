"""Convolutional U-Net with Swin layers, frequency balance and text guidance: the network of DFBK."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..blocks.frequency_balance import FrequencyBalance, PlainBalance
from ..blocks.group_norm import GroupNorm
from ..blocks.knowledge_guidance import KnowledgeGuidance, PlainGuidance
from ..blocks.precision import full_precision
from ..blocks.residual_block import ResidualBlock
from ..blocks.swin import SwinLayer, fits_windows
from ..blocks.timestep_embedding import sinusoidal_embedding

Balance = Literal["dfb", "norm_attn", "none"]
BalanceSite = Literal["decoder", "skip"]
AboveCap = Literal["window", "none"]
Guidance = Literal["kg", "cross_attn", "none"]
GuidanceSite = Literal["mid", "dec0"]


class Stage(nn.Module):
    """A residual block and, at some levels, a Swin layer. x ``(B, C, H, W)`` -> ``(B, out_channels, H, W)``."""

    def __init__(self, residual: ResidualBlock, swin: SwinLayer | None) -> None:
        super().__init__()
        self.residual = residual
        self.swin = swin

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.residual(x, embedding)
        return x if self.swin is None else self.swin(x)


class EncoderLevel(nn.Module):
    """Stages of one resolution, then a stride-2 convolution to the next; the deepest level has none.

    x ``(B, C, H, W)`` -> what each of them returns, in order: the skip connections.
    """

    def __init__(self, stages: Sequence[Stage], down: nn.Conv2d | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.down = down

    def forward(self, x: Tensor, embedding: Tensor, *, checkpointing: bool) -> list[Tensor]:
        features = [x]
        for stage in self.stages:
            features.append(_call(stage, features[-1], embedding, checkpointing=checkpointing))
        if self.down is not None:
            features.append(self.down(features[-1]))
        return features[1:]


class DecoderLevel(nn.Module):
    """Balance, stages that take in one skip connection each, guidance, and a convolution after upsampling.

    x ``(B, C, h, w)`` -> ``(B, out_channels, H, W)``; skip connections are taken from the end of ``skips``.
    """

    def __init__(
        self,
        balance: FrequencyBalance | PlainBalance | None,
        balance_site: BalanceSite,
        stages: Sequence[Stage],
        guidance: KnowledgeGuidance | PlainGuidance | None,
        up: nn.Conv2d | None,
    ) -> None:
        super().__init__()
        self.balance = balance
        self.balance_site = balance_site
        self.stages = nn.ModuleList(stages)
        self.guidance = guidance
        self.up = up

    def forward(
        self,
        x: Tensor,
        skips: list[Tensor],
        embedding: Tensor,
        text: Tensor | None,
        text_mask: Tensor | None,
        *,
        checkpointing: bool,
    ) -> Tensor:
        if self.balance is not None and self.balance_site == "decoder":
            x = _call(self.balance, x, checkpointing=checkpointing)
        elif self.balance is not None:
            skips[-1] = _call(self.balance, skips[-1], checkpointing=checkpointing)
        for stage in self.stages:
            x = _call(stage, torch.cat([x, skips.pop()], dim=1), embedding, checkpointing=checkpointing)
        if self.guidance is not None:
            x = _call(self.guidance, x, text, text_mask, checkpointing=checkpointing)
        return x if self.up is None else self.up(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class SwinUNet(nn.Module):
    """Swin-UNet of ResShift with Dynamic Frequency Balance and Knowledge Guidance (DFBK; Xu et al.).

    x ``(B, in_channels, H, W)``, t ``(B,)`` integers from 0, text ``(B or 1, L, text_channels)``, text_mask ``(B or 1,
    L)`` -> ``(B, out_channels, H, W)`` in float32, under bfloat16 autocast, too.

    Level i has ``channels * channel_mult[i]`` channels and the image size halved i times. The encoder has
    ``num_res_blocks`` residual blocks a level, the decoder one more; a level in ``attention_resolutions`` has a Swin
    layer after its first block on either side, and the deepest one always has one in the middle. A side r of such a
    level must be at most ``window_size`` or a multiple of it.

    Modules that are switched off are not built, so every parameter takes part in every step.

    Args:
        image_size: (H, W) or a side, in pixels; multiples of ``2**(levels - 1)``.
        in_channels: noisy image and source.
        out_channels: channels of the prediction.
        channels: base width, a multiple of 32.
        channel_mult: width of each level in units of ``channels``; its length is the number of levels.
        num_res_blocks: residual blocks of an encoder level.
        attention_resolutions: shorter sides of the levels with Swin layers.
        window_size: side of a Swin window.
        swin_channels: width inside Swin layers.
        swin_depth: blocks of a Swin layer.
        head_channels: width of every attention head.
        swin_residual: lead the features around Swin layers, too.
        balance: ``"dfb"``, plain self-attention without wavelets (``"norm_attn"``), or nothing.
        balance_low: balance attends on the low band.
        balance_high: balance attends on the high bands.
        balance_site: at the entrance of each decoder level, on the features from below (``"decoder"``) or on the skip
            connection that they meet (``"skip"``).
        balance_max_tokens: most tokens that attend to all others.
        balance_above_cap: where there are more, attend in windows of ``window_size`` tokens or have no balance.
        guidance: ``"kg"``, plain cross-attention without wavelets (``"cross_attn"``), or nothing.
        guidance_low: guidance acts on the low band.
        guidance_high: guidance acts on the high bands.
        guidance_sites: in the middle (``"mid"``), and after the last block of the deepest decoder level (``"dec0"``).
        text_channels: width of a text token.
        band_residual: balance and guidance update what they get, starting at nothing; else they replace it.
        head_norm: normalize the heads of differential attention.
        lambda_init: start of the differential weight; ``"depth"``: ``0.8 - 0.6 exp(-0.3 d)`` at the d-th decoder level,
            the deepest being 0 (in the middle, too).
        checkpointing: recompute stages, balance and guidance in the backward pass to save memory.

    Raises:
        ValueError: a level does not fit the windows, a size does not halve, a width its groups or heads, or an unknown
            choice.
    """

    def __init__(
        self,
        *,
        image_size: int | Sequence[int],
        in_channels: int = 2,
        out_channels: int = 1,
        channels: int = 160,
        channel_mult: Sequence[int] = (1, 1, 2, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (48, 24, 6),
        window_size: int = 8,
        swin_channels: int = 256,
        swin_depth: int = 2,
        head_channels: int = 32,
        swin_residual: bool = False,
        balance: Balance = "dfb",
        balance_low: bool = True,
        balance_high: bool = True,
        balance_site: BalanceSite = "decoder",
        balance_max_tokens: int = 4096,
        balance_above_cap: AboveCap = "window",
        guidance: Guidance = "kg",
        guidance_low: bool = True,
        guidance_high: bool = True,
        guidance_sites: Sequence[GuidanceSite] = ("mid", "dec0"),
        text_channels: int = 768,
        band_residual: bool = True,
        head_norm: bool = True,
        lambda_init: float | Literal["depth"] = 0.8,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_choice("balance", balance, get_args(Balance))
        _check_choice("balance_site", balance_site, get_args(BalanceSite))
        _check_choice("balance_above_cap", balance_above_cap, get_args(AboveCap))
        _check_choice("guidance", guidance, get_args(Guidance))
        for site in guidance_sites:
            _check_choice("guidance_sites", site, get_args(GuidanceSite))
        if isinstance(lambda_init, str):
            _check_choice("lambda_init", lambda_init, ("depth",))
        self.image_size = _pair(image_size)
        self.in_channels, self.text_channels, self.checkpointing = in_channels, text_channels, checkpointing
        self.channels = channels
        sizes = _level_sizes(self.image_size, len(channel_mult))
        _check_windows(sizes, attention_resolutions, window_size)
        self._settings: dict[str, int | float | str] = {
            "image_size": _join(self.image_size),
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": channels,
            "channel_mult": _join(channel_mult),
            "num_res_blocks": num_res_blocks,
            "attention_resolutions": _join(sorted(attention_resolutions, reverse=True)),
            "window_size": window_size,
            "swin_channels": swin_channels,
            "swin_depth": swin_depth,
            "head_channels": head_channels,
            "swin_residual": int(swin_residual),
            "balance": balance,
            "balance_low": int(balance_low),
            "balance_high": int(balance_high),
            "balance_site": balance_site,
            "balance_max_tokens": balance_max_tokens,
            "balance_above_cap": balance_above_cap,
            "guidance": guidance,
            "guidance_low": int(guidance_low),
            "guidance_high": int(guidance_high),
            "guidance_sites": _join(guidance_sites),
            "text_channels": text_channels,
            "band_residual": int(band_residual),
            "head_norm": int(head_norm),
            "lambda_init": lambda_init if isinstance(lambda_init, str) else float(lambda_init),
        }

        time_channels, deepest = 4 * channels, len(channel_mult) - 1
        swin_layer = partial(
            SwinLayer,
            window=window_size,
            swin_channels=swin_channels,
            depth=swin_depth,
            head_channels=head_channels,
            residual=swin_residual,
        )

        def stage(level: int, width_in: int, *, swin: bool) -> Stage:
            width = channels * channel_mult[level]
            residual = ResidualBlock(width_in, width, time_channels=time_channels)
            return Stage(residual, swin_layer(width, size=sizes[level]) if swin else None)

        def start_of_lambda(depth: int) -> float:
            return 0.8 - 0.6 * math.exp(-0.3 * depth) if isinstance(lambda_init, str) else float(lambda_init)

        def balancing(level: int, width: int) -> FrequencyBalance | PlainBalance | None:
            if balance == "none" or (balance == "dfb" and not (balance_low or balance_high)):
                return None
            grid = sizes[level] if balance == "norm_attn" else _half(sizes[level])
            window = None
            if math.prod(grid) > balance_max_tokens:
                if balance_above_cap == "none":
                    return None
                window = _balance_window(grid, window_size, balance_max_tokens)
            if balance == "norm_attn":
                return PlainBalance(width, head_channels=head_channels, residual=band_residual, window=window)
            return FrequencyBalance(
                width,
                head_channels=head_channels,
                low=balance_low,
                high=balance_high,
                lambda_init=start_of_lambda(deepest - level),
                head_norm=head_norm,
                residual=band_residual,
                window=window,
            )

        def guiding(site: GuidanceSite, width: int) -> KnowledgeGuidance | PlainGuidance | None:
            switched_off = guidance == "kg" and not (guidance_low or guidance_high)
            if guidance == "none" or site not in guidance_sites or switched_off:
                return None
            if guidance == "cross_attn":
                return PlainGuidance(
                    width, text_channels=text_channels, head_channels=head_channels, residual=band_residual
                )
            return KnowledgeGuidance(
                width,
                text_channels=text_channels,
                head_channels=head_channels,
                low=guidance_low,
                high=guidance_high,
                lambda_init=start_of_lambda(0),
                head_norm=head_norm,
                residual=band_residual,
            )

        self.time_embedding = nn.Sequential(
            nn.Linear(channels, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels)
        )
        self.input = nn.Conv2d(in_channels, channels, 3, padding=1)
        width, skips = channels, [channels]
        self.encoder = nn.ModuleList()
        for level in range(deepest + 1):
            stages = []
            for index in range(num_res_blocks):
                swin = index == 0 and min(sizes[level]) in attention_resolutions
                stages.append(stage(level, width, swin=swin))
                width = channels * channel_mult[level]
                skips.append(width)
            down = None
            if level < deepest:
                down = nn.Conv2d(width, width, 3, stride=2, padding=1)
                skips.append(width)
            self.encoder.append(EncoderLevel(stages, down))

        self.mid_entry = stage(deepest, width, swin=True)
        self.mid_guidance = guiding("mid", width)
        self.mid_exit = stage(deepest, width, swin=False)

        self.decoder = nn.ModuleList()
        for level in range(deepest, -1, -1):
            level_balance = balancing(level, width if balance_site == "decoder" else skips[-1])
            stages = []
            for index in range(num_res_blocks + 1):
                swin = index == 0 and min(sizes[level]) in attention_resolutions
                stages.append(stage(level, width + skips.pop(), swin=swin))
                width = channels * channel_mult[level]
            level_guidance = guiding("dec0", width) if level == deepest else None
            up = nn.Conv2d(width, width, 3, padding=1) if level > 0 else None
            self.decoder.append(DecoderLevel(level_balance, balance_site, stages, level_guidance, up))

        self.output_norm = GroupNorm(width)
        self.output = nn.Conv2d(width, out_channels, 3, padding=1)
        guided = any(isinstance(module, KnowledgeGuidance | PlainGuidance) for module in self.modules())
        self.guidance: Guidance = guidance if guided else "none"  # what was built
        self.to(memory_format=torch.channels_last)  # of the kernels, as of the features in forward: much faster

    def forward(self, x: Tensor, t: Tensor, text: Tensor | None = None, text_mask: Tensor | None = None) -> Tensor:
        self._check_input(x, t, text, text_mask)
        embedding = self.time_embedding(sinusoidal_embedding(t, self.channels, time_scale=1.0))  # (B, 4 channels)
        skips = [self.input(x.contiguous(memory_format=torch.channels_last))]  # (B, channels, H, W)
        for level in self.encoder:
            skips.extend(level(skips[-1], embedding, checkpointing=self.checkpointing))
        h = _call(self.mid_entry, skips[-1], embedding, checkpointing=self.checkpointing)
        if self.mid_guidance is not None:
            h = _call(self.mid_guidance, h, text, text_mask, checkpointing=self.checkpointing)
        h = _call(self.mid_exit, h, embedding, checkpointing=self.checkpointing)
        for level in self.decoder:
            h = level(h, skips, embedding, text, text_mask, checkpointing=self.checkpointing)
        h = F.silu(self.output_norm(h))
        with full_precision(h.device):  # bfloat16 would cut the prediction to 8 bits
            return self.output(h.float())

    def settings(self) -> dict[str, int | float | str]:
        """What the shapes of the weights do not tell in full but a checkpoint must agree with."""
        return dict(self._settings)

    def _check_input(self, x: Tensor, t: Tensor, text: Tensor | None, text_mask: Tensor | None) -> None:
        expected = (self.in_channels, *self.image_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"SwinUNet: got input of shape {tuple(x.shape)}; this network takes "
                f"(B, {', '.join(map(str, expected))}). Crop, pad or resize the images to the size it was trained on, "
                "or build it with another image_size."
            )
        if t.shape != x.shape[:1]:
            raise ValueError(f"SwinUNet: got times of shape {tuple(t.shape)}; give one per image, ({len(x)},).")
        if self.guidance == "none":
            if text is not None:
                raise ValueError("SwinUNet: text given, but the network was built without guidance.")
            return
        if text is None:
            raise ValueError(
                "SwinUNet: text missing; the network was built with guidance by text. Give tokens of shape "
                f"(B or 1, L, {self.text_channels}), or build it with guidance='none'."
            )
        if text.ndim != 3 or len(text) not in (1, len(x)) or text.shape[2] != self.text_channels:
            raise ValueError(
                f"SwinUNet: got text of shape {tuple(text.shape)}; this network takes "
                f"({len(x)} or 1, L, {self.text_channels})."
            )
        if text_mask is not None and (
            text_mask.dtype != torch.bool or len(text_mask) not in (1, len(x)) or text_mask.shape[1:] != text.shape[1:2]
        ):
            raise ValueError(
                f"SwinUNet: got a text_mask of {text_mask.dtype} and shape {tuple(text_mask.shape)}; for this text it "
                f"must be boolean, true at real tokens, and ({len(x)} or 1, {text.shape[1]})."
            )


def _call(module: nn.Module, *inputs: Tensor | None, checkpointing: bool) -> Tensor:
    """The module's output; with ``checkpointing``, what lies inside is computed again in the backward pass."""
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False)
    return module(*inputs)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"SwinUNet: {name}={value!r} is unknown; choose one of {', '.join(choices)}.")


def _half(size: tuple[int, int]) -> tuple[int, int]:
    """Size of a wavelet band."""
    return -(-size[0] // 2), -(-size[1] // 2)


def _join(values: Sequence[int | str]) -> str:
    return ",".join(str(value) for value in values)


def _pair(image_size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return int(height), int(width)


def _level_sizes(image_size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """(H, W) of each level."""
    factor = 2 ** (levels - 1)
    if any(side < factor or side % factor for side in image_size):
        raise ValueError(
            f"SwinUNet: image_size={image_size[0]}x{image_size[1]} does not halve {levels - 1} times, as the {levels} "
            f"levels of channel_mult need; pad to multiples of {factor}."
        )
    return [(image_size[0] >> level, image_size[1] >> level) for level in range(levels)]


def _check_windows(sizes: Sequence[tuple[int, int]], attention_resolutions: Sequence[int], window: int) -> None:
    """Refuse Swin layers at levels that windows of the given side do not tile."""
    legal = [size for size in sizes if all(fits_windows(side, window) for side in size)]
    allowed = ", ".join(f"{height}x{width}" for height, width in legal) or "none"
    rule = f"allowed are sides up to {window} and multiples of {window}, of this network's levels {allowed}"
    for resolution in attention_resolutions:
        if resolution not in [min(size) for size in sizes]:
            raise ValueError(
                f"SwinUNet: attention_resolutions has {resolution}, but the levels' shorter sides are "
                f"{', '.join(str(min(size)) for size in sizes)}."
            )
    for size in sizes:
        if min(size) in attention_resolutions and size not in legal:
            raise ValueError(
                f"SwinUNet: a Swin layer at size {size[0]}x{size[1]} is impossible with window_size={window}; {rule}."
            )
    if sizes[-1] not in legal:
        raise ValueError(
            f"SwinUNet: the deepest level of size {sizes[-1][0]}x{sizes[-1][1]} always has a Swin layer, which is "
            f"impossible with window_size={window}; {rule}. Change the number of levels (channel_mult), window_size "
            "or image_size."
        )


def _balance_window(grid: tuple[int, int], window: int, max_tokens: int) -> tuple[int, int]:
    if not all(fits_windows(side, window) for side in grid):
        raise ValueError(
            f"SwinUNet: balance on {grid[0]}x{grid[1]} tokens, more than balance_max_tokens={max_tokens}, would attend "
            f"in windows of window_size={window}, which do not tile them; raise balance_max_tokens, choose another "
            "window_size or balance_above_cap='none'."
        )
    return min(grid[0], window), min(grid[1], window)
