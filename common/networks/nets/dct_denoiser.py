"""Noise prediction for images in the frequency domain: all that a checkpoint of DCT-MoE holds."""

import logging
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ...diffusion.continuous import VPSchedule, residual_coefficients
from ...frequency.codec import crop, decode_folded, encode_folded, folded_inverse, folded_matrix, pad_to_tokens
from ...frequency.statistics import CoefficientStatistics
from ..blocks.compatibility import has_settings, refuse, settings_differences, weight_differences
from ..blocks.recorded_settings import RecordedSettings
from .u_vit import UViT

Prediction = Literal["eps", "eps_residual"]

_STATISTICS = ("eta", "mean", "std", "minimum", "maximum", "entropy")
_TOKEN_LIMIT = 2.0  # data stay within +-1.02 of eta

logger = logging.getLogger(__name__)


class DCTDenoiser(nn.Module):
    """A backbone that predicts noise on DCT tokens, with the codec and the statistics it was trained with.

    x_t ``(B, T, F)``, t ``(B,)`` -> noise ``(B, T, F)`` in float32, under autocast, too. T and F follow from the image
    size, ``block`` and ``dropped``: ``T = ceil(H / 2b) ceil(W / 2b)``, ``F = 4 (b**2 - dropped)``.

    The state dict records size, codec, prediction, schedule, architecture and statistics. A state dict made for
    another network is refused with one message before anything is loaded; statistics are taken from it when the
    network was built without.

    Args:
        backbone: network on tokens.
        image_size: (H, W) in pixels; padded to whole tokens inside.
        block: side b of a DCT block in pixels.
        dropped: highest zigzag frequencies cut off per block (the paper's m).
        shift: grey level that becomes 0.
        prediction: ``"eps"``: the backbone's output is the noise (the paper); ``"eps_residual"``: it is added, at unit
            variance, to the exact answer for independent Gaussian coefficients (:meth:`forward`).
        snr_scale: factor on the signal-to-noise ratio of the schedule at every time.
        statistics: of the training images' coefficients; without them the network can only be loaded into.
    """

    eta: Tensor
    mean: Tensor
    std: Tensor
    minimum: Tensor
    maximum: Tensor
    entropy: Tensor
    analysis: Tensor
    synthesis: Tensor

    def __init__(
        self,
        backbone: UViT,
        image_size: tuple[int, int],
        block: int,
        dropped: int = 0,
        shift: float = 128.0,
        prediction: Prediction = "eps",
        snr_scale: float = 4.0,
        statistics: CoefficientStatistics | None = None,
    ) -> None:
        super().__init__()
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"DCTDenoiser: prediction={prediction!r} is unknown; choose one of {', '.join(get_args(Prediction))}."
            )
        height, width = (int(side) for side in image_size)
        self.image_size = (height, width)
        self.block, self.dropped, self.shift, self.prediction = block, dropped, float(shift), prediction
        self.schedule = VPSchedule(snr_scale=float(snr_scale))
        self.register_buffer("analysis", folded_matrix(block, dropped, 1.0), persistent=False)  # (b*b, K)
        self.register_buffer("synthesis", folded_inverse(block, dropped, 1.0), persistent=False)  # (K, b*b)
        num_coefficients = self.analysis.shape[1]
        self.grid = (-(-height // (2 * block)), -(-width // (2 * block)))
        if (backbone.grid, backbone.num_features) != (self.grid, 4 * num_coefficients):
            raise ValueError(
                f"DCTDenoiser: images of {height}x{width} px in blocks of {block} with {dropped} coefficients dropped "
                f"make a grid of {self.grid} tokens of {4 * num_coefficients} features, but the backbone was built for "
                f"grid={backbone.grid}, num_features={backbone.num_features}; change one of the two."
            )
        self.backbone = backbone
        self.settings = RecordedSettings(
            {
                "height": height,
                "width": width,
                "block": block,
                "dropped": dropped,
                "shift": self.shift,
                "prediction": prediction,
                "snr_scale": float(snr_scale),
                **backbone.settings(),
            }
        )
        self.register_buffer("eta", torch.tensor(torch.nan))
        for name in _STATISTICS[1:]:
            self.register_buffer(name, torch.full((num_coefficients,), torch.nan))
        self._ready = False
        if statistics is not None:
            self.set_statistics(statistics)

    def set_statistics(self, statistics: CoefficientStatistics) -> None:
        """Take over eta and the per-coefficient statistics; they must describe the same codec."""
        ours = {"block": self.block, "dropped": self.dropped, "shift": self.shift}
        lines = [
            f"{name}: statistics {getattr(statistics, name)}, this network {value}"
            for name, value in ours.items()
            if getattr(statistics, name) != value
        ]
        if lines:
            raise ValueError(
                "DCTDenoiser: the coefficient statistics were computed for another codec:\n  "
                + "\n  ".join(lines)
                + "\nCompute them again with these values."
            )
        self.eta.fill_(statistics.eta)
        for name in _STATISTICS[1:]:
            self.get_buffer(name).copy_(getattr(statistics, name))

    @property
    def token_shape(self) -> tuple[int, int]:
        """(T, F)."""
        return self.backbone.num_tokens, self.backbone.num_features

    def forward(self, x_t: Tensor, t: Tensor, *, return_router: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Predicted noise ``(B, T, F)``; with ``return_router`` also the backbone's router probabilities.

        ``eps_residual``, for coefficient k with mean mu and standard deviation s over the training set:
        ``eps = sigma (x_t - alpha mu) / V + alpha s / sqrt(V) net((x_t - alpha mu) / sqrt(V), t)``,
        ``V = alpha**2 s**2 + sigma**2``. Its first term is E[noise | x_t] if coefficients were independent Gaussians.
        """
        if self.prediction == "eps":
            noise, router = self.backbone(x_t, t, return_router=True)
            noise = noise.float()
        else:
            self.check_ready()
            mean, std = self._per_feature(self.mean)[None], self._per_feature(self.std)[None]  # (1, F)
            shift, scale, skip, out = residual_coefficients(self.schedule, t, mean, std)  # (B, 1, F) each
            whitened = (x_t.float() - shift) * scale  # (B, T, F), unit variance
            network_output, router = self.backbone(whitened, t, return_router=True)
            noise = skip * whitened + out * network_output.float()
        return (noise, router) if return_router else noise

    def encode(self, image: Tensor) -> Tensor:
        """Grey levels ``(B, 1, H, W)`` in 0..255 -> tokens ``(B, T, F)``."""
        self.check_ready()
        if image.ndim != 4 or image.shape[1:] != (1, *self.image_size):
            height, width = self.image_size
            raise ValueError(
                f"DCTDenoiser.encode: got images of shape {tuple(image.shape)}; this network takes (B, 1, {height}, "
                f"{width}). Crop or pad the images, or build the network for their size."
            )
        padded = pad_to_tokens(image[:, 0], self.block)  # (B, 2b gy, 2b gx)
        return encode_folded(padded, self.analysis, self.shift) / self.eta

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, T, F)`` -> grey levels ``(B, 1, H, W)``, clipped to 0..255.

        Tokens are first clipped to [-2, 2]; healthy samples never reach that, so it is logged when one does.
        """
        self.check_ready()
        outside = int((~(tokens.abs() <= _TOKEN_LIMIT)).sum())
        if outside:
            if not tokens.isfinite().all():
                raise ValueError(
                    "DCTDenoiser.decode: the tokens hold NaN or infinite values; the network's weights or its input "
                    "are not finite. Go back to an earlier checkpoint or lower the learning rate."
                )
            logger.warning(
                "DCTDenoiser.decode: %d of %d token values lie outside [-2, 2] and were clipped; "
                "the network is not trained well enough yet, or the sampler takes too few steps.",
                outside,
                tokens.numel(),
            )
        coefficients = tokens.float().clamp(-_TOKEN_LIMIT, _TOKEN_LIMIT) * self.eta
        image = decode_folded(coefficients, self.synthesis, grid=self.grid, shift=self.shift)
        return crop(image, self.image_size).clamp(0, 255)[:, None]

    def x0_range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each feature in the training set, 2 x ``(F,)``, in token units."""
        self.check_ready()
        return self._per_feature(self.minimum), self._per_feature(self.maximum)

    def check_ready(self) -> None:
        """Raise ``RuntimeError`` unless statistics are known."""
        if not self._ready:
            self._ready = not any(bool(self.get_buffer(name).isnan().any()) for name in _STATISTICS)
        if not self._ready:
            raise RuntimeError(
                "DCTDenoiser: no coefficient statistics, so that tokens have no scale; load a checkpoint "
                "(models/model.pt) into the network or build it with `statistics`."
            )

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        lines = settings_differences("DCTDenoiser", self.settings, state_dict, prefix)
        if has_settings(state_dict, prefix):
            lines = lines or weight_differences(self.backbone, state_dict, prefix, "backbone")
            lines += self._statistics_differences(state_dict, prefix)
        refuse("DCTDenoiser", lines)

    def _statistics_differences(self, state_dict: Mapping[str, Tensor], prefix: str) -> list[str]:
        lines = []
        for name in _STATISTICS:
            ours, theirs = self.get_buffer(name), state_dict.get(prefix + name)
            if theirs is None:
                lines.append(f"{name}: not in the checkpoint")
            elif theirs.shape != ours.shape:
                lines.append(
                    f"{name}: shape {tuple(theirs.shape)} in the checkpoint, {tuple(ours.shape)} in this network"
                )
            elif not ours.isnan().any():
                theirs = theirs.to(ours)
                if not torch.allclose(theirs, ours, rtol=1e-4, atol=1e-4):
                    k = int((theirs - ours).abs().argmax())
                    values = f"checkpoint {theirs.flatten()[k]:.6g}, this network {ours.flatten()[k]:.6g}"
                    lines.append(f"{name}{f' of coefficient {k}' if ours.ndim else ''}: {values}")
        return lines

    def _per_feature(self, per_coefficient: Tensor) -> Tensor:
        """Grey-level statistics ``(K,)`` -> ``(F,)`` in token units, the same for the four blocks of a token."""
        return (per_coefficient / self.eta).repeat(4)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        self._ready = False
        super()._load_from_state_dict(state_dict, prefix, *args)
