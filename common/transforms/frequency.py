"""Frequency representations of 2-D images as invertible MONAI transforms: block DCT, DCT tokens, Haar wavelets.

``X, Y`` are the spatial axes of a MONAI image ``(C, X, Y)``. The affine follows: where the grid gets coarser, it tells
the position of the coarse cells' centers. ``inverse`` needs what MONAI recorded when the transform was applied; to
decode tokens that never were an image, use the functions of ``frequency.codec``.
"""

import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, convert_to_dst_type, convert_to_tensor
from torch import Tensor

from ..frequency.codec import crop, decode_tokens, encode_folded, folded_matrix, pad_to_tokens
from ..frequency.dct import block_dct2d, block_idct2d
from ..frequency.haar import haar_dwt2d, haar_idwt2d


class BlockDCT(InvertibleTransform):
    """Represent a 2-D image by the DCT coefficients of its non-overlapping square blocks.

    Image ``(C, X, Y)`` -> coefficients ``(C * block**2, X/block, Y/block)``; channel ``c * block**2 + u * block + v``
    holds frequency (u, v) along (X, Y) of image channel c. Orthonormal: unit and energy are those of the image.

    Args:
        block: side of a block in pixels; X and Y must be multiples of it, else ``ValueError``.

    Source: DCT-MoE, section 4.1, eq. 2.
    """

    def __init__(self, block: int = 4) -> None:
        self.block = block

    def __call__(self, image: Tensor) -> Tensor:
        pixels = _plain_2d(image, "BlockDCT")
        coefficients = block_dct2d(pixels, self.block).movedim((-2, -1), (1, 2)).flatten(0, 2)
        result = _with_meta_of(coefficients, image)
        return self.push_transform(result, orig_size=tuple(pixels.shape[1:]), affine=_coarser(self.block))

    def inverse(self, data: Tensor) -> Tensor:
        self.pop_transform(data)
        coefficients = _plain_2d(data, "BlockDCT.inverse").unflatten(0, (-1, self.block, self.block))
        result = _with_meta_of(block_idct2d(coefficients.movedim((1, 2), (-2, -1))), data)
        with self.trace_transform(False):
            return self.push_transform(result, affine=_coarser(self.block).inverse())


class DCTTokens(InvertibleTransform):
    """Encode a grey 2-D image as the tokens of a DCT diffusion model.

    Image ``(1, X, Y)`` in grey levels 0..255 -> tokens ``(T, 4K)``, ``K = block**2 - dropped``; X are token rows. An
    image that is no multiple of ``2 * block`` is enlarged with its minimum, and cropped again by ``inverse``, which
    clips nothing and sets dropped coefficients to 0. The affine stays that of the image.

    Args:
        block: side of a DCT block in pixels.
        eta: coefficient that becomes 1, from the training set's ``CoefficientStatistics``.
        dropped: highest frequencies cut off per block.
        shift: grey level that becomes 0.

    Source: DCT-MoE, section 4.1.
    """

    def __init__(self, block: int, eta: float, dropped: int = 0, shift: float = 128.0) -> None:
        self.block = block
        self.eta = eta
        self.shift = shift
        self.matrix = folded_matrix(block, dropped, eta)

    def __call__(self, image: Tensor) -> Tensor:
        pixels = _plain_2d(image, "DCTTokens")
        if len(pixels) != 1:
            raise ValueError(f"DCTTokens: image of shape {tuple(pixels.shape)}; expected one grey channel, (1, X, Y).")
        matrix = self.matrix.to(pixels.device)
        tokens = encode_folded(pad_to_tokens(pixels, self.block), matrix, self.shift)[0]  # (T, 4K)
        return self.push_transform(_with_meta_of(tokens, image), orig_size=tuple(pixels.shape[1:]))

    def inverse(self, data: Tensor) -> Tensor:
        height, width = size = self.pop_transform(data)[TraceKeys.ORIG_SIZE]
        side = 2 * self.block
        grid = (-(-height // side), -(-width // side))
        tokens = convert_to_tensor(data, track_meta=False)
        image = decode_tokens(tokens, grid=grid, block=self.block, eta=self.eta, shift=self.shift)
        return _with_meta_of(crop(image, size)[None], data)


class HaarDWT(InvertibleTransform):
    """Split a 2-D image into its Haar wavelet bands.

    Image ``(C, X, Y)`` -> ``(4C, X/2, Y/2)``; channel ``4c + band``, bands LL, LH, HL, HH of
    ``frequency.haar.haar_dwt2d`` with X as rows. Orthonormal; X and Y must be even, else ``ValueError``.
    """

    def __call__(self, image: Tensor) -> Tensor:
        pixels = _plain_2d(image, "HaarDWT")
        result = _with_meta_of(haar_dwt2d(pixels).flatten(0, 1), image)
        return self.push_transform(result, orig_size=tuple(pixels.shape[1:]), affine=_coarser(2))

    def inverse(self, data: Tensor) -> Tensor:
        self.pop_transform(data)
        bands = _plain_2d(data, "HaarDWT.inverse").unflatten(0, (-1, 4))
        result = _with_meta_of(haar_idwt2d(bands), data)
        with self.trace_transform(False):
            return self.push_transform(result, affine=_coarser(2).inverse())


class _FrequencyMapTransform(MapTransform, InvertibleTransform):
    """Applies one invertible array transform to each of ``keys``."""

    def __init__(self, keys: KeysCollection, transform: InvertibleTransform, allow_missing_keys: bool) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = transform

    def __call__(self, data: dict) -> dict:
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(data)}}

    def inverse(self, data: dict) -> dict:
        return {**data, **{key: self.transform.inverse(data[key]) for key in self.key_iterator(data)}}


class BlockDCTd(_FrequencyMapTransform):
    """Dictionary version of :class:`BlockDCT`."""

    def __init__(self, keys: KeysCollection, block: int = 4, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, BlockDCT(block), allow_missing_keys)


class DCTTokensd(_FrequencyMapTransform):
    """Dictionary version of :class:`DCTTokens`."""

    def __init__(
        self,
        keys: KeysCollection,
        block: int,
        eta: float,
        dropped: int = 0,
        shift: float = 128.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, DCTTokens(block, eta, dropped, shift), allow_missing_keys)


class HaarDWTd(_FrequencyMapTransform):
    """Dictionary version of :class:`HaarDWT`."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, HaarDWT(), allow_missing_keys)


def _plain_2d(image: Tensor, where: str) -> Tensor:
    """The image's floating point values without metadata, ``(C, X, Y)``."""
    pixels = convert_to_tensor(image, track_meta=False)
    if pixels.ndim != 3:
        raise ValueError(f"{where}: data of shape {tuple(pixels.shape)}; expected a channel and two axes, (C, X, Y).")
    return pixels if pixels.is_floating_point() else pixels.float()


def _with_meta_of(result: Tensor, source: Tensor) -> Tensor:
    """``result`` as MetaTensor with the metadata of ``source`` (unless tracking is off)."""
    template = convert_to_tensor(source, track_meta=get_track_meta())
    return convert_to_dst_type(result, template, dtype=result.dtype)[0]


def _coarser(factor: int) -> Tensor:
    """Affine (3, 3) from the indices of ``factor`` x ``factor`` cells to those of pixels: centers map to centers."""
    offset = (factor - 1) / 2
    return torch.tensor([[factor, 0, offset], [0, factor, offset], [0, 0, 1]], dtype=torch.float64)
