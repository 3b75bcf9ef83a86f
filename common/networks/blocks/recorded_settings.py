"""Settings of a network that travel in its checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Setting = int | float | str


class RecordedSettings(nn.Module):
    """Named numbers and words as buffers, so that a state dict tells what network it was made for.

    Integers are stored as int64, floats as float64, words as the uint8 of their UTF-8 text: plain tensors, which load
    with ``weights_only=True``.
    """

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        super().__init__()
        self.names = tuple(settings)
        for name, value in settings.items():
            self.register_buffer(name, encode_setting(value))

    def forward(self) -> dict[str, Setting]:
        """All of them by name, so that ``network.settings()`` is how every network tells its settings."""
        return {name: decode_setting(self.get_buffer(name)) for name in self.names}

    def differences(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> list[str]:
        """One line per setting in which ``state_dict`` differs: name, its value and ours."""
        lines = []
        for name in self.names:
            ours = decode_setting(self.get_buffer(name))
            stored = state_dict.get(prefix + name)
            theirs = "not recorded" if stored is None else decode_setting(stored)
            if theirs != ours:
                lines.append(f"{name}: checkpoint {theirs}, this network {ours}")
        return lines


def encode_setting(value: Setting) -> Tensor:
    """A number or a word as a tensor."""
    if isinstance(value, str):
        return torch.tensor(list(value.encode()), dtype=torch.uint8)
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)


def decode_setting(stored: Tensor) -> Setting:
    """Invert :func:`encode_setting`."""
    if stored.dtype == torch.uint8:
        return bytes(stored.tolist()).decode()
    return stored.item()
