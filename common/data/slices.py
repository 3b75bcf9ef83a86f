"""2-D slices of decoded volumes as a torch data set that costs a training loop next to nothing.

Every volume is read, normalized and cut once; the slices lie in one array (in memory, or memory-mapped from a cache
that is shared by all processes and later runs). A batch is one indexed copy.
"""

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from monai.transforms import Compose, Randomizable
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..allocator import returning_freed_memory
from .cache_folder import cached_folder
from .fingerprint import file_state, fingerprint
from .slice_file import SliceWriter, as_array
from .splits import SECTIONS, leaky_section_of

CACHE_VERSION = 2  # raise when the meaning of cached values changes
FOREGROUND_LEVEL = 1.0  # grey levels above the slice's minimum from which a pixel counts as foreground

logger = logging.getLogger(__name__)


class SliceDataset(Dataset):
    """All slices of a list of images, or of registered images side by side, with the values the transform leaves.

    Slices whose share of foreground pixels (more than `FOREGROUND_LEVEL` above the slice's minimum) is not larger than
    ``min_foreground`` are left out; the default drops constant slices only. How many were dropped is logged.

    Args:
        data: items with a path under each of ``keys``; ``patient`` and ``case`` are used where present.
        transform: deterministic transforms from an item to images of shape (frames, X, Y, Z) or (frames, X, Y).
        cache_dir: folder for the cache (one subfolder per list of files and settings); None keeps the slices in memory.
        keys: images to keep, K of them; those of an item must have one shape.
        inputs: further paths that the transform needs, where an item has them (a mask, for instance).
        storage: "float16" (11 bits: steps of 1/8 at level 255, of 1/2048 at 1), or "uint8" (rounded).
        min_foreground: share in 0..1, of the first of ``keys``; None keeps every slice.
        leaky_section: "training", "validation" or "test" keeps the slices of that part of a split by slice (7:2:1),
            which has neighbors of nearly every test slice in training; only to show what such a split does. None: all.
        num_workers: threads that decode; memory grows with it, not with the number of images.
        progress: show a bar while decoding, if there is a terminal.

    Attributes:
        data: the items. images: array (N, K, X, Y) in the storage type, read-only.
        origin: (N, 3) int32: item, frame and slice number of each entry. affines: (items, 4, 4), of the first key.
        levels: (items, K): what `ModalityWindow` noted as the intensity that becomes white; NaN where nothing was.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        cache_dir: str | Path | None = None,
        *,
        keys: Sequence[str] = ("image",),
        inputs: Sequence[str] = (),
        storage: str = "float16",
        min_foreground: float | None = 0.0,
        leaky_section: str | None = None,
        num_workers: int = 2,
        progress: bool = True,
    ) -> None:
        if storage not in ("float16", "uint8"):
            raise ValueError(f"SliceDataset: storage={storage!r} must be 'float16' or 'uint8'.")
        if min_foreground is not None and not 0 <= min_foreground < 1:
            raise ValueError(f"SliceDataset: min_foreground={min_foreground} must lie in [0, 1).")
        if leaky_section is not None and leaky_section not in SECTIONS:
            raise ValueError(f"SliceDataset: leaky_section={leaky_section!r} must be one of {', '.join(SECTIONS)}.")
        if not data:
            raise ValueError("SliceDataset: the list of images is empty.")
        _require_deterministic(transform)
        self.data, self.transform, self.keys, self.inputs = list(data), transform, tuple(keys), tuple(inputs)
        self.storage, self.min_foreground, self.num_workers = storage, min_foreground, num_workers
        self.leaky_section, self.progress = leaky_section, progress
        self.folder: Path | None = None
        if cache_dir is None:
            buffer = io.BytesIO()
            self.origin, self.affines, self.levels = self._build(buffer)
            self.images = as_array(buffer)
        else:
            self.folder = self._cached(Path(cache_dir))
            self.images, self.origin, self.affines, self.levels = _open(self.folder)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{key: (1, X, Y) float32, ..., "index": int}``."""
        images = torch.from_numpy(self.images[index].astype(np.float32)).split(1)
        return {**dict(zip(self.keys, images, strict=True)), "index": int(index)}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch, ``{key: (B, 1, X, Y) float32, ..., "index": (B,)}``; for a loader with `ready_batch`."""
        chosen = np.asarray(indices, dtype=np.int64)
        images = torch.from_numpy(np.take(self.images, chosen, axis=0)).float().split(1, dim=1)
        return {**dict(zip(self.keys, images, strict=True)), "index": torch.from_numpy(chosen)}

    def describe(self, index: int) -> str:
        """Where a slice comes from: file name, slice and frame number (from 0)."""
        item, frame, position = (int(number) for number in self.origin[index])
        return f"{Path(self.data[item][self.keys[0]]).name}, slice {position}, frame {frame}"

    def affine(self, index: int) -> Tensor:
        """4x4 affine (float64) of a slice, as a volume of one slice."""
        item, _, position = (int(number) for number in self.origin[index])
        affine = torch.from_numpy(self.affines[item].copy())
        affine[:3, 3] += position * affine[:3, 2]
        return affine

    def median_level(self, key: str) -> float:
        """Median over the images under ``key`` of the intensity that becomes white.

        Raises:
            ValueError: the transforms noted none.
        """
        levels = self.levels[:, self.keys.index(key)]
        if np.isnan(levels).any():
            raise ValueError(
                f"SliceDataset: the transforms did not note which intensity of {key!r} is white; scale it by "
                "ModalityWindowd."
            )
        return float(np.median(levels))

    def cache_key(self) -> str:
        """Changes whenever the files or the settings do."""
        files = [{name: file_state(path) for name, path in self._paths(item).items()} for item in self.data]
        leak = [] if self.leaky_section is None else [self.leaky_section, [self._name(item) for item in self.data]]
        return fingerprint(CACHE_VERSION, files, self.keys, self.transform, self.storage, self.min_foreground, *leak)

    @property
    def patients(self) -> list[str]:
        """Whom each slice shows; an item without a patient is one of its own."""
        names = [str(item.get("patient", f"item {number}")) for number, item in enumerate(self.data)]
        return [names[number] for number in self.origin[:, 0]]

    @property
    def positions_mm(self) -> NDArray[np.float64]:
        """(N,) where each slice lies along the normal of the slices of its image, from the origin of space."""
        normals = self.affines[:, :3, 2]  # (items, 3), as long as the slices are apart
        apart = np.linalg.norm(normals, axis=1)
        first = (normals * self.affines[:, :3, 3]).sum(axis=1) / apart
        item, position = self.origin[:, 0], self.origin[:, 2]
        return first[item] + position * apart[item]

    def __getstate__(self) -> dict[str, Any]:
        """For spawned workers: a memory-mapped cache is opened again there, not copied."""
        state = dict(self.__dict__)
        if self.folder is not None:
            for name in ("images", "origin", "affines", "levels"):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.folder is not None:
            self.images, self.origin, self.affines, self.levels = _open(self.folder)

    def _paths(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """What the transform and the cache see of an item."""
        return {key: item[key] for key in self.keys} | {key: item[key] for key in self.inputs if key in item}

    def _cached(self, cache_dir: Path) -> Path:
        """The cache folder of exactly these files and settings, written now if it is not there."""
        folder = cached_folder(cache_dir, f"slices-{self.cache_key()}", self._write)
        logger.info("Slices are in %s.", folder)
        return folder

    def _write(self, folder: Path) -> None:
        with open(folder / "images.npy", "wb") as file:
            origin, affines, levels = self._build(file)
        np.save(folder / "origin.npy", origin)
        np.save(folder / "affines.npy", affines)
        np.save(folder / "levels.npy", levels)
        about = {
            "images": [{key: str(path) for key, path in self._paths(item).items()} for item in self.data],
            "slices": len(origin),
            "storage": self.storage,
            "min_foreground": self.min_foreground,
            "leaky_section": self.leaky_section,
        }
        (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")

    def _build(self, file: BinaryIO) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
        """Decode everything, volume by volume, into ``file``; returns `origin`, `affines` and `levels`."""
        with returning_freed_memory():
            return self._decode_all(SliceWriter(file, np.dtype(self.storage)))

    def _decode_all(self, writer: SliceWriter) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
        origin: list[NDArray[np.int32]] = []
        affines: list[NDArray[np.float64]] = []
        levels: list[list[float]] = []
        dropped = usable = 0
        for number, (stack, depth, affine, level) in enumerate(self._decoded()):
            keep = np.ones(len(stack), dtype=bool)
            if self.min_foreground is not None:
                keep = _foreground_share(stack[:, 0]) > self.min_foreground
            dropped += int((~keep).sum())
            usable += int(keep.sum())
            if self.leaky_section is not None:
                keep &= self._in_leaky_section(number, len(stack), depth)
            writer.append(stack[keep], source=str(self.data[number][self.keys[0]]))
            frame, position = np.divmod(np.flatnonzero(keep), depth)
            origin.append(np.stack([np.full_like(frame, number), frame, position], axis=1).astype(np.int32))
            affines.append(affine)
            levels.append(level)
        rule = (
            f"no more than {self.min_foreground or 0:.3g} of the pixels exceed the slice's minimum by "
            f"{FOREGROUND_LEVEL:g}"
        )
        if writer.count == 0:
            if usable:
                raise ValueError(
                    f"None of the {usable} slices of {len(self.data)} image(s), first {self.data[0][self.keys[0]]}, "
                    f"falls into the {self.leaky_section} part of the split by slice; take more images."
                )
            raise ValueError(
                f"None of the {dropped} slices of {len(self.data)} image(s), first {self.data[0][self.keys[0]]}, is "
                f"usable: in each {rule}. Lower min_foreground, or check the images and the intensity window."
            )
        writer.finish()
        why = f"; dropped {dropped} where {rule}" if self.min_foreground is not None else ""
        logger.info("%d slices of %d images%s.", writer.count, len(self.data), why)
        return np.concatenate(origin), np.stack(affines), np.array(levels)

    def _name(self, item: Mapping[str, Any]) -> str:
        """What a split by slice knows an image by."""
        return str(item.get("case", Path(item[self.keys[0]]).name))

    def _in_leaky_section(self, number: int, count: int, depth: int) -> NDArray[np.bool_]:
        """(count,) which slices of item ``number`` are in the section of the split by slice."""
        name = self._name(self.data[number])
        places = (divmod(place, depth) for place in range(count))
        return np.array([leaky_section_of(name, frame, z) == self.leaky_section for frame, z in places])

    def _decoded(self) -> Iterator[tuple[NDArray[np.float32], int, NDArray[np.float64], list[float]]]:
        """Stacks of the items in order; a few are decoded ahead by threads."""
        from tqdm import tqdm

        items = iter(self.data)
        with (
            ThreadPoolExecutor(self.num_workers) as pool,
            tqdm(total=len(self.data), desc="decoding", unit="file", disable=None if self.progress else True) as bar,
        ):
            waiting: list[Future] = [pool.submit(self._decode, item) for item in islice(items, self.num_workers + 1)]
            try:
                while waiting:
                    yield waiting.pop(0).result()
                    bar.update()
                    waiting += [pool.submit(self._decode, item) for item in islice(items, 1)]
            finally:
                for future in waiting:
                    future.cancel()

    def _decode(self, item: Mapping[str, Any]) -> tuple[NDArray[np.float32], int, NDArray[np.float64], list[float]]:
        """Slices (frames Z, K, X, Y) of one item, Z, the affine and the levels."""
        images = _apply(self.transform, self._paths(item))
        volumes = [_volume(images[key], item[key]) for key in self.keys]
        first = volumes[0]
        for key, volume in zip(self.keys, volumes, strict=True):
            if volume.shape != first.shape:
                raise ValueError(
                    f"{item[key]} becomes an image of shape {volume.shape}, {item[self.keys[0]]} one of {first.shape}: "
                    "images that are used side by side must have one grid. Resample one onto the other."
                )
        affine = np.asarray(getattr(images[self.keys[0]], "affine", np.eye(4)), dtype=np.float64)
        stack = np.stack(volumes).transpose(1, 4, 0, 2, 3)  # (K, frames, X, Y, Z) -> (frames, Z, K, X, Y)
        stack = stack.reshape(-1, len(volumes), *first.shape[1:3])
        levels = [float(getattr(images[key], "meta", {}).get("intensity_high", np.nan)) for key in self.keys]
        return stack.astype(np.float32, copy=False), first.shape[3], affine, levels


def ready_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Collate function for loaders over a `SliceDataset`: `__getitems__` has made the batch already."""
    return batch


def _apply(transform: Callable, item: dict[str, Any]) -> Mapping[str, Any]:
    """``transform(item)`` with the transforms' own errors: MONAI's `Compose` hides them behind "applying transform"."""
    try:
        return transform(item)
    except RuntimeError as error:
        cause: BaseException = error
        while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None


def _volume(image: Any, path: Any) -> NDArray[Any]:
    """What the transform has made of ``path`` as an array (frames, X, Y, Z)."""
    volume = image.numpy(force=True) if isinstance(image, Tensor) else np.asarray(image)
    volume = volume if volume.ndim == 4 else volume[..., None]
    if volume.ndim != 4:
        raise ValueError(f"{path}: the transform gives shape {image.shape}; (frames, X, Y, Z) is needed.")
    if not np.isfinite(volume).all():
        raise ValueError(f"{path}: the transform gives values that are not finite.")
    return volume


def _foreground_share(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, X, Y) -> (N,)."""
    flat = stack.reshape(len(stack), -1)
    return (flat > flat.min(axis=1, keepdims=True) + FOREGROUND_LEVEL).mean(axis=1)


def _require_deterministic(transform: Callable) -> None:
    steps = transform.flatten().transforms if isinstance(transform, Compose) else [transform]
    random = [type(step).__name__ for step in steps if isinstance(step, Randomizable) and not isinstance(step, Compose)]
    if random:
        raise ValueError(
            f"SliceDataset decodes every image once, so {', '.join(random)} would be frozen. Apply random transforms "
            "to the batches instead."
        )


def _open(folder: Path) -> tuple[NDArray, NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    images = np.load(folder / "images.npy", mmap_mode="r")
    return images, np.load(folder / "origin.npy"), np.load(folder / "affines.npy"), np.load(folder / "levels.npy")
