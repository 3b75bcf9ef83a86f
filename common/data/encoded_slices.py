"""What frozen networks make of every slice of a data set, computed once: memory-mapped arrays beside the slices."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from .cache_folder import cached_folder
from .slices import SliceDataset


class Autoencoder(Protocol):
    """What the caches of latents need of an autoencoder of latent diffusion."""

    factor: int

    @property
    def identity(self) -> str:
        """Changes with the weights."""

    def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, X, Y) in [-1, 1] -> mean and log variance (B, C, X / factor, Y / factor), not scaled."""


class EncodedSlices(Dataset, ABC):
    """Base of data sets whose items are rows of arrays, one row per slice, computed once and kept in a cache folder.

    Args:
        slices: where the images come from.
        cache_dir: folder for the cache (one subfolder per ``name``).
        name: of the subfolder; must change with everything that the rows depend on.
        encode: numbers of slices -> array name -> their rows, in the data type to store. Called in order.
        batch_size: slices per call of ``encode``.
        progress: show a bar while encoding, if there is a terminal.

    Attributes:
        arrays: name -> (N, ...), read-only.
    """

    def __init__(
        self,
        slices: SliceDataset,
        cache_dir: str | Path,
        name: str,
        encode: Callable[[Sequence[int]], dict[str, Tensor]],
        *,
        batch_size: int,
        progress: bool,
    ) -> None:
        self.slices = slices

        def write(folder: Path) -> None:
            _write_rows(folder, slices, encode, batch_size, progress)

        self.folder = cached_folder(Path(cache_dir), name, write)
        self.arrays = _open(self.folder)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One item: what `__getitems__` gives, without the batch axis."""
        return {name: rows[0] for name, rows in self.__getitems__([index]).items()}

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch; for a loader with `ready_batch`."""

    def describe(self, index: int) -> str:
        """Where a slice comes from."""
        return self.slices.describe(index)

    @property
    def patients(self) -> list[str]:
        """Whom each slice shows."""
        return self.slices.patients

    @property
    def positions_mm(self) -> NDArray[np.float64]:
        """(N,) where each slice lies, see `SliceDataset`."""
        return self.slices.positions_mm

    def _rows(self, name: str, indices: Sequence[int]) -> Tensor:
        """Rows of an array as float32."""
        return torch.from_numpy(np.take(self.arrays[name], np.asarray(indices, dtype=np.int64), axis=0)).float()

    def __getstate__(self) -> dict[str, Any]:
        """For spawned workers: the cache is opened again there, not copied."""
        return {name: value for name, value in self.__dict__.items() if name != "arrays"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.arrays = _open(self.folder)


def _write_rows(
    folder: Path,
    slices: SliceDataset,
    encode: Callable[[Sequence[int]], dict[str, Tensor]],
    batch_size: int,
    progress: bool,
) -> None:
    from tqdm import tqdm

    arrays: dict[str, np.memmap] = {}
    with tqdm(total=len(slices), desc="encoding", unit="slice", disable=None if progress else True) as bar:
        for start in range(0, len(slices), batch_size):
            indices = range(start, min(start + batch_size, len(slices)))
            with torch.no_grad():
                encoded = encode(indices)
            for name, rows in encoded.items():
                values = rows.numpy(force=True)
                _require_finite(values, name, slices, start)
                if name not in arrays:
                    shape = (len(slices), *values.shape[1:])
                    arrays[name] = np.lib.format.open_memmap(
                        folder / f"{name}.npy", mode="w+", dtype=values.dtype, shape=shape
                    )
                arrays[name][start : start + len(indices)] = values
            bar.update(len(indices))
    for array in arrays.values():
        array.flush()


def _require_finite(values: NDArray, name: str, slices: SliceDataset, start: int) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        first = start + int(np.flatnonzero(~finite)[0])
        raise ValueError(
            f"The {name} of {slices.describe(first)} are not finite, or do not fit into {values.dtype}: the weights of "
            "the encoder are broken, or it was trained for other intensities."
        )


def _open(folder: Path) -> dict[str, NDArray]:
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
