"""A trained segmentation network, to judge images by."""

import os
from pathlib import Path

from ...state_files import load_state
from ..nets.segmenter import Segmenter


def pretrained_segmenter(path: str | os.PathLike) -> Segmenter:
    """A trained segmentation network as its file describes it, frozen, in evaluation mode, on the CPU.

    Args:
        path: file of its weights.

    Raises:
        FileNotFoundError: no weights; says where they come from.
        RuntimeError: the file is broken.
        ValueError: a file of something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no trained segmentation network at {path}. Train it first, by the bundle cardiac_segmentation "
            "(python -m monai.bundle run --config_file <bundle>/configs/train.json), or give the path of its model.pt."
        )
    state = load_state(Path(path))
    try:
        segmenter = Segmenter.from_state_dict(state.get("model", state))
    except ValueError as error:
        raise ValueError(f"{path} holds no network of the bundle cardiac_segmentation: {error}") from error
    return segmenter.eval().requires_grad_(False)
