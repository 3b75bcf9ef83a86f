"""Translation of one modality into another by residual shifting: all that a checkpoint of DFBK holds."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ...diffusion.residual_shift import input_scale, residual_shift_schedule
from ..blocks.compatibility import refuse, settings_differences, weight_differences
from ..blocks.recorded_settings import RecordedSettings, decode_setting, encode_setting
from .swin_unet import SwinUNet

_LEARNED_TOKENS = 64


class Knowledge(Protocol):
    """Tokens that describe the task, and where they come from; ``common.data.text_embeddings.TextTokens`` is one."""

    @property
    def tokens(self) -> Tensor: ...

    @property
    def provenance(self) -> str: ...

    @property
    def prompt_hash(self) -> str: ...


class ResidualShiftTranslator(nn.Module):
    """A backbone that estimates the target slice, with the noise schedule, the task and its description.

    x_t ``(B, 1, X, Y)``, t ``(B,)`` 1-based, source ``(B, 1, X, Y)`` in [-1, 1] -> estimate of the target
    ``(B, 1, X, Y)`` in float32, under autocast, too (Xu et al., eq. 4; the backbone sees ``x_t / c_t`` and the source).

    The state dict records size, schedule, task, architecture, the description's tokens and the intensity that is white
    in the target. A state dict made for another network is refused with one message before anything is loaded; what
    the network was built without (tokens, intensity) is taken from it.

    Args:
        backbone: network on (x_t, source) with one output channel.
        source, target: names of the modalities, as the data set calls them.
        num_steps, kappa, min_noise, power, sqrt_eta_end: the schedule, see ``residual_shift_schedule``.
        pixel_mm: pixel size of the training slices; 0 if it was not fixed.
        fit: how slices were brought to the image size, see ``FitInPlane``.
        knowledge: ``"stored"``: the backbone is guided by the tokens of a description; ``"learned"``: by tokens that
            are trained like weights, without any description. Of no effect for a backbone without guidance.
        text: the description; None: it comes with the checkpoint.
        target_level: intensity that is white (+1) in the target, in the target's unit, where it is not fixed (MR):
            median over the training volumes. None: it comes with the checkpoint.
    """

    text_tokens: Tensor
    text_provenance: Tensor
    prompt_hash: Tensor
    target_level: Tensor

    def __init__(
        self,
        backbone: SwinUNet,
        source: str,
        target: str,
        *,
        num_steps: int = 4,
        kappa: float = 2.0,
        min_noise: float = 0.2,
        power: float = 0.3,
        sqrt_eta_end: float = 0.99,
        pixel_mm: float = 0.0,
        fit: str = "crop",
        knowledge: Literal["stored", "learned"] = "stored",
        text: Knowledge | None = None,
        target_level: float | None = None,
    ) -> None:
        super().__init__()
        if source == target:
            raise ValueError(f"ResidualShiftTranslator: source and target are both {source!r}; name two modalities.")
        if knowledge not in ("stored", "learned"):
            raise ValueError(f"ResidualShiftTranslator: knowledge={knowledge!r} must be 'stored' or 'learned'.")
        self.backbone = backbone
        self.source, self.target = source, target
        schedule = {
            "num_steps": num_steps,
            "kappa": float(kappa),
            "min_noise": float(min_noise),
            "power": float(power),
            "sqrt_eta_end": float(sqrt_eta_end),
        }
        self.schedule = residual_shift_schedule(num_steps, kappa, min_noise, power, sqrt_eta_end)
        self.guided = backbone.guidance != "none"
        self.knowledge = knowledge if self.guided else "none"
        self.settings = RecordedSettings(
            {
                "source": source,
                "target": target,
                "pixel_mm": float(pixel_mm),
                "fit": fit,
                "knowledge": self.knowledge,
                **schedule,
                **backbone.settings(),
            }
        )
        width = backbone.text_channels
        self.learned_tokens = (
            nn.Parameter(0.02 * torch.randn(_LEARNED_TOKENS, width)) if self.knowledge == "learned" else None
        )
        stored = text if self.knowledge == "stored" else None
        self.register_buffer("text_tokens", torch.empty(0, width) if stored is None else stored.tokens.float())
        self.register_buffer("text_provenance", encode_setting("" if stored is None else stored.provenance))
        self.register_buffer("prompt_hash", encode_setting("" if stored is None else stored.prompt_hash))
        self.register_buffer("target_level", torch.tensor(torch.nan if target_level is None else float(target_level)))

    @property
    def image_size(self) -> tuple[int, int]:
        """(X, Y) in pixels."""
        return self.backbone.image_size

    @property
    def provenance(self) -> str:
        """Where the description's tokens come from, ``""`` without any."""
        return str(decode_setting(self.text_provenance)) if self.knowledge == "stored" else self.knowledge

    def forward(self, x_t: Tensor, t: Tensor, source: Tensor) -> Tensor:
        """Estimate of the target, ``(B, 1, X, Y)``."""
        scaled = x_t / input_scale(self.schedule, t, x_t)
        tokens = self.text_tokens if self.learned_tokens is None else self.learned_tokens
        text = tokens[None] if self.guided else None  # (1, L, width)
        return self.backbone(torch.cat([scaled, source], dim=1), t - 1, text).float()

    def check_ready(self) -> None:
        """Raise ``RuntimeError`` unless the task is described (for a guided backbone)."""
        if self.knowledge == "stored" and not len(self.text_tokens):
            raise RuntimeError(
                "ResidualShiftTranslator: the network is guided by a description of the task, and none was given; load "
                "a checkpoint (models/model.pt) into it or build it with `text`."
            )

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        lines = settings_differences("ResidualShiftTranslator", self.settings, state_dict, prefix)
        lines = lines or weight_differences(self.backbone, state_dict, prefix, "backbone")
        lines = lines or self._knowledge_differences(state_dict, prefix)
        refuse("ResidualShiftTranslator", lines)

    def _knowledge_differences(self, state_dict: Mapping[str, Tensor], prefix: str) -> list[str]:
        lines = [
            f"{name}: not in the checkpoint"
            for name in ("text_tokens", "text_provenance", "prompt_hash", "target_level")
            if prefix + name not in state_dict
        ]
        if lines or not len(self.text_tokens):
            return lines
        for name, title in (("text_provenance", "provenance of the description"), ("prompt_hash", "hash of its text")):
            theirs, ours = decode_setting(state_dict[prefix + name]), decode_setting(self.get_buffer(name))
            if theirs != ours:
                lines.append(f"{title}: checkpoint {theirs!r}, this network {ours!r}")
        return lines

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        for name in ("text_tokens", "text_provenance", "prompt_hash"):  # their length is the checkpoint's
            self.register_buffer(name, torch.empty_like(state_dict[prefix + name], device=self.target_level.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
