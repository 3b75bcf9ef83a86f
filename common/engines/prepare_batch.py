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
        image = random_flips(image, self.flip_axes, self.flip_prob, generator)
        x0 = self.encode(image)
        noise = torch.randn(size * count, *x0.shape[1:], generator=generator, device=image.device)[rank::count]
        drawn = {"noise": noise, "t": t}
        return x0, drawn, (), drawn


class TranslationPrepareBatch(PrepareBatch):
    """Draws steps and noise for the training of a residual-shifting translator.

    A batch holds ``source`` and ``target`` (B, 1, X, Y) in [-1, 1]. Returned are the source as input, the dictionary
    ``{"image": target, "t": (B,)}`` as what the loss compares with, and target, t and noise as keyword arguments of
    the inferer.

    Args:
        randomness: source of the random numbers; see :class:`StepRandomness`.
        num_steps: t is uniform on 1..num_steps.
        flip_axes: spatial axes (0 is x, left-right) that are flipped at random, in both images alike.
        flip_prob: probability of each flip.
    """

    def __init__(
        self, randomness: StepRandomness, num_steps: int = 4, flip_axes: Sequence[int] = (), flip_prob: float = 0.5
    ) -> None:
        self.randomness = randomness
        self.num_steps = num_steps
        self.flip_axes = tuple(flip_axes)
        self.flip_prob = flip_prob

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, Tensor]]:
        pair = torch.cat([batchdata["source"], batchdata["target"]], dim=1)  # (B, 2, X, Y)
        pair = pair.to(device=device, non_blocking=non_blocking, **kwargs).float()
        size, count, rank = len(pair), process_count(), process_rank()
        generator = self.randomness.shared(pair.device)
        t = torch.randint(1, self.num_steps + 1, (size * count,), generator=generator, device=pair.device)[rank::count]
        pair = random_flips(pair, self.flip_axes, self.flip_prob, generator)
        source, target = pair.split(1, dim=1)
        noise = torch.randn(size * count, *target.shape[1:], generator=generator, device=pair.device)[rank::count]
        return source, {"image": target, "t": t}, (), {"target": target, "t": t, "noise": noise}


def random_flips(images: Tensor, axes: Sequence[int], probability: float, generator: torch.Generator) -> Tensor:
    """Flip each image of (B, C, X, Y) along each of the spatial ``axes`` at random, all its channels alike.

    Every process draws for all of them and keeps its own rows.
    """
    count, rank = process_count(), process_rank()
    for axis in axes:
        draws = torch.rand(len(images) * count, generator=generator, device=images.device)[rank::count]
        images = torch.where((draws < probability)[:, None, None, None], images.flip(axis + 2), images)
    return images


class PairPrepareBatch(PrepareBatch):
    """Evaluation and inference of a translator: the source as input, the target (if there is one) beside it.

    A batch holds slices (B, 1, X, Y) or volumes (B, 1, X, Y, Z) under ``source_key``, and, where known, ``target``
    of the same shape, ``index`` (B,) and ``case`` (names); the last two are passed to the inferer, which seeds its
    noise by them.

    Args:
        source_key: key of the source, ``source`` or ``image``.
    """

    def __init__(self, source_key: str = "source") -> None:
        self.source_key = source_key

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple, dict[str, Any]]:
        source = batchdata[self.source_key].to(device=device, non_blocking=non_blocking, **kwargs).float()
        target = batchdata.get("target", batchdata[self.source_key])
        target = target.to(device=device, non_blocking=non_blocking, **kwargs).float()
        return source, target, (), {name: batchdata[name] for name in ("index", "case") if name in batchdata}


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
