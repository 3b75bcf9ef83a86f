"""LPIPS against the lpips package itself, with weights of torchvision's format, and without weights."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.losses.perceptual import BACKBONES, PerceptualLoss

BUILDERS = {"vgg": "vgg16", "alex": "alexnet"}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch.hub cache without files, and no network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for a download without consent")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


def random_weights(network: str) -> dict[str, Tensor]:
    """A state dict with torchvision's names and shapes; the classifier, which LPIPS ignores, takes no space."""
    from torchvision import models

    with torch.device("meta"):
        shapes = {name: value.shape for name, value in getattr(models, BUILDERS[network])().state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        if name.startswith("classifier"):
            weights[name] = torch.zeros(1).expand(shape)
        else:
            scale = (2 / shape[1:].numel()) ** 0.5 if len(shape) == 4 else 0.1
            weights[name] = scale * torch.randn(shape, generator=generator)
    return weights


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("torchvision")
    paths = {network: folder / backbone.url.rsplit("/", 1)[1] for network, backbone in BACKBONES.items()}
    for network, path in paths.items():  # AlexNet in the format before torch 1.6, which torchvision's old files have
        torch.save(random_weights(network), path, _use_new_zipfile_serialization=network == "vgg")
    return paths


def images(seed: int, size: int = 32, batch: int = 2) -> Tensor:
    return 2 * torch.rand(batch, 1, size, size + 3, generator=torch.Generator().manual_seed(seed)) - 1


def reference(network: str, path: Path) -> Any:
    """The package's own class with the same weights."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
    weights = torch.load(path, weights_only=True)
    own = {name: weights[f"features.{name.split('.', 1)[1]}"] for name in model.net.state_dict()}
    model.net.load_state_dict(own)
    return model


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_distance_and_gradient_are_those_of_the_lpips_package(network: str, files: dict[str, Path]) -> None:
    loss = PerceptualLoss(network, weights=files[network])  # type: ignore[arg-type]
    pred, again, target = images(0).requires_grad_(), images(0).requires_grad_(), images(1)
    value = loss(pred, target)
    expected = reference(network, files[network])(again.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1)).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert value.item() > 0.01
    value.backward()
    expected.backward()
    assert pred.grad is not None
    torch.testing.assert_close(pred.grad, again.grad, rtol=1e-3, atol=1e-6)


def test_distances_of_single_pairs_are_those_of_the_lpips_package_and_the_loss_is_their_mean(
    files: dict[str, Path],
) -> None:
    loss, pred, target = PerceptualLoss("alex", weights=files["alex"]), images(0, batch=3), images(1, batch=3)
    distances = loss.distances(pred, target)
    expected = reference("alex", files["alex"])(pred.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1)).flatten()
    torch.testing.assert_close(distances, expected)
    assert distances.std() > 0
    assert loss(pred, target).item() == distances.mean().item()


def test_equal_images_have_distance_0_and_the_nearer_image_the_smaller_distance(files: dict[str, Path]) -> None:
    loss, target = PerceptualLoss("alex", weights=files["alex"]), images(0)
    assert loss(target, target).item() == 0
    near, far = target + 0.05 * images(1), target + 0.5 * images(1)
    assert 0 < loss(near, target).item() < loss(far, target).item()


def test_features_that_are_all_zero_have_distance_0_and_a_finite_gradient(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """Their length is 0, and 0 / 0 is not wanted."""
    weights = torch.load(files["alex"], weights_only=True)
    for name, value in weights.items():
        if name.startswith("features") and name.endswith("bias"):
            weights[name] = value - 100
    torch.save(weights, tmp_path / "dead.pth")
    pred = images(0).requires_grad_()
    value = PerceptualLoss("alex", weights=tmp_path / "dead.pth")(pred, images(1))
    value.backward()
    assert value.item() == 0
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


def test_loss_is_computed_in_float32_under_autocast(files: dict[str, Path]) -> None:
    loss, pred, target = PerceptualLoss("alex", weights=files["alex"]), images(0), images(1)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(pred, target)
    assert value.dtype == torch.float32
    assert value.item() == loss(pred, target).item()
    assert loss(pred.bfloat16(), target).dtype == torch.float32


def test_nothing_of_the_loss_can_be_trained(files: dict[str, Path]) -> None:
    loss = PerceptualLoss("alex", weights=files["alex"]).train()
    assert not any(module.training for module in loss.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert torch.equal(loss(images(0), images(1)), loss(images(0), images(1)))  # no dropout


def test_weights_are_found_in_the_cache_of_torch_hub(files: dict[str, Path], empty_cache: Path) -> None:
    empty_cache.mkdir(parents=True)
    (empty_cache / files["alex"].name).symlink_to(files["alex"])
    given, cached = PerceptualLoss("alex", weights=files["alex"]), PerceptualLoss("alex")
    assert cached(images(0), images(1)).item() == given(images(0), images(1)).item()


def test_missing_weights_are_named_with_three_ways_out(tmp_path: Path, empty_cache: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        PerceptualLoss("vgg")
    for part in ("vgg16-397923af.pth", str(empty_cache), "download not allowed", "weights=", "allow_download=True"):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match="no other place tried, since this one was named"):
        PerceptualLoss("vgg", weights=tmp_path / "none.pth", allow_download=True)


def test_consented_download_is_checked_by_its_hash(
    files: dict[str, Path], empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, destination: str, hash_prefix: str) -> None:
        assert url == "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
        assert hash_prefix == "7be5be79"
        Path(destination).symlink_to(files["alex"])

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert PerceptualLoss("alex", allow_download=True)(images(0), images(1)).item() > 0
    assert (empty_cache / "alexnet-owt-7be5be79.pth").exists()


def test_failed_download_is_reported_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError('invalid hash value (expected "397923af", got "00000000")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(FileNotFoundError, match="download failed: RuntimeError: invalid hash value"):
        PerceptualLoss("vgg", allow_download=True)


def test_broken_and_foreign_files_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    content, weights = files["alex"].read_bytes(), torch.load(files["alex"], weights_only=True)
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    torch.save({**weights, "features.3.bias": torch.full((192,), torch.nan)}, tmp_path / "nan.pth")
    del weights["features.10.weight"]
    torch.save(weights, tmp_path / "lacking.pth")
    for name in ("half.pth", "nan.pth", "lacking.pth"):
        with pytest.raises(ValueError, match=rf"{name} is not torchvision's whole file of 'alex'"):
            PerceptualLoss("alex", weights=tmp_path / name)
    with pytest.raises(ValueError, match="is not torchvision's whole file of 'vgg'"):
        PerceptualLoss("vgg", weights=files["alex"])


def test_files_are_those_of_torchvision() -> None:
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    assert BACKBONES["vgg"].url == VGG16_Weights.IMAGENET1K_V1.url
    assert BACKBONES["alex"].url == AlexNet_Weights.IMAGENET1K_V1.url


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_smallest_image_passes_and_a_smaller_one_is_refused(network: str, files: dict[str, Path]) -> None:
    loss, smallest = PerceptualLoss(network, weights=files[network]), BACKBONES[network].smallest  # type: ignore[arg-type]
    square = torch.zeros(1, 1, smallest, smallest)
    assert loss(square, square).item() == 0
    with pytest.raises(ValueError, match=rf"at least {smallest} px along each side"):
        loss(square[..., 1:], square[..., 1:])


def test_wrong_shapes_and_networks_are_refused(files: dict[str, Path]) -> None:
    loss = PerceptualLoss("alex", weights=files["alex"])
    for pred, target in ((images(0), images(0, batch=1)), (images(0).expand(-1, 3, -1, -1),) * 2, (images(0)[0],) * 2):
        with pytest.raises(ValueError, match=r"must both be \(B, 1, H, W\)"):
            loss(pred, target)
    with pytest.raises(ValueError, match="network='squeeze' is unknown; choose one of vgg, alex"):
        PerceptualLoss("squeeze")  # type: ignore[arg-type]
