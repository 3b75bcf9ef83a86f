"""Back to the target's units, and the statistics of several samples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.state_files import save_state
from common.transforms.intensity import ModalityWindowd
from common.transforms.target_intensity import SampleMeand, TargetIntensity, TargetIntensityd


def weights(folder: Path, level: float | None = 640.0, *, nested: bool = False) -> Path:
    state: dict[str, Any] = {"backbone.weight": torch.zeros(1)}
    if level is not None:
        state["target_level"] = torch.tensor(level)
    save_state({"model": state} if nested else state, folder / "model.pt")
    return folder / "model.pt"


def volume(low: float, high: float, channels: int = 1) -> MetaTensor:
    ramp = torch.linspace(low, high, 60 * channels).reshape(channels, 5, 4, 3)
    return MetaTensor(ramp, affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])), meta={"filename_or_obj": "a.nii"})


@pytest.mark.parametrize("name", ["ct", "CT"])
def test_hounsfield_units_come_back_through_the_window(tmp_path: Path, name: str) -> None:
    """HU -> [-1, 1] -> HU to 1e-3 inside of -1024..3000; there is no file to read."""
    hounsfield = volume(-1024, 3000)
    scaled = ModalityWindowd("target", [name])({"target": hounsfield})["target"]
    restored = TargetIntensity(name, tmp_path / "nowhere.pt")(scaled)
    assert (restored - hounsfield).abs().max() < 1e-3


@pytest.mark.parametrize(("level", "hounsfield"), [(-1, -1024), (0, 988), (1, 3000), (7, 3000), (-1.5, -1024)])
def test_fixed_points_of_the_ct_window(level: float, hounsfield: float) -> None:
    assert TargetIntensity("ct", "nowhere")(torch.full((1, 1, 1, 1), level)).item() == hounsfield


@pytest.mark.parametrize(("level", "hounsfield"), [(-1, -1024), (0, 488), (1, 2000), (1.5, 2000)])
def test_fixed_points_of_another_ct_window(level: float, hounsfield: float) -> None:
    image = torch.full((1, 1, 1, 1), level)
    assert TargetIntensity("ct", "nowhere", [-1024, 2000])(image).item() == hounsfield
    item = TargetIntensityd("pred", "ct", "nowhere", ct_window=[-1024, 2000])({"pred": image})
    assert item["pred"].item() == hounsfield


def test_the_window_of_the_training_gives_its_hounsfield_units_back() -> None:
    """To 1e-3 HU inside; what was clipped stays clipped."""
    hounsfield = volume(-1024, 2500)
    scaled = ModalityWindowd("target", ["ct"], ct_window=[-1024, 2000])({"target": hounsfield})["target"]
    restored = TargetIntensity("ct", "nowhere", [-1024, 2000])(scaled)
    assert (restored - hounsfield.clamp(max=2000)).abs().max() < 1e-3


def test_outside_of_the_mask_is_air_whatever_the_window() -> None:
    image = torch.zeros(1, 2, 1, 1)
    mask = torch.tensor([1, 0]).reshape(1, 2, 1, 1)
    assert TargetIntensity("ct", "nowhere", [-500, 1500])(image, mask).flatten().tolist() == [500, -1024]


def test_the_ct_window_is_of_no_effect_on_mr(tmp_path: Path) -> None:
    back = TargetIntensity("t2f", weights(tmp_path, 640.0), [-1024, 2000])
    assert back(torch.tensor([-1.0, 1.0]).reshape(1, 2, 1, 1)).flatten().tolist() == [0, 640]


@pytest.mark.parametrize("window", [(0, 0), (2000, -1024), (float("nan"), 1)], ids=str)
def test_a_window_must_rise(window: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"TargetIntensity: ct_window=\[.*\] must be two rising levels in HU"):
        TargetIntensity("ct", "nowhere", window)


def test_mr_comes_back_through_its_window_if_white_is_the_file_s(tmp_path: Path) -> None:
    """The 99.5th percentile of a training volume was white; a file that records it gives the volume back below it."""
    image = volume(0, 900)
    scaled = ModalityWindowd("target", ["t2f"])({"target": image})["target"]
    level = scaled.meta["intensity_high"]
    assert level == pytest.approx(np.percentile(image[image > 0].numpy(), 99.5))
    restored = TargetIntensity("t2f", weights(tmp_path, level))(scaled)
    torch.testing.assert_close(restored.as_tensor(), image.as_tensor().clamp(max=level), atol=1e-3, rtol=0)


@pytest.mark.parametrize("nested", [True, False], ids=["under model", "plain"])
def test_white_of_mr_is_read_from_the_weights(tmp_path: Path, nested: bool) -> None:
    back = TargetIntensity("t2f", weights(tmp_path, 640.0, nested=nested))
    result = back(torch.tensor([-1.0, -0.5, 0.0, 1.0, 2.0]).reshape(1, 5, 1, 1))
    assert result.flatten().tolist() == [0, 160, 320, 640, 640]


def test_the_weights_are_read_once_and_only_when_needed(tmp_path: Path) -> None:
    back = TargetIntensity("t2f", tmp_path / "model.pt")  # no file yet: it is written by the training
    path = weights(tmp_path)
    assert back(torch.ones(1, 1, 1, 1)).item() == 640
    path.unlink()
    assert back(torch.ones(1, 1, 1, 1)).item() == 640


@pytest.mark.parametrize("level", [None, np.nan])
def test_weights_that_do_not_know_white_are_refused(tmp_path: Path, level: float | None) -> None:
    with pytest.raises(ValueError, match=r"model\.pt does not say which intensity of the target is white; .*models"):
        TargetIntensity("t2f", weights(tmp_path, level))(torch.zeros(1, 1, 1, 1))
    with pytest.raises(FileNotFoundError, match="There are no weights at"):
        TargetIntensity("t2f", tmp_path / "missing.pt")(torch.zeros(1, 1, 1, 1))


@pytest.mark.parametrize(("modality", "background"), [("ct", -1024.0), ("t2f", 0.0)])
def test_outside_of_the_mask_is_background(tmp_path: Path, modality: str, background: float) -> None:
    mask = torch.zeros(1, 5, 4, 3, dtype=torch.uint8)
    mask[:, 1:4, 1:3, 1:] = 1
    image = volume(-0.5, 1, channels=2)
    plain, masked = (
        TargetIntensityd("pred", modality, weights(tmp_path), mask_key=key)({"pred": image, "mask": mask})["pred"]
        for key in (None, "mask")
    )
    inside = mask.bool().expand(2, -1, -1, -1)
    assert torch.equal(masked[inside], plain[inside])
    assert (masked[~inside] == background).all()
    assert (plain != background).all()
    without = TargetIntensityd("pred", modality, weights(tmp_path))({"pred": image})["pred"]
    assert torch.equal(without, plain)


def test_geometry_is_kept(tmp_path: Path) -> None:
    image = volume(-1, 1, channels=3)
    mask = MetaTensor(torch.ones(1, 5, 4, 3))
    item = TargetIntensityd("pred", "t2f", weights(tmp_path))({"pred": image, "mask": mask, "case": "a"})
    item = SampleMeand("pred")(item)
    for key in ("pred", "pred_sd"):
        assert torch.equal(item[key].affine, image.affine)
        assert item[key].meta["filename_or_obj"] == "a.nii"
        assert item[key].shape == (1, 5, 4, 3)
    assert item["case"] == "a"


@pytest.mark.parametrize("samples", [2, 3, 10])
@pytest.mark.parametrize("kind", [Tensor, MetaTensor])
def test_mean_and_deviation_are_numpy_s(samples: int, kind: type) -> None:
    values = np.random.default_rng(0).normal(300, 40, (samples, 5, 4, 3)).astype(np.float32)
    pred = torch.from_numpy(values) if kind is Tensor else MetaTensor(torch.from_numpy(values))
    item = SampleMeand("pred", "spread")({"pred": pred})
    np.testing.assert_allclose(item["pred"][0].numpy(), values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(item["spread"][0].numpy(), values.std(axis=0, ddof=1), rtol=1e-4)
    assert isinstance(item["pred"], kind)


def test_one_sample_is_its_own_mean_and_has_no_deviation() -> None:
    pred = volume(0, 1)
    item = SampleMeand("pred")({"pred": pred})
    assert torch.equal(item["pred"], pred)
    assert item.keys() == {"pred"}


def test_the_samples_are_under_one_key() -> None:
    with pytest.raises(ValueError, match="one key is needed, the samples"):
        SampleMeand(["pred", "other"])
