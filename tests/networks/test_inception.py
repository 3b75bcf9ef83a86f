"""The network of the FID against torch-fidelity's own, with weights in the published format, and without weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.networks.encoders.inception import URL, InceptionFeatures

NAME = URL.rsplit("/", 1)[1]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch.hub cache without files, and no network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for a download without consent")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights with the names and shapes of the published file, in half precision to save space."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")

    class Bare(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Keep the random weights."""

    torch.manual_seed(0)
    weights = Bare("bare", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth")).state_dict()
    for name, value in weights.items():
        if name.endswith("conv.weight"):
            value.mul_(6**0.5)  # so that features do not vanish on the way
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
    weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    torch.save(weights, folder / NAME)
    yield folder / NAME
    (folder / NAME).unlink()


@pytest.fixture(scope="module")
def network(file: Path) -> InceptionFeatures:
    return InceptionFeatures(file)


def images(count: int = 2, size: int = 40) -> Tensor:
    return torch.rand(count, 1, size, size + 5, generator=torch.Generator().manual_seed(0))


def test_features_are_those_of_torch_fidelity(network: InceptionFeatures, file: Path) -> None:
    """Of the same images as gray RGB pictures of 8 bit."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    own = FeatureExtractorInceptionV3("own", ["2048"], feature_extractor_weights_path=str(file)).eval()
    pictures = (images() * 255).round().to(torch.uint8).repeat(1, 3, 1, 1)
    features = network(images())
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float64
    assert features.std(0).mean() > 1e-3, "the two images are to be told apart"
    torch.testing.assert_close(features, own(pictures)[0].double(), rtol=1e-4, atol=1e-5)


def test_network_is_frozen_whatever_contains_it(network: InceptionFeatures) -> None:
    outer = torch.nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in outer.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        features = network(images(1))
    assert torch.equal(features, network(images(1)))


def test_every_weight_is_from_the_file_and_named_by_its_identity(network: InceptionFeatures, file: Path) -> None:
    weights = torch.load(file, weights_only=True)
    for name, value in network.network.state_dict().items():
        assert torch.equal(value, weights[name].to(value.dtype)), name
    assert network.name == "fid"
    assert network.identity.startswith("inception-v3-2015:")


def test_missing_weights_are_named_with_three_ways_out(tmp_path: Path, empty_cache: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        InceptionFeatures()
    for part in (
        NAME,
        URL,
        str(empty_cache),
        "download not allowed",
        "weights=",
        "allow_download=True",
        "leave the FID",
    ):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match="no other place tried"):
        InceptionFeatures(tmp_path / "none.pth", allow_download=True)


def test_broken_files_are_refused(file: Path, tmp_path: Path) -> None:
    weights = torch.load(file, weights_only=True)
    weights = {name: value.new_zeros(()).expand(value.shape) for name, value in weights.items()}  # a small file
    (tmp_path / "half.pth").write_bytes(file.read_bytes()[:1000])
    torch.save({**weights, "fc.bias": torch.full((1008,), torch.nan)}, tmp_path / "nan.pth")
    del weights["Mixed_6a.branch3x3.bn.weight"]
    torch.save(weights, tmp_path / "lacking.pth")
    torch.save({"pickled": Path("code")}, tmp_path / "code.pth")
    for name in ("half.pth", "nan.pth", "lacking.pth", "code.pth"):
        with pytest.raises(ValueError, match=f"{name} is not the whole file of Inception-v3"):
            InceptionFeatures(tmp_path / name)


def test_file_is_the_one_of_torch_fidelity() -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert URL == URL_INCEPTION_V3


def test_images_of_several_channels_are_refused(network: InceptionFeatures) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 1, X, Y\)"):
        network(images().expand(-1, 3, -1, -1))
