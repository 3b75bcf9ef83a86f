"""A network meets the slices it was trained for, or one message names all differences."""

from types import SimpleNamespace

import pytest

from common.engines.preparation import require_same_preparation

SETTINGS = {
    "image_size": [64, 64],
    "spacing_mm": 1.5,
    "window": [0.0, 1.0],
    "axcodes": None,
    "label_values": {0: 0, 500: 1},
}


def network(**others: object) -> SimpleNamespace:
    own = {"image_size": (64, 64), "spacing_mm": 1.5, "window": (0, 1), "axcodes": None, "label_values": {500: 1, 0: 0}}
    return SimpleNamespace(**{**own, **others})


def test_the_same_preparation_passes_whatever_its_types() -> None:
    require_same_preparation({"load_path": network(), "segmenter_path": None}, SETTINGS)


def test_what_a_network_does_not_tell_is_not_asked() -> None:
    require_same_preparation({"load_path": SimpleNamespace(image_size=(64, 64))}, SETTINGS)


def test_all_differences_of_all_networks_are_named() -> None:
    networks = {"load_path": network(spacing_mm=None), "segmenter_path": network(label_values={0: 0}, axcodes="RAS")}
    with pytest.raises(ValueError, match="prepared in another way") as caught:
        require_same_preparation(networks, SETTINGS)
    message = str(caught.value)
    assert "load_path: spacing_mm None, this run 1.5" in message
    assert "segmenter_path: axcodes RAS, this run None" in message
    assert "segmenter_path: label_values {0: 0}, this run {0: 0, 500: 1}" in message
