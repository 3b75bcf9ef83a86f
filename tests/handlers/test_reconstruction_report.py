"""Protocol R: a curve over the start steps, with its limit and its floor, and no word left out."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from PIL import Image
from torch import Tensor

from common.handlers.reconstruction_report import ReconstructionReport
from common.metrics.multiscale_ssim import multiscale_ssim

RECORD = {"schedule": "linear 0.001..0.2, T=100", "split_level": "patient", "dataset": "noise"}
ERRORS = (0.0, 0.05, 0.1)  # of the reconstructions from 0, 10 and 100 steps


class Halves:
    """Distances of pairs in place of LPIPS: half of the mean absolute difference, of images in [-1, 1]."""

    def distances(self, pred: Tensor, target: Tensor) -> Tensor:
        assert min(pred.min(), target.min()) < -0.1
        return (pred - target).abs().flatten(1).mean(1) / 2


def real_images(count: int = 9) -> Tensor:
    noise = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return (0.4 + 0.1 * torch.nn.functional.interpolate(noise, scale_factor=4, mode="bilinear")).clamp(0.1, 0.8)


def evaluate(report: ReconstructionReport, images: Tensor, pred: Tensor, batches: list[list[int]]) -> None:
    def step(engine: Engine, index: list[int]) -> None:
        engine.state.batch = {"index": torch.tensor(index)}
        engine.state.output = {"pred": pred[index], "label": images[index]}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    report.attach(engine)
    engine.run(batches, max_epochs=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reconstruction")
    images = real_images()
    pred = images + torch.tensor(ERRORS).reshape(1, 3, 1, 1)
    perceptual: Any = Halves()
    report = ReconstructionReport(
        folder, [0, 10, 100], len(images), lambda i: f"slice {i}", RECORD, perceptual=perceptual, number=4
    )
    evaluate(report, images, pred, [[8, 1, 0], [2, 3, 4], [7, 6, 5, 8]])  # out of order, one more than once
    return folder


@pytest.fixture
def metrics(written: Path) -> dict[str, Any]:
    return json.loads((written / "metrics.json").read_text())


def test_the_file_names_its_mode_its_steps_and_its_split(metrics: dict[str, Any]) -> None:
    assert {key: metrics[key] for key in RECORD} == RECORD
    assert (metrics["mode"], metrics["t0"], metrics["headline_t0"]) == ("R", [0, 10, 100], 100)
    assert metrics["n"] == {"slices": 9}
    assert metrics["ms_ssim_profile"]["levels"] == 2
    assert "leaky_split" not in metrics


def test_an_offset_of_a_tenth_is_20_db(metrics: dict[str, Any]) -> None:
    psnr = metrics["scores"]["psnr"]
    assert psnr["t0=100"]["value"] == pytest.approx(20, abs=1e-4)
    assert psnr["t0=10"]["value"] == pytest.approx(-20 * math.log10(0.05), abs=1e-4)
    assert psnr["t0=0"] == {"value": None, "bootstrap_sd": None, "n": 9, "exact_slices": 9}
    for name, factor in (("l1", 1), ("lpips", 1)):
        values = metrics["scores"][name]
        assert [values[f"t0={start}"]["value"] / factor for start in (0, 10, 100)] == pytest.approx(ERRORS, abs=1e-6)
    similarity = multiscale_ssim(real_images() + 0.1, real_images()).mean().item()
    assert metrics["scores"]["ms_ssim"]["t0=100"]["value"] == pytest.approx(100 * similarity)


def test_floor_is_another_slice(metrics: dict[str, Any]) -> None:
    images = real_images()
    expected = (images.roll(4, 0) - images).abs().mean().item()
    floor = metrics["scores"]["l1"]["other_slice"]
    assert floor["value"] == pytest.approx(expected)
    assert floor["bootstrap_sd"] > 0
    assert metrics["scores"]["psnr"]["other_slice"]["exact_slices"] == 0


def test_every_slice_and_step_has_a_row(written: Path) -> None:
    with (written / "metrics_cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["index"]), int(row["t0"])) for row in rows] == [(i, t0) for i in range(9) for t0 in (0, 10, 100)]
    assert rows[5]["slice"] == "slice 1"
    assert float(rows[5]["psnr"]) == pytest.approx(20, abs=1e-3)
    assert rows[0]["psnr"] == ""


def test_the_picture_is_written(written: Path) -> None:
    picture = np.asarray(Image.open(written / "report.png").convert("L"))
    assert picture.shape[0] > 600
    assert picture.std() > 20


def test_a_split_by_slice_is_marked(tmp_path: Path) -> None:
    record = {**RECORD, "split_level": "slice"}
    report = ReconstructionReport(tmp_path, [0], 2, str, record, number=1)
    evaluate(report, real_images(2), real_images(2) + 0.1, [[0, 1]])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["leaky_split"] is True
    assert "lpips" not in metrics["scores"]


def test_unusable_settings_and_predictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`record` lacks schedule, split_level"):
        ReconstructionReport(tmp_path, [0], 2, str, {})
    with pytest.raises(ValueError, match=r"starts=\[5, 0\] must be one or more steps, rising"):
        ReconstructionReport(tmp_path, [5, 0], 2, str, RECORD)
    report = ReconstructionReport(tmp_path, [0, 5], 2, str, RECORD)
    with pytest.raises(ValueError, match=r"`pred` is \(2, 1, 32, 32\) .* one channel for each of the start steps"):
        evaluate(report, real_images(2), real_images(2), [[0, 1]])
