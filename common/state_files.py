"""Files of plain tensors: written whole or not at all, read without running what is in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

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


class Checked(Protocol):
    """A network that can tell whether weights were made for it; ``DCTDenoiser`` is one."""

    def check_compatible(self, state_dict: dict[str, Any]) -> None: ...

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> Any: ...


def load_weights(network: Checked, path: str | Path) -> None:
    """Load a ``model.pt`` (plain state dict, or one under ``"model"``) into ``network``.

    Raises:
        FileNotFoundError: no file there.
        RuntimeError: not a readable file of plain tensors.
        ValueError: weights of another block size, truncation, image size, ...; each difference is named.
    """
    state = load_state(path)
    state = state.get("model", state)
    try:
        network.check_compatible(state)
    except ValueError as error:
        raise ValueError(f"{path} does not fit this network: {error}") from error
    network.load_state_dict(state, strict=True)
