"""Noise -> network -> loss arguments (training) and noise -> network -> image (sampling)."""

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from ..diffusion.continuous import VPSchedule, marginal
from ..diffusion.samplers import SAMPLERS, draw_noise
from ..diffusion.samplers.grid import Spacing
from ..seeds import Stream, derive_seed
from .precision import autocast


class Denoiser(Protocol):
    """What the inferers ask of a network besides ``network(x_t, t)``; ``DCTDenoiser`` has it."""

    schedule: VPSchedule
    token_shape: tuple[int, ...]

    def decode(self, x0: Tensor) -> Tensor: ...

    def x0_range(self) -> tuple[Tensor, Tensor]: ...

    def check_ready(self) -> None: ...


def unwrap(network: Any) -> nn.Module:
    """The network inside ``DistributedDataParallel`` and ``torch.compile`` wrappers."""
    while True:
        inner = getattr(network, "module", getattr(network, "_orig_mod", None))
        if not isinstance(inner, nn.Module):
            return network
        network = inner


class NoisePredictionInferer(Inferer):
    """Training step of a noise-predicting network: x_t = alpha(t) x0 + sigma(t) noise, then the network's prediction.

    Called by MONAI's ``SupervisedTrainer`` as ``inferer(x0, network, noise=..., t=...)``; returns
    ``{"noise": prediction, "router": [probabilities (B, N, E) of each mixture-of-experts layer]}``, all in fp32.

    Args:
        amp: run the network in bf16 where the device has it.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        noise, t = kwargs["noise"], kwargs["t"]
        schedule = cast(Denoiser, unwrap(network)).schedule
        x_t = marginal(schedule, inputs, noise, t)
        with autocast(inputs.device, self.amp):
            prediction, router = network(x_t, t, return_router=True)
        return {"noise": prediction.float(), "router": router}


class SamplingInferer(Inferer):
    """Draws images from a trained denoiser; the input only says how many.

    Sample number i starts from noise that depends on ``seed`` and i alone, so the images are the same whatever the
    batch size and the number of processes (up to the rounding of matrix products of other shapes).

    Args:
        sampler: name in ``common.diffusion.samplers.SAMPLERS``.
        num_steps: network evaluations per image.
        spacing: ``lambda`` (uniform in log signal-to-noise ratio) or ``time``.
        t_end: where the steps end; ``None``: 1e-3 for up to 15 evaluations, else 1e-4.
        denoise: spend the last evaluation on the estimate of the clean data at ``t_end``, which is returned.
        clip_x0: keep each step's estimate of the clean data within the range of the training data, coefficient by
            coefficient.
        seed: seed of the noise.
        amp: run the network in bf16 where the device has it.
    """

    def __init__(
        self,
        sampler: str = "dpm_solver_pp_2m",
        num_steps: int = 50,
        spacing: Spacing = "lambda",
        t_end: float | None = None,
        denoise: bool = True,
        clip_x0: bool = True,
        seed: int = 0,
        amp: bool = False,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ValueError(f"SamplingInferer: sampler '{sampler}' is unknown; choose one of {', '.join(SAMPLERS)}.")
        self.sample = SAMPLERS[sampler]
        self.num_steps = num_steps
        self.spacing = spacing
        self.t_end = t_end
        self.denoise = denoise
        self.clip_x0 = clip_x0
        self.seed = seed
        self.amp = amp

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Images (B, 1, X, Y) in [0, 1] for inputs of batch size B.

        Args:
            inputs: any tensor (B, ...); its device is used, its values are not.
            network: a denoiser in evaluation mode.
            args: not used.
            kwargs: ``index`` (B,): numbers of the samples; default 0..B-1.
        """
        denoiser = cast(Denoiser, unwrap(network))
        denoiser.check_ready()
        index = kwargs.get("index")
        numbers = range(len(inputs)) if index is None else [int(i) for i in index]
        generators = [
            torch.Generator().manual_seed(derive_seed(Stream.SAMPLE, self.seed, number)) for number in numbers
        ]
        noise = draw_noise((len(numbers), *denoiser.token_shape), generators, device=inputs.device)
        with autocast(inputs.device, self.amp):
            x0 = self.sample(
                network,
                noise,
                denoiser.schedule,
                num_evaluations=self.num_steps,
                spacing=self.spacing,
                t_end=self.t_end,
                denoise=self.denoise,
                clip_x0=denoiser.x0_range() if self.clip_x0 else None,
                generator=generators,
            )
        return denoiser.decode(x0.float()) / 255
