"""A pretrained Vision Embedder, or one error that says what to do."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.networks.encoders.embedders import pretrained_embedder
from common.networks.nets.vision_embedder import VisionEmbedder
from common.state_files import save_state

sys.path.insert(0, str(Path(__file__).parent))
from hub_cache import BREAKS


def embedder(seed: int = 0, **changes: Any) -> VisionEmbedder:
    torch.manual_seed(seed)
    settings = {"input_size": (6, 4), "embed_dim": 16, "reduction": 2, "autoencoder": "scratch:abc"}
    return VisionEmbedder(**settings | changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What ``pretrain_embedder.json`` writes."""
    save_state(embedder().state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "under model"])
def test_a_trained_embedder_comes_back_frozen(path: Path, nested: bool) -> None:
    if nested:
        save_state({"model": embedder().state_dict(), "epoch": 3}, path)
    other = embedder(seed=1).train()
    loaded = pretrained_embedder(other, str(path))
    z = torch.randn(2, 4, 6, 4, generator=torch.Generator().manual_seed(2))
    assert loaded is other
    assert torch.equal(loaded(z), embedder()(z))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.vector(z).requires_grad


@pytest.mark.parametrize("place", ["model.pt", "."])
def test_a_missing_file_names_the_stage_that_makes_it(place: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pretrain_embedder\.json, or give .* `embedder_path`") as e:
        pretrained_embedder(embedder(), tmp_path / place)
    assert f"no pretrained Vision Embedder at {tmp_path / place}." in str(e.value)


def test_one_message_names_the_file_and_everything_that_differs(path: Path) -> None:
    """Above all an embedder that was trained on the latents of another autoencoder."""
    other = embedder(autoencoder="scratch:xyz", gate_axis="token", input_size=(4, 4))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit this network") as caught:
        pretrained_embedder(other, path)
    for line in (
        str(path),
        "autoencoder: checkpoint scratch:abc, this network scratch:xyz",
        "gate_axis: checkpoint channel, this network token",
        "input_size: checkpoint 6,4, this network 4,4",
    ):
        assert line in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_weights_of_something_else_are_refused(path: Path) -> None:
    save_state(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(
        ValueError, match=r"model\.pt does not fit this network: (.|\n)*it was not saved from a VisionEmbedder"
    ):
        pretrained_embedder(embedder(), path)


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_file_is_named(broken: Callable[[Path], None], path: Path) -> None:
    broken(path)
    with pytest.raises(RuntimeError, match=r"model\.pt is not a readable checkpoint"):
        pretrained_embedder(embedder(), path)
