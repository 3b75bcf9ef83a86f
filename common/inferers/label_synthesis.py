"""Images for label maps: the training step of the denoiser, and the drawing of slices."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, cast, get_args

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from ..diffusion.gaussian import NoiseSchedule, clean_estimate, marginal, noise_of, respaced
from ..diffusion.samplers import draw_noise
from ..diffusion.samplers.ancestral import ddpm
from ..diffusion.samplers.implicit import ddim
from ..seeds import Stream, derive_seed
from .diffusion import unwrap
from .precision import autocast

GuidedSampler = Literal["ddpm", "ddim"]


class Synthesizer(Protocol):
    """What drawing asks of a network besides its call; ``LabelGuidedSynthesizer`` has it."""

    schedule: NoiseSchedule
    image_size: tuple[int, int]
    num_classes: int

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    @property
    def full_noise(self) -> bool: ...

    def guide(self, label: Tensor) -> Tensor: ...

    def null_guide(self, like: Tensor) -> Tensor: ...

    def x0_range(self) -> tuple[Tensor, Tensor]: ...

    def encode(self, image: Tensor) -> Tensor: ...

    def decode(self, x0: Tensor, quantize: bool = True) -> Tensor: ...

    def check_ready(self) -> None: ...


class GuidedNoiseInferer(Inferer):
    """Training step: the network's prediction of the noise in x_t.

    Called by MONAI's ``SupervisedTrainer`` as ``inferer(x_t, network, t=..., guide=...)`` with what
    ``GuidedPrepareBatch`` drew; returns (B, C, h, w) in fp32. The guide reaches the network whatever it is wrapped in.

    Args:
        amp: run the network in bf16 where the device has it.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        with autocast(inputs.device, self.amp):
            return network(inputs, kwargs["t"], kwargs["guide"]).float()


class LabelSynthesisInferer(Inferer):
    """Draws an image for each label map, from noise alone or from the noised latent of a real image.

    Without ``start`` (synthesis) the chain begins at standard normal noise; with it (reconstruction) at step ``start``
    of the noised latent of the image that belongs to the label, 0 being the autoencoder alone. Sample number i depends
    on ``seed`` and i only, whatever the batch size, the device or the number of processes (up to rounding).

    Args:
        start: None, or steps 0..T of noise that the real latent gets.
        guidance: weight of the label: ``null + guidance (label - null)``; 1 needs one network evaluation a step,
            any other value two.
        clip_x0: keep each step's estimate of the clean latent within the range of the codebook (or of black and white).
            A small error of the noise that is the same all over the image grows a hundredfold on the way from pure
            noise to the image; unbounded, it ends in white or black pictures.
        requantize: snap the latent to the codebook before decoding.
        sampler: ``"ddpm"``, or ``"ddim"`` (no noise after the start if ``eta`` is 0).
        num_steps: network evaluations; None, or more than the chain has: every step of the training's.
        eta: noise of DDIM relative to DDPM's, in 0..1.
        seed: seed of the noise.
        amp: run the denoiser in bf16 where the device has it; the autoencoder works in fp32.
    """

    def __init__(
        self,
        *,
        start: int | None = None,
        guidance: float = 1.0,
        clip_x0: bool = True,
        requantize: bool = True,
        sampler: GuidedSampler = "ddpm",
        num_steps: int | None = None,
        eta: float = 0.0,
        seed: int = 0,
        amp: bool = False,
    ) -> None:
        if sampler not in get_args(GuidedSampler):
            raise ValueError(
                f"LabelSynthesisInferer: sampler={sampler!r} is unknown; choose one of "
                f"{', '.join(get_args(GuidedSampler))}."
            )
        if start is not None and start < 0:
            raise ValueError(f"LabelSynthesisInferer: start={start} is a number of steps, 0 or more, or None.")
        if num_steps is not None and num_steps < 2:
            raise ValueError(f"LabelSynthesisInferer: num_steps={num_steps} must be at least 2, or None for all.")
        if not 0 <= eta <= 1:
            raise ValueError(f"LabelSynthesisInferer: eta={eta} must lie in [0, 1].")
        if guidance < 0:
            raise ValueError(f"LabelSynthesisInferer: guidance={guidance} must not be negative.")
        self.start = start
        self.guidance = guidance
        self.clip_x0 = clip_x0
        self.requantize = requantize
        self.sampler: GuidedSampler = sampler
        self.num_steps = num_steps
        self.eta = eta
        self.seed = seed
        self.amp = amp

    @property
    def mode(self) -> str:
        """``"S"`` (synthesis from the label) or ``"R"`` (reconstruction of a real image); goes into result files."""
        return "S" if self.start is None else "R"

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Images (B, 1, X, Y) in [0, 1].

        Args:
            inputs: class indices (B, 1, X, Y).
            network: a synthesizer in evaluation mode.
            args: not used.
            kwargs: ``image`` (B, 1, X, Y) in [0, 1], needed with ``start``; ``index`` (B,): numbers of the samples,
                default 0..B-1.
        """
        index = kwargs.get("index")
        numbers = range(len(inputs)) if index is None else [int(number) for number in index]
        seeds = [derive_seed(Stream.SAMPLE, self.seed, number) for number in numbers]
        return self.paint(inputs, network, seeds, kwargs.get("image"))

    @torch.no_grad()
    def paint(
        self, label: Tensor, network: Callable[..., Any], seeds: Sequence[int], image: Tensor | None = None
    ) -> Tensor:
        """Images (B, 1, X, Y) in [0, 1] with noise from ``seeds`` (B).

        Raises:
            ValueError: labels of another size or with unknown classes, no image where one is needed, or a schedule
                that does not end in noise where the chain starts from noise.
        """
        label = convert_to_tensor(label, track_meta=False)
        synthesizer = cast(Synthesizer, unwrap(network))
        synthesizer.check_ready()
        self._check(label, synthesizer, image)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def draw(_: int) -> Tensor:
            return draw_noise((len(seeds), *synthesizer.latent_shape), generators, device=label.device)

        schedule, steps = synthesizer.schedule, synthesizer.schedule.num_steps if self.start is None else self.start
        if self.start is None:
            x = draw(steps)
        else:
            x = synthesizer.encode(convert_to_tensor(cast(Tensor, image), track_meta=False))
            if self.start > 0:
                x = marginal(schedule, x, draw(steps), torch.tensor([steps - 1]))
        x0 = self._denoised(x, steps, self._predictor(label, network, synthesizer), schedule, draw)
        return synthesizer.decode(x0, quantize=self.requantize)

    def _predictor(self, label: Tensor, network: Callable[..., Any], synthesizer: Synthesizer) -> Callable[..., Any]:
        """``(x_t, t) -> (noise, None)`` with the label's guide."""
        guide = synthesizer.guide(label)  # (B, K, h, w)
        both = torch.cat([guide, synthesizer.null_guide(guide)])

        def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, None]:
            with autocast(x_t.device, self.amp):
                if self.guidance == 1:
                    return network(x_t, t, guide).float(), None
                with_label, without = network(x_t.repeat(2, 1, 1, 1), t.repeat(2), both).float().chunk(2)
            return torch.lerp(without, with_label, self.guidance), None

        return _bounded(predict, synthesizer) if self.clip_x0 else predict

    def _denoised(
        self,
        x: Tensor,
        steps: int,
        predict: Callable[..., Any],
        schedule: NoiseSchedule,
        noise: Callable[[int], Tensor],
    ) -> Tensor:
        """The end of the chain that starts with x after ``steps`` steps of noise."""
        if steps == 0:
            return x
        if steps == 1:  # no chain: all that remains is the estimate of x_0
            t = torch.full((len(x),), int(schedule.timesteps[0]), device=x.device)
            return clean_estimate(schedule, x, predict(x, t)[0], torch.tensor([0]))
        chain = NoiseSchedule(schedule.alpha_bar[:steps], schedule.timesteps[:steps])
        chain = respaced(chain, min(self.num_steps or steps, steps))
        if self.sampler == "ddpm":
            return ddpm(predict, x, chain, noise=noise)
        return ddim(predict, x, chain, eta=self.eta, noise=None if self.eta == 0 else noise)

    def _check(self, label: Tensor, synthesizer: Synthesizer, image: Tensor | None) -> None:
        width, height = synthesizer.image_size
        if tuple(label.shape[1:]) != (1, width, height):
            raise ValueError(
                f"LabelSynthesisInferer: got label maps of shape {tuple(label.shape)}; this network paints slices of "
                f"{width} x {height} pixels, (B, 1, X, Y). Bring the labels to its grid (the recipes do)."
            )
        known = torch.arange(synthesizer.num_classes, device=label.device)
        unknown = label[~torch.isin(label, known.to(label.dtype))].unique().tolist()
        if unknown:
            raise ValueError(
                f"LabelSynthesisInferer: the label maps hold {unknown}; classes are 0..{synthesizer.num_classes - 1}. "
                "Map the values of label files to classes first (LabelMapd)."
            )
        steps = synthesizer.schedule.num_steps
        if self.start is None:
            if not synthesizer.full_noise:
                left = float(synthesizer.schedule.alpha_bar[-1])
                raise ValueError(
                    f"LabelSynthesisInferer: after all {steps} steps {left:.3g} of the signal's variance is left, more "
                    "than 0.01, so the chain must not start from pure noise. Train with larger betas (linear 0.001 to "
                    "0.2 for 100 steps), or reconstruct real images with `start`."
                )
            return
        if self.start > steps:
            raise ValueError(f"LabelSynthesisInferer: start={self.start} must lie in 0..{steps}, the schedule's steps.")
        if image is None or image.shape != label.shape:
            got = "none" if image is None else f"shape {tuple(image.shape)}"
            raise ValueError(
                f"LabelSynthesisInferer: start={self.start} reconstructs real images, which must be given as `image` "
                f"in the shape of the label maps, {tuple(label.shape)}; got {got}."
            )


def _bounded(predict: Callable[..., Any], synthesizer: Synthesizer) -> Callable[..., Any]:
    """``predict`` with the noise that belongs to the nearest clean latent within bounds."""
    schedule, (low, high) = synthesizer.schedule, synthesizer.x0_range()

    def bounded(x_t: Tensor, t: Tensor) -> tuple[Tensor, None]:
        x0 = clean_estimate(schedule, x_t, predict(x_t, t)[0], t)
        return noise_of(schedule, x0.clamp(low, high), x_t, t), None

    return bounded


class SameLabelDraws:
    """Further images for label maps, for figures of how much they differ.

    Args:
        inferer: with its settings.
        network: a synthesizer in evaluation mode.
    """

    def __init__(self, inferer: LabelSynthesisInferer, network: Callable[..., Any]) -> None:
        self.inferer = inferer
        self.network = network

    def __call__(self, labels: Tensor, first_number: int) -> Tensor:
        """Labels (n, 1, X, Y) -> images (n, 1, X, Y) in [0, 1], the samples of numbers from ``first_number`` on."""
        return self.inferer(labels, self.network, index=range(first_number, first_number + len(labels)))
