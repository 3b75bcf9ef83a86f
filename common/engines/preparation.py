"""Whether a network from a file and the slices of a run were prepared alike."""

from collections.abc import Mapping
from typing import Any


def require_same_preparation(networks: Mapping[str, object | None], settings: Mapping[str, Any]) -> None:
    """Raise unless every network was trained on slices that were prepared as this run prepares them.

    Args:
        networks: option that names the file -> network, whose attributes tell how its slices were prepared; None and
            attributes that a network does not have are left out.
        settings: attribute -> value in this run.

    Raises:
        ValueError: names every difference.
    """
    lines = [
        f"{option}: {name} {_plain(getattr(network, name))}, this run {_plain(value)}"
        for option, network in networks.items()
        if network is not None
        for name, value in settings.items()
        if hasattr(network, name) and _plain(getattr(network, name)) != _plain(value)
    ]
    if lines:
        raise ValueError(
            "The weights were trained on slices that were prepared in another way than those of this run:\n  "
            + "\n  ".join(lines)
            + "\nGive the options of the training."
        )


def _plain(value: Any) -> Any:
    """For comparison and messages: sequences as lists of numbers, mappings by key."""
    if isinstance(value, Mapping):
        return dict(sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return [float(number) if isinstance(number, float) else number for number in value]
    return value
