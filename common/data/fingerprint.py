"""A key for cached results: changes whenever the files or any setting of the transforms change."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch

_NOT_SETTINGS = ("R", "_tracing")  # random state and thread-local switch that MONAI keeps in its transforms


def fingerprint(*parts: Any) -> str:
    """16 hex digits of a SHA-256 over settings, nested in any way; the same in every process.

    Objects count by class and attributes, functions by name and byte code.

    Raises:
        TypeError: something has no stable description.
    """
    return hashlib.sha256(json.dumps([_describe(part) for part in parts], sort_keys=True).encode()).hexdigest()[:16]


def file_state(path: str | Path) -> list[list[str | int]]:
    """Path, bytes and time of last change (ns) of a file, or of every file in a folder."""
    path = Path(path).absolute()
    files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _describe(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum | Path | torch.dtype | torch.device | np.dtype):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _describe(entry) for key, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_describe(entry), sort_keys=True) for entry in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(value.numpy(force=True) if isinstance(value, torch.Tensor) else value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, Sequence):
        return [_describe(entry) for entry in value]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, FunctionType):
        code = value.__code__
        return [
            f"{value.__module__}.{value.__qualname__}",
            code.co_code.hex(),
            repr(code.co_consts),
            repr(code.co_names),
        ]
    if isinstance(value, partial):  # keeps what it was made of outside of its __dict__
        return [_describe(part) for part in (type(value), value.func, value.args, value.keywords)]
    if hasattr(value, "__dict__"):
        settings = {name: entry for name, entry in vars(value).items() if name not in _NOT_SETTINGS}
        return [_describe(type(value)), _describe(settings)]
    raise TypeError(f"{value!r} ({type(value).__name__}) has no stable description; it cannot be part of a cache key.")
