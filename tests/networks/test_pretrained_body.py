"""A segmentation network that starts from another's body: all but the head, or one error that names the file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.networks.encoders.pretrained_body import with_pretrained_body
from common.networks.nets.context_encoder import ContextEncoder
from common.networks.nets.segmenter import Segmenter
from common.state_files import save_state

FEATURES = (4, 4, 8, 8, 8, 6)


def segmenter(seed: int = 0, **changes: Any) -> Segmenter:
    torch.manual_seed(seed)
    settings = {"label_values": {0: 0, 500: 1, 420: 2}, "image_size": (32, 32), "features": FEATURES}
    return Segmenter(architecture="unet", **{**settings, **changes})


def context_encoder(seed: int = 1) -> ContextEncoder:
    torch.manual_seed(seed)
    return ContextEncoder(architecture="unet", image_size=(32, 32), features=FEATURES)


def copied(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("wrapped", [False, True], ids=["weights", "checkpoint"])
def test_the_body_comes_from_the_file_and_the_head_stays(tmp_path: Path, wrapped: bool) -> None:
    network, teacher = segmenter(), context_encoder()
    before, state = copied(network), teacher.state_dict()
    save_state({"model": state, "epoch": 3} if wrapped else state, tmp_path / "model.pt")
    assert with_pretrained_body(network, str(tmp_path / "model.pt")) is network
    after = network.network.state_dict()
    head = {name for name in after if name.startswith("final_conv")}
    assert len(head) == 2
    for name, value in after.items():
        assert torch.equal(value, before[f"network.{name}"] if name in head else state[f"network.{name}"]), name
    assert any(not torch.equal(value, before[f"network.{name}"]) for name, value in after.items())
    assert network.num_classes == 3
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_without_a_file_the_network_is_as_it_was() -> None:
    network = segmenter()
    before = copied(network)
    assert with_pretrained_body(network, None) is network
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_an_absent_file_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no pretrained body at .*none\.pt\. Train it first \(pretrain\.json\)"
    ):
        with_pretrained_body(segmenter(), tmp_path / "none.pt")


def test_a_file_of_something_else_is_named_and_changes_nothing(tmp_path: Path) -> None:
    network = segmenter()
    before = copied(network)
    save_state(segmenter(features=(4, 4, 8, 8, 16, 6)).state_dict(), tmp_path / "wider.pt")
    with pytest.raises(
        ValueError, match=r"(?s)wider\.pt cannot be taken for the body: .*features: checkpoint 4,4,8,8,16,6"
    ):
        with_pretrained_body(network, tmp_path / "wider.pt")
    save_state({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt cannot be taken for the body"):
        with_pretrained_body(network, tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(RuntimeError, match=r"broken\.pt is not a readable checkpoint"):
        with_pretrained_body(network, tmp_path / "broken.pt")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
