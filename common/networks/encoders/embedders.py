"""The Vision Embedder as a later stage needs it: pretrained, or one error that says what makes it."""

from pathlib import Path

from ...state_files import load_weights
from ..nets.vision_embedder import VisionEmbedder


def pretrained_embedder(embedder: VisionEmbedder, path: str | Path) -> VisionEmbedder:
    """``embedder`` with the weights in ``path``, frozen and in evaluation mode.

    The file holds a plain state dict, or one under ``"model"``.

    Raises:
        FileNotFoundError: no file there; names the stage that writes it.
        RuntimeError: not a readable file of plain tensors.
        ValueError: weights of another embedder, or for another autoencoder; each difference is named.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no pretrained Vision Embedder at {path}. Run the stage before this one, pretrain_embedder.json, "
            "or give its weights as `embedder_path`."
        )
    load_weights(embedder, path)
    return embedder.eval().requires_grad_(False)
