"""From a batch of the data loader to the arguments of inferer and loss (MONAI's ``PrepareBatch`` hook)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from ..cropping import crop_at
from ..parallel import process_count, process_rank
from .randomness import StepRandomness


class NoisePredictionPrepareBatch(PrepareBatch):
    """Encodes images and draws times and noise for continuous-time noise prediction (DCT-MoE, section 4.2).

    A batch holds ``image`` (B, C, X, Y). Returned are the clean data x0 = encode(image) as input, the dictionary
    ``{"noise", "t"}`` as target, and the same two as keyword arguments of the inferer.

    Args:
        encode: maps images to x0, e.g. ``DCTDenoiser.encode``.
        randomness: source of the random numbers; see :class:`StepRandomness`.
        stratified: draw one t from each of B equal parts of the interval (lower variance of the loss) instead of B
            independent ones.
        t_min: lower end of the interval; t is uniform on [t_min, 1).
        image_size: pixels the network takes; larger images are cropped at random places, which shifts the anatomy by up
            to half the difference. ``None``: images are taken as they are.
        flip_axes: spatial axes (0 is x, left-right) that are flipped at random.
        flip_prob: probability of each flip.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        randomness: StepRandomness,
        stratified: bool = True,
        t_min: float = 1e-5,
        image_size: Sequence[int] | None = None,
        flip_axes: Sequence[int] = (),
        flip_prob: float = 0.5,
    ) -> None:
        self.encode = encode
        self.randomness = randomness
        self.stratified = stratified
        self.t_min = t_min
        self.image_size = image_size
        self.flip_axes = tuple(flip_axes)
        self.flip_prob = flip_prob

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, Tensor]]:
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs).float()
        size, count, rank = len(image), process_count(), process_rank()
        generator = self.randomness.shared(image.device)
        # every process draws for all of them and keeps its own rows
        t = torch.rand(size * count, generator=generator, device=image.device)
        if self.stratified:
            t = (torch.arange(size * count, device=image.device) + t) / (size * count)
        t = self.t_min + (1 - self.t_min) * t[rank::count]
        if self.image_size is not None and tuple(image.shape[-2:]) != tuple(self.image_size):
            place = torch.rand(size * count, 2, generator=generator, device=image.device)[rank::count]
            for axis, (have, need) in enumerate(zip(image.shape[-2:], self.image_size, strict=True)):
                place[:, axis] *= have - need + 1
            image = crop_at(image, self.image_size, place.long())
        for axis in self.flip_axes:
            flip = torch.rand(size * count, generator=generator, device=image.device)[rank::count] < self.flip_prob
            image = torch.where(flip[:, None, None, None], image.flip(axis + 2), image)
        x0 = self.encode(image)
        noise = torch.randn(size * count, *x0.shape[1:], generator=generator, device=image.device)[rank::count]
        drawn = {"noise": noise, "t": t}
        return x0, drawn, (), drawn


class ReferencePrepareBatch(PrepareBatch):
    """Evaluation of a generator: real images as reference, the numbers of the samples to draw beside them.

    A batch holds ``image`` (B, 1, X, Y) in grey levels 0..255 and ``index`` (B,). Returned are the images in [0, 1] as
    input and as target, and ``index`` as keyword argument of the inferer, which seeds each sample by its number.
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple, dict[str, Tensor]]:
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs).float() / 255
        return image, image, (), {"index": batchdata["index"]}


class RequestPrepareBatch(PrepareBatch):
    """Inference of an unconditional generator: the template and the numbers of the samples to draw.

    A batch holds ``image`` (B, 1, X, Y), of which only device and geometry are used, and ``index`` (B,).
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple, dict[str, Tensor]]:
        template = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        return template, template, (), {"index": batchdata["index"]}
