"""Images for label maps by diffusion in a latent space: all that a checkpoint of FQCDM holds."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from monai.networks.nets import SPADEDiffusionModelUNet
from torch import Tensor, nn
from torch.nn import functional as F

from ...diffusion.gaussian import linear_schedule
from ...diffusion.tables import rows
from ..blocks.compatibility import has_settings, refuse, settings_differences, weight_differences
from ..blocks.plain_modulation import plain_modulation
from ..blocks.recorded_settings import RecordedSettings, decode_setting, encode_setting
from .pixel_space import PixelSpace
from .quantized_autoencoder import QuantizedAutoencoder

LabelResize = Literal["nearest", "area"]
Prediction = Literal["epsilon", "v_prediction"]

_SPACES = {"quantized": QuantizedAutoencoder, "pixel": PixelSpace}
_RECORDED = (
    "space",
    "autoencoder",
    "label_values",
    "width",
    "height",
    "spacing_mm",
    "window_low",
    "window_high",
    "axcodes",
    "crop_about",
    "channels",
    "num_res_blocks",
    "attention_levels",
    "num_head_channels",
    "norm_groups",
    "spade_channels",
    "num_train_steps",
    "beta_start",
    "beta_end",
    "label_resize",
    "prediction",
)
_PARTS = ("backbone", "autoencoder")
_STATISTICS = ("latent_mean", "latent_std")
_FULL_NOISE = 0.01  # share of the signal's variance that may be left in pure noise


class LabelGuidedSynthesizer(nn.Module):
    """Noise prediction for latents under a label map: frozen autoencoder, denoiser, statistics and schedule in one.

    x_t ``(B, C, h, w)``, t ``(B,)`` steps 0..T-1, guide ``(B, K, h, w)`` -> noise ``(B, C, h, w)`` float32. The guide
    reaches the denoiser's decoder only, as spatially adaptive normalization (FQCDM, eq. 9). The chain works on
    standardized continuous latents, ``(E(image) - mean) / std`` per channel; its end is snapped to the codebook.

    The autoencoder is frozen and in evaluation mode whatever mode the rest is in. The state dict records all settings,
    so that :meth:`from_state_dict` builds the whole from a file alone; one that was made for another network or
    autoencoder is refused with one message before anything is loaded.

    Args:
        autoencoder: the space that is diffused in.
        label_values: value in label files -> index 0..K-1; several values may have one index.
        image_size: (X, Y) of the slices in pixels.
        spacing_mm: pixel size of the slices, None: that of each file.
        window: lower and upper bound of the recipe's intensity scaling (HU), (0, 1) where it goes by percentiles.
        axcodes: orientation of the volumes that slices are cut from, e.g. "RAS"; None: as each file has it.
        crop_about: what the recipe's crop is centered on, "image" or "label".
        channels, num_res_blocks, attention_levels, num_head_channels, norm_groups, spade_channels: of
            ``SPADEDiffusionModelUNet``, one entry per level, at the latent's size first.
        num_train_steps, beta_start, beta_end: see ``linear_schedule``.
        label_resize: ``"nearest"``: the guide is one-hot; ``"area"``: shares of the classes in each latent pixel.
        prediction: ``"epsilon"``: the denoiser's output is the noise; ``"v_prediction"``: it is the v of
            ``noise = sqrt(1 - A_t) x_t + sqrt(A_t) v``, what is left of the noise after the best guess for latents of
            unit variance. An error of v then stays one all along the chain, while one of the noise grows.
        statistics: mean and std (C,) of the training set's latents; None: loaded later.

    Raises:
        ValueError: values that do not fit together.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        *,
        autoencoder: QuantizedAutoencoder | PixelSpace,
        label_values: Mapping[int, int],
        image_size: Sequence[int],
        spacing_mm: float | None,
        window: Sequence[float] = (0.0, 1.0),
        axcodes: str | None = None,
        crop_about: str = "image",
        channels: Sequence[int] = (128, 256, 256),
        num_res_blocks: int = 2,
        attention_levels: Sequence[bool] = (False, True, True),
        num_head_channels: Sequence[int] = (0, 32, 32),
        norm_groups: int = 32,
        spade_channels: int = 128,
        num_train_steps: int = 100,
        beta_start: float = 1e-3,
        beta_end: float = 0.2,
        label_resize: LabelResize = "nearest",
        prediction: Prediction = "epsilon",
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if label_resize not in get_args(LabelResize):
            raise ValueError(f"LabelGuidedSynthesizer: label_resize={label_resize!r} must be 'nearest' or 'area'.")
        if prediction not in get_args(Prediction):
            raise ValueError(f"LabelGuidedSynthesizer: prediction={prediction!r} must be 'epsilon' or 'v_prediction'.")
        if spacing_mm is not None and not spacing_mm > 0:
            raise ValueError(f"LabelGuidedSynthesizer: spacing_mm={spacing_mm} must be positive, or None.")
        self.label_values = {int(value): int(index) for value, index in label_values.items()}
        self.num_classes = _count_classes(self.label_values)
        self.image_size = _check_size(image_size, autoencoder.factor, len(channels))
        _check_widths(channels, attention_levels, num_head_channels, norm_groups)
        self.spacing_mm = None if spacing_mm is None else float(spacing_mm)
        self.window = (float(window[0]), float(window[1]))
        self.axcodes, self.crop_about = axcodes, crop_about
        self.label_resize: LabelResize = label_resize
        self.prediction: Prediction = prediction
        self.latent_channels, factor = autoencoder.latent_channels, autoencoder.factor
        self.latent_size = (self.image_size[0] // factor, self.image_size[1] // factor)
        self.schedule = linear_schedule(num_train_steps, beta_start, beta_end)
        self.autoencoder = autoencoder.freeze().eval()
        self.backbone = SPADEDiffusionModelUNet(
            spatial_dims=2,
            in_channels=self.latent_channels,
            out_channels=self.latent_channels,
            label_nc=self.num_classes,
            channels=tuple(channels),
            num_res_blocks=num_res_blocks,
            attention_levels=tuple(attention_levels),
            num_head_channels=tuple(num_head_channels),
            norm_num_groups=norm_groups,
            spade_intermediate_channels=spade_channels,
            use_flash_attention=True,
        )
        plain_modulation(self.backbone)
        unknown = torch.full((self.latent_channels,), torch.nan)
        self.register_buffer("latent_mean", unknown.clone())
        self.register_buffer("latent_std", unknown.clone())
        if statistics is not None:
            self.set_statistics(*statistics)
        self.settings = RecordedSettings(
            {
                "space": next(name for name, space in _SPACES.items() if isinstance(autoencoder, space)),
                "autoencoder": autoencoder.identity,
                "label_values": ",".join(f"{value}:{index}" for value, index in sorted(self.label_values.items())),
                "width": self.image_size[0],
                "height": self.image_size[1],
                "spacing_mm": self.spacing_mm or 0.0,
                "window_low": self.window[0],
                "window_high": self.window[1],
                "axcodes": axcodes or "",
                "crop_about": crop_about,
                "channels": _listed(channels),
                "num_res_blocks": num_res_blocks,
                "attention_levels": _listed(attention_levels),
                "num_head_channels": _listed(num_head_channels),
                "norm_groups": norm_groups,
                "spade_channels": spade_channels,
                "num_train_steps": num_train_steps,
                "beta_start": float(beta_start),
                "beta_end": float(beta_end),
                "label_resize": label_resize,
                "prediction": prediction,
            }
        )

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> "LabelGuidedSynthesizer":
        """The network that a state dict describes, with its autoencoder, weights and statistics, in evaluation mode.

        Raises:
            ValueError: it describes none, or not the one whose weights it holds.
        """
        absent = [f"{name}: not recorded" for name in _RECORDED if f"settings.{name}" not in state_dict]
        refuse("LabelGuidedSynthesizer", absent)
        recorded: dict[str, Any] = {name: decode_setting(state_dict[f"settings.{name}"]) for name in _RECORDED}
        prefix = "autoencoder."
        inner = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        space, _ = recorded.pop("space"), recorded.pop("autoencoder")
        pairs = [pair.split(":") for pair in recorded.pop("label_values").split(",")]
        network = cls(
            autoencoder=QuantizedAutoencoder.from_state_dict(inner) if space == "quantized" else PixelSpace(),
            label_values={int(value): int(index) for value, index in pairs},
            image_size=(recorded.pop("width"), recorded.pop("height")),
            spacing_mm=recorded.pop("spacing_mm") or None,
            window=(recorded.pop("window_low"), recorded.pop("window_high")),
            axcodes=recorded.pop("axcodes") or None,
            channels=_numbers(recorded.pop("channels")),
            attention_levels=[bool(flag) for flag in _numbers(recorded.pop("attention_levels"))],
            num_head_channels=_numbers(recorded.pop("num_head_channels")),
            **recorded,
        )
        network.load_state_dict(state_dict)
        return network.eval()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return (self.latent_channels, *self.latent_size)

    @property
    def schedule_name(self) -> str:
        """For results: figures of different schedules do not compare."""
        betas = self.settings()
        return f"linear {betas['beta_start']:g} to {betas['beta_end']:g}, T={self.schedule.num_steps}"

    @property
    def full_noise(self) -> bool:
        """Whether the last step holds at most 1 % of the signal's variance, so that a chain may start from noise."""
        return float(self.schedule.alpha_bar[-1]) <= _FULL_NOISE

    def train(self, mode: bool = True) -> "LabelGuidedSynthesizer":
        """Training mode for all but the autoencoder."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def forward(self, x_t: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        """Predicted noise ``(B, C, h, w)``, float32, under autocast, too."""
        output = self.backbone(x=x_t, timesteps=t, seg=guide).float()
        if self.prediction == "epsilon":
            return output
        a = self.schedule.alpha_bar
        return rows((1 - a).sqrt(), t, output) * x_t + rows(a.sqrt(), t, output) * output

    def guide(self, label: Tensor) -> Tensor:
        """Class indices ``(B, 1, X, Y)`` -> what the denoiser sees of them, ``(B, K, h, w)`` float32.

        One channel per class first, then resized: indices themselves would put the classes in an order.
        """
        classes = torch.arange(self.num_classes, device=label.device).reshape(1, -1, 1, 1)
        one_hot = (label == classes).float()  # (B, K, X, Y)
        if self.label_resize == "area":
            return F.interpolate(one_hot, size=self.latent_size, mode="area")
        # the pixel next to the middle of each latent pixel; plain "nearest" would take that in its corner
        return F.interpolate(one_hot, size=self.latent_size, mode="nearest-exact")

    def null_guide(self, like: Tensor) -> Tensor:
        """The guide that says nothing about the labels: no class anywhere, not background everywhere."""
        return torch.zeros_like(like)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation (C,) of the training set's latents.

        Raises:
            ValueError: another number of channels, or a deviation that is not positive and finite.
        """
        shape = (self.latent_channels,)
        if tuple(mean.shape) != shape or tuple(std.shape) != shape:
            raise ValueError(
                f"LabelGuidedSynthesizer: statistics of shapes {tuple(mean.shape)} and {tuple(std.shape)}; the "
                f"autoencoder has {self.latent_channels} channels, so both must be {shape}."
            )
        if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            raise ValueError(
                f"LabelGuidedSynthesizer: latents of mean {mean.tolist()} and standard deviation {std.tolist()} cannot "
                "be standardized. A channel of the autoencoder is constant, or its training diverged."
            )
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def standardize(self, latent: Tensor) -> Tensor:
        """Latents ``(B, C, h, w)`` to mean 0 and variance 1 per channel over the training set."""
        return (latent - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def destandardize(self, x0: Tensor) -> Tensor:
        """Invert :meth:`standardize`."""
        return x0 * self.latent_std[:, None, None] + self.latent_mean[:, None, None]

    def x0_range(self) -> tuple[Tensor, Tensor]:
        """Bounds ``(C, 1, 1)`` of standardized latents that the decoder has a use for: those of the codebook."""
        low, high = (bound.to(self.latent_mean)[:, None, None] for bound in self.autoencoder.latent_range())
        return self.standardize(low), self.standardize(high)

    def encode(self, image: Tensor) -> Tensor:
        """Images ``(B, 1, X, Y)`` in [0, 1] -> standardized continuous latents ``(B, C, h, w)``."""
        return self.standardize(self.autoencoder.encode(image))

    def decode(self, x0: Tensor, quantize: bool = True) -> Tensor:
        """Standardized latents -> images in [0, 1], through the codebook unless ``quantize`` is False."""
        return self.autoencoder.decode(self.destandardize(x0), quantize=quantize)

    def check_ready(self) -> None:
        """Raise ``ValueError`` if the statistics of the latents are not known."""
        if not bool((self.latent_std > 0).all()):
            raise ValueError(
                "LabelGuidedSynthesizer: mean and standard deviation of the latents are not known. Give them as "
                "`statistics` (LabelledLatents.moments() measures them), or load trained weights."
            )

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        lines = settings_differences("LabelGuidedSynthesizer", self.settings, state_dict, prefix)
        if has_settings(state_dict, prefix) and not lines:
            for name in _PARTS:
                lines += weight_differences(getattr(self, name), state_dict, prefix, name)
            lines += [f"{name}: not in the checkpoint" for name in _STATISTICS if f"{prefix}{name}" not in state_dict]
        refuse("LabelGuidedSynthesizer", lines)

    def record_autoencoder(self, identity: str) -> None:
        """Change what the settings say about the autoencoder, for one that is trained along."""
        self.settings.autoencoder = encode_setting(identity).to(self.latent_mean.device)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _count_classes(label_values: Mapping[int, int]) -> int:
    """K; the indices must be 0..K-1, K >= 2."""
    indices = sorted(set(label_values.values()))
    if len(indices) < 2 or indices != list(range(len(indices))):
        raise ValueError(
            f"LabelGuidedSynthesizer: label_values={dict(label_values)} must give the indices 0..K-1, at least two of "
            "them and without gaps."
        )
    return len(indices)


def _check_size(image_size: Sequence[int], factor: int, levels: int) -> tuple[int, int]:
    multiple = factor * 2 ** (levels - 1)
    if len(image_size) != 2 or any(side < multiple or side % multiple for side in image_size):
        raise ValueError(
            f"LabelGuidedSynthesizer: image_size={list(image_size)} must be two multiples of {multiple}: the "
            f"autoencoder has {factor} pixels per latent pixel along each axis, and the denoiser halves the latent "
            f"{levels - 1} times."
        )
    return int(image_size[0]), int(image_size[1])


def _check_widths(
    channels: Sequence[int], attention_levels: Sequence[bool], num_head_channels: Sequence[int], norm_groups: int
) -> None:
    """Raise one ``ValueError`` naming the first thing in which the denoiser's levels do not fit together."""
    if not len(channels) == len(attention_levels) == len(num_head_channels) > 0:
        raise ValueError(
            f"LabelGuidedSynthesizer: channels, attention_levels and num_head_channels have {len(channels)}, "
            f"{len(attention_levels)} and {len(num_head_channels)} entries; each needs one per level."
        )
    if any(width % norm_groups for width in channels):
        raise ValueError(
            f"LabelGuidedSynthesizer: channels={list(channels)} must be multiples of norm_groups={norm_groups}."
        )
    # the middle of the network has attention with the last level's heads, whether that level itself has or not
    attended = [*attention_levels[:-1], True]
    heads = zip(channels, attended, num_head_channels, strict=True)
    if any(attends and (head < 1 or width % head) for width, attends, head in heads):
        raise ValueError(
            f"LabelGuidedSynthesizer: num_head_channels={list(num_head_channels)} must divide channels="
            f"{list(channels)} where there is attention, and at the last level."
        )


def _listed(values: Sequence[int] | Sequence[bool]) -> str:
    return ",".join(str(int(value)) for value in values)


def _numbers(listed: str) -> list[int]:
    return [int(value) for value in listed.split(",")]
