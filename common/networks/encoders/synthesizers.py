"""Trained label-guided synthesizers, as inference and synthesis use them."""

from pathlib import Path

from ...state_files import load_state
from ..nets.label_guided_synthesizer import LabelGuidedSynthesizer


def pretrained_synthesizer(path: str | Path) -> LabelGuidedSynthesizer:
    """The network in ``path`` as its own settings describe it, in evaluation mode.

    Raises:
        FileNotFoundError: no file there.
        RuntimeError: not a readable file of plain tensors.
        ValueError: weights of something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There are no weights of a label-guided synthesizer at {path}; train it first (train_autoencoder.json, "
            "then train.json), or set load_path to its file."
        )
    state = load_state(path)
    try:
        return LabelGuidedSynthesizer.from_state_dict(state.get("model", state))
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
