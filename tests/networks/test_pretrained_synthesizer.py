"""A synthesizer from its file alone, or one error that says which file is wrong."""

import sys
from pathlib import Path

import pytest
import torch

from common.networks.encoders.synthesizers import pretrained_synthesizer
from common.state_files import save_state

sys.path.insert(0, str(Path(__file__).parent))
from tiny_synthesizers import CLASSES, SIZE, autoencoder, images, labels, synthesizer


@pytest.mark.parametrize("wrapped", [False, True], ids=["weights", "checkpoint"])
def test_a_trained_network_comes_back_whole(tmp_path: Path, wrapped: bool) -> None:
    trained = synthesizer()
    state = trained.state_dict()
    save_state({"model": state, "epoch": 3} if wrapped else state, tmp_path / "model.pt")
    network = pretrained_synthesizer(str(tmp_path / "model.pt"))
    assert (dict(network.label_values), network.image_size, network.spacing_mm) == (CLASSES, SIZE, 1.5)
    assert not any(part.training for part in network.modules())
    network.check_ready()
    x_t, t = torch.randn(2, *network.latent_shape), torch.tensor([3, 70])
    assert torch.equal(network(x_t, t, network.guide(labels())), trained(x_t, t, trained.guide(labels())))
    assert torch.equal(network.decode(network.encode(images())), trained.decode(trained.encode(images())))


def test_an_absent_file_names_the_stages_that_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"at .*none\.pt; train it first \(train_autoencoder\.json, then train"):
        pretrained_synthesizer(tmp_path / "none.pt")


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    save_state(autoencoder().state_dict(), tmp_path / "autoencoder.pt")
    with pytest.raises(ValueError, match=r"(?s)autoencoder\.pt cannot be used: .*label_values: not recorded"):
        pretrained_synthesizer(tmp_path / "autoencoder.pt")
    damaged = synthesizer().state_dict()
    del damaged["autoencoder.quantizer.codebook"]
    save_state(damaged, tmp_path / "damaged.pt")
    with pytest.raises(ValueError, match=r"(?s)damaged\.pt cannot be used: .*codebook"):
        pretrained_synthesizer(tmp_path / "damaged.pt")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(RuntimeError, match=r"broken\.pt is not a readable checkpoint of plain tensors"):
        pretrained_synthesizer(tmp_path / "broken.pt")
