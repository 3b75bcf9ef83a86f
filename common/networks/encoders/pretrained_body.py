"""A segmentation network that starts from what another network has learned of the images."""

from pathlib import Path

from ...state_files import load_state
from ..nets.pixel_network import PixelNetwork


def with_pretrained_body(network: PixelNetwork, path: str | Path | None) -> PixelNetwork:
    """``network`` itself, with all weights but the head's from the file ``path``; as it is if that is None.

    Raises:
        FileNotFoundError: no file there.
        RuntimeError: not a readable file of plain tensors.
        ValueError: weights of another architecture; each difference is named.
    """
    if path is None:
        return network
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no pretrained body at {path}. Train it first (pretrain.json), or give another pretrained_path."
        )
    state = load_state(path)
    try:
        network.load_body(state.get("model", state))
    except ValueError as error:
        raise ValueError(f"{path} cannot be taken for the body: {error}") from error
    return network
