"""What the training and the use of label-guided diffusion start from."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from ..diffusion.gaussian import NoiseSchedule, marginal
from ..parallel import process_count, process_rank
from .randomness import StepRandomness


class Guided(Protocol):
    """What is asked of a network besides its call; ``LabelGuidedSynthesizer`` has it."""

    schedule: NoiseSchedule

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    def guide(self, label: Tensor) -> Tensor: ...

    def null_guide(self, like: Tensor) -> Tensor: ...

    def standardize(self, latent: Tensor) -> Tensor: ...


class GuidedDraws:
    """Steps, noise and guides of a training batch: label (B, 1, X, Y) -> ``{"t", "noise", "guide"}``.

    t (B,) is uniform on 0..T-1, the noise (B, C, h, w) standard normal, the guide (B, K, h, w) that of the label or,
    with probability ``label_dropout``, the null guide. Every process draws for all of them and keeps its own rows.

    Args:
        randomness: source of the random numbers; see :class:`StepRandomness`.
        network: gives schedule, size of the latents and guides; without its wrappers.
        label_dropout: share of samples that are trained without their label.
    """

    def __init__(self, randomness: StepRandomness, network: Guided, label_dropout: float = 0.1) -> None:
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"GuidedDraws: label_dropout={label_dropout} must lie in [0, 1].")
        self.randomness = randomness
        self.network = network
        self.label_dropout = label_dropout

    def __call__(self, label: Tensor) -> dict[str, Tensor]:
        device, count, rank = label.device, process_count(), process_rank()
        total, steps = len(label) * count, self.network.schedule.num_steps
        generator = self.randomness.shared(device)
        t = torch.randint(steps, (total,), generator=generator, device=device)[rank::count]
        noise = torch.randn(total, *self.network.latent_shape, generator=generator, device=device)[rank::count]
        dropped = (torch.rand(total, generator=generator, device=device) < self.label_dropout)[rank::count]
        guide = self.network.guide(label)
        guide = torch.where(dropped[:, None, None, None], self.network.null_guide(guide), guide)
        return {"t": t, "noise": noise, "guide": guide}


class GuidedPrepareBatch(PrepareBatch):
    """Draws steps, noise and guides for the training of the denoiser.

    A batch holds ``latent`` (B, C, h, w), not standardized, and ``label`` (B, 1, X, Y), class indices. Returned are x_t
    as input, ``{"noise", "x0", "x_t", "t"}`` as what the loss compares with, and t and guide as keyword arguments of
    the inferer.

    Args:
        randomness, network, label_dropout: see :class:`GuidedDraws`.
    """

    def __init__(self, randomness: StepRandomness, network: Guided, label_dropout: float = 0.1) -> None:
        self.network = network
        self.draws = GuidedDraws(randomness, network, label_dropout)

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, Tensor]]:
        latent, label = (
            batchdata[name].to(device=device, non_blocking=non_blocking, **kwargs).float()
            for name in ("latent", "label")
        )
        drawn = self.draws(label)
        t, noise = drawn["t"], drawn["noise"]
        x0 = self.network.standardize(latent)
        x_t = marginal(self.network.schedule, x0, noise, t)
        return x_t, {"noise": noise, "x0": x0, "x_t": x_t, "t": t}, (), {"t": t, "guide": drawn["guide"]}


class LabelPrepareBatch(PrepareBatch):
    """Evaluation and inference: label maps as input and, where there are any, the images beside them.

    A batch holds ``label``, class indices, slices (B, 1, X, Y) or volumes (B, 1, X, Y, Z), and, where known, ``image``
    of the same shape in gray levels 0..255, ``index`` (B,) and ``case`` (names). Returned are the labels as input, the
    images in [0, 1] (without them the labels) as target, and image, index and case as keyword arguments of the
    inferer.
    """

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple, dict[str, Any]]:
        label = batchdata["label"].to(device=device, non_blocking=non_blocking, **kwargs).float()
        arguments = {name: batchdata[name] for name in ("index", "case") if name in batchdata}
        if "image" not in batchdata:
            return label, label, (), arguments
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs).float() / 255
        return label, image, (), {"image": image, **arguments}
