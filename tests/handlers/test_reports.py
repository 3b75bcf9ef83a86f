"""Sample pictures and the report of an evaluation say what was generated."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from PIL import Image
from torch import Tensor

from common.handlers.sample_grid import SampleGrid
from common.handlers.synthesis_report import SynthesisReport
from common.metrics.nearest import nearest_neighbors
from common.metrics.reference import ReferenceImages


def evaluator(samples: Tensor, real: Tensor, handler: object, order: list[list[int]]) -> Engine:
    """An engine whose batches are the given positions of samples and real images."""

    def step(engine: Engine, index: list[int]) -> None:
        engine.state.batch = {"index": torch.tensor(index)}
        engine.state.output = {"pred": samples[index], "label": real[index]}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    handler.attach(engine)  # type: ignore[attr-defined]
    engine.run(order, max_epochs=1)
    return engine


class Slices:
    """Training slices in grey levels."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        return {"image": self.images[indices] * 255}


def smooth_noise(number: int, seed: int) -> Tensor:
    noise = torch.randn(number, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (0.5 + 0.15 * torch.nn.functional.interpolate(noise, scale_factor=4, mode="bilinear")).clamp(0, 1)


def test_grid_shows_samples_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    samples = torch.linspace(0, 1, 6).reshape(6, 1, 1, 1).expand(-1, 1, 4, 4)
    grid = SampleGrid(tmp_path, name="grid_{epoch}.png", number=4, columns=4, scale=1)
    evaluator(samples, samples, grid, [[3, 0, 5], [1, 4, 2]])
    picture = np.asarray(Image.open(tmp_path / "grid_1.png"))[..., 0]
    assert [int(picture[3, 2 + 6 * i]) for i in range(4)] == [0, 51, 102, 153]
    assert picture.shape == (8, 4 * 6 + 2)


@pytest.fixture
def report(tmp_path: Path) -> tuple[Path, Tensor, Tensor]:
    training, samples, real = smooth_noise(80, 0), smooth_noise(20, 1), smooth_noise(20, 2)
    samples = samples.clone()
    samples[7] = training[33]  # a copy
    reference = ReferenceImages(Slices(training))
    handler = SynthesisReport(tmp_path, reference, lambda index: f"slice {index}", 8, {"seed": 5, "dataset": "noise"})
    evaluator(samples, real, handler, [list(range(10, 20)), list(range(10))])
    return tmp_path, samples, training


def test_scores_stand_beside_their_floors(report: tuple) -> None:
    folder, _, _ = report
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["seed"], metrics["dataset"]) == (5, "noise")
    assert metrics["n"] == {"samples": 20, "held_out": 20, "training_part": 20, "training": 80}
    scores = metrics["scores"]
    for name in ("frechet_distance", "spectrum_distance"):
        values = {group: scores[name][group]["value"] for group in ("samples", "held_out", "training_part")}
        # all three are drawn from the same distribution, so none can be far from the others
        assert max(values.values()) < 3 * min(values.values()), (name, values)
        assert all(scores[name][group]["bootstrap_sd"] > 0 for group in values)
    seams = scores["seam_ratio"]
    assert seams["samples"]["value"] == pytest.approx(seams["held_out"]["value"], rel=0.05)


def test_a_copied_training_image_is_found(report: tuple) -> None:
    folder, samples, training = report
    with (folder / "metrics_cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows] == list(range(20))
    assert rows[7]["nearest_training_slice"] == "slice 33"
    assert float(rows[7]["nearest_training_distance"]) < 1e-3
    assert min(float(row["nearest_training_distance"]) for row in rows if row["sample"] != "7") > 0.5
    assert nearest_neighbors(samples, training)[1][7] == 33


def test_the_picture_is_written(report: tuple) -> None:
    picture = np.asarray(Image.open(report[0] / "report.png").convert("L"))
    assert picture.shape[0] > 700
    assert picture.std() > 20
