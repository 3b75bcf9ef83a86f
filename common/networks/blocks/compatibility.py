"""Whether a state dict was made for this network: all differences in one message, before anything is loaded."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .recorded_settings import RecordedSettings

_MOST_LINES = 5


def has_settings(state_dict: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether settings were recorded under ``<prefix>settings.``."""
    return any(name.startswith(f"{prefix}settings.") for name in state_dict)


def settings_differences(
    owner: str, settings: RecordedSettings, state_dict: Mapping[str, Tensor], prefix: str
) -> list[str]:
    """Lines on the settings recorded under ``<prefix>settings.``, or one that says there are none."""
    if not has_settings(state_dict, prefix):
        return [f"settings: absent; it was not saved from a {owner} (is it a training checkpoint or another model?)"]
    return settings.differences(state_dict, f"{prefix}settings.")


def weight_differences(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, name: str) -> list[str]:
    """Lines on tensors of ``module``, named ``<prefix><name>.``, that the state dict lacks or has in another shape."""
    ours = {f"{prefix}{name}.{key}": tensor for key, tensor in module.state_dict().items()}
    lines = []
    for key in [*ours, *(key for key in state_dict if key.startswith(f"{prefix}{name}.") and key not in ours)]:
        shapes = [tuple(side[key].shape) if key in side else "absent" for side in (state_dict, ours)]
        if shapes[0] != shapes[1]:
            lines.append(f"{key.removeprefix(prefix)}: checkpoint {shapes[0]}, this network {shapes[1]}")
    return lines if len(lines) <= _MOST_LINES else [*lines[:_MOST_LINES], f"... and {len(lines) - _MOST_LINES} more"]


def refuse(owner: str, lines: Sequence[str]) -> None:
    """Raise one ``ValueError`` with all ``lines``; nothing if there are none."""
    if lines:
        raise ValueError(
            f"{owner}: the checkpoint was made for another network:\n  "
            + "\n  ".join(lines)
            + "\nBuild the network with the checkpoint's values, or use another checkpoint, or train anew."
        )
