"""Files of plain tensors: written whole or not at all, read without running what is in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .atomic import atomic_path


def save_state(state: Mapping[str, Any], path: str | Path) -> None:
    """``torch.save`` that never leaves a half-written file under ``path``."""
    with atomic_path(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """``torch.load(weights_only=True)`` with an error that names the file and the remedy."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There are no weights at {path}; train the bundle first or give another path.")
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise RuntimeError(
            f"{path} is not a readable checkpoint of plain tensors ({type(error).__name__}: {error}); "
            "delete it or replace it by a whole copy."
        ) from error
    if not isinstance(state, dict):
        raise RuntimeError(f"{path} holds a {type(state).__name__}, not a dictionary of tensors; give another file.")
    return state
