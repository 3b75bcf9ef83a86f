"""Protocol S: what a report says of a generator that paints label maps, and of spaces that need weights."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from PIL import Image
from torch import Tensor

from common.handlers.synthesis_report import SynthesisReport
from common.metrics.frechet import frechet_distance
from common.metrics.moments import feature_moments
from common.metrics.multiscale_ssim import multiscale_ssim
from common.metrics.reference import ReferenceImages

RECORD = {"mode": "S", "t0": None, "schedule": "linear", "split_level": "patient"}
NAMES = ("background", "LV cavity", "RV")
LEVELS = torch.tensor([0.1, 0.5, 0.9])  # grey of background and classes


class Slices:
    """Training slices in grey levels."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        return {"image": self.images[indices] * 255}


class FirstRow:
    """A space of few features whose distances can be written down."""

    name, identity, meaning = "first_row", "row-0", "first pixels"

    def __call__(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :8].double()


class MeanDifference:
    """In place of LPIPS."""

    def distances(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred - target).flatten(1).mean(1).abs()


def label_maps(count: int, seed: int) -> Tensor:
    """(count, 1, 32, 32): a rectangle of each class at random places."""
    maps = torch.zeros(count, 1, 32, 32)
    left = torch.randint(0, 8, (count, 2), generator=torch.Generator().manual_seed(seed))
    for number, (x, y) in enumerate(left.tolist()):
        maps[number, :, x : x + 12, 2 + y : 14 + y] = 1
        maps[number, :, x + 12 : x + 20, 2 + y : 14 + y] = 2
    return maps


def paint(labels: Tensor, seed: int) -> Tensor:
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed))
    return (LEVELS[labels.long()] + 0.02 * noise).clamp(0, 1)


def nearest_level(images: Tensor) -> Tensor:
    """A segmenter that knows the grey levels."""
    return -(images - LEVELS.reshape(1, 3, 1, 1)).abs()


def mistaken(labels: Tensor) -> Tensor:
    """The right class is painted as background in every map."""
    return torch.where(labels == 2, 0, labels)


def run(report: SynthesisReport, batches: list[list[int]], *images: Tensor) -> None:
    labels, samples, real = images

    def step(engine: Engine, index: list[int]) -> None:
        engine.state.batch = {"index": torch.tensor(index), "label": labels[index]}
        engine.state.output = {"image": labels[index], "pred": samples[index], "label": real[index]}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    report.attach(engine)
    engine.run(batches, max_epochs=1)


class Evaluation:
    """20 samples for 10 label maps, each twice, and what became of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels = label_maps(10, 0).repeat(2, 1, 1, 1)
        self.real = paint(self.labels[:10], 1).repeat(2, 1, 1, 1)
        self.samples = paint(mistaken(self.labels), 2)
        self.training = paint(label_maps(40, 3), 4)
        self.asked: list[tuple[Tensor, int]] = []
        perceptual: Any = MeanDifference()
        report = SynthesisReport(
            folder,
            ReferenceImages(Slices(self.training)),
            lambda index: f"slice {index}",
            None,
            RECORD,
            features=[FirstRow()],
            perceptual=perceptual,
            label_names=NAMES,
            segmenter=nearest_level,
            draw=self.draw,
        )
        run(report, [list(range(10, 20)), list(range(10)), [3]], self.labels, self.samples, self.real)
        self.metrics = json.loads((folder / "metrics.json").read_text())
        self.scores = self.metrics["scores"]

    def draw(self, labels: Tensor, first_number: int) -> Tensor:
        """The same image for every number, so that there is no diversity at all under one label map."""
        self.asked.append((labels, first_number))
        return LEVELS[labels.long()]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return Evaluation(tmp_path_factory.mktemp("synthesis"))


def test_the_file_names_its_mode_and_counts_every_image_once(evaluation: Evaluation) -> None:
    assert {key: evaluation.metrics[key] for key in RECORD} == RECORD
    assert evaluation.metrics["n"] == {"samples": 20, "held_out": 10, "training_part": 20, "training": 40}
    assert "seam_ratio" not in evaluation.scores


def test_dice_of_samples_and_of_real_images_stand_side_by_side(evaluation: Evaluation) -> None:
    """The samples lack class 2, the real images have all."""
    for name, found in (("LV_cavity", 1.0), ("RV", 0.0)):
        score = evaluation.scores[f"label_dice_{name}"]
        assert score["samples"]["value"] == pytest.approx(found, abs=1e-3)
        assert score["held_out"]["value"] == pytest.approx(1, abs=1e-3)
        assert (score["samples"]["n"], score["held_out"]["n"]) == (20, 10)
    assert evaluation.scores["label_dice"]["samples"]["value"] == pytest.approx(0.5, abs=1e-3)
    with (evaluation.folder / "metrics_cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert all(float(row["label_dice_LV_cavity"]) > 0.99 and float(row["label_dice_RV"]) == 0 for row in rows)


def test_frechet_distances_are_given_to_training_slices_and_to_held_out_images(evaluation: Evaluation) -> None:
    space = FirstRow()
    sets = {"samples": evaluation.samples, "held_out": evaluation.real[:10], "training": evaluation.training}
    moments = {name: feature_moments(space(images)) for name, images in sets.items()}
    for name, reference in (("first_row", "training"), ("first_row_to_held_out", "held_out")):
        score = evaluation.scores[name]
        expected = frechet_distance(moments["samples"], moments[reference]).item()
        assert score["samples"]["value"] == pytest.approx(expected, rel=1e-6)
        assert score["features"] == "row-0"
        assert score["n_reference"] == len(sets[reference])
        assert score["samples"]["biased"] is False, "20 images of 8 features"
    assert evaluation.scores["first_row"]["held_out"]["value"] == pytest.approx(
        frechet_distance(moments["held_out"], moments["training"]).item(), rel=1e-6
    )
    assert "held_out" not in evaluation.scores["first_row_to_held_out"]
    assert evaluation.scores["frechet_distance"]["samples"]["biased"] is True, "20 images of 64 features"


def test_samples_of_one_label_map_are_compared_with_each_other(evaluation: Evaluation) -> None:
    """All four of a map are equal: MS-SSIM 100, LPIPS 0."""
    for name, value in (("ms_ssim", 100), ("lpips", 0)):
        score = evaluation.scores[f"same_label_{name}"]
        assert score["samples"]["value"] == pytest.approx(value, abs=1e-4)
        assert score["samples"]["n"] == 8
        for group, other in (("different_labels", "samples"), ("held_out", "held_out")):
            assert score[group]["value"] == evaluation.scores[f"pairwise_{name}"][other]["value"]
        assert score["samples"]["value"] != pytest.approx(score["different_labels"]["value"], abs=1e-3)
    ((labels, first_number),) = evaluation.asked
    assert first_number == 20, "numbers of samples that were not drawn yet"
    assert labels.shape == (32, 1, 32, 32)
    assert torch.equal(labels[0], labels[3])
    assert not torch.equal(labels[3], labels[4])


def test_pairs_are_disjoint_and_of_different_label_maps(evaluation: Evaluation) -> None:
    score = evaluation.scores["pairwise_ms_ssim"]
    assert score["samples"]["n"] == score["held_out"]["n"] == 5, "10 label maps"
    pairs = evaluation.real[:10].repeat_interleave(10, 0), evaluation.real[:10].repeat(10, 1, 1, 1)
    table = 100 * multiscale_ssim(*pairs).reshape(10, 10)
    others = table[~torch.eye(10, dtype=torch.bool)]
    assert others.min() < score["held_out"]["value"] < others.max()


def test_the_picture_is_written(evaluation: Evaluation) -> None:
    picture = np.asarray(Image.open(evaluation.folder / "report.png").convert("RGB")).astype(float)
    assert picture.shape[0] > 900
    assert (picture.max(2) - picture.min(2)).max() > 150, "label maps have colors"


def test_a_copied_slice_is_found_by_its_similarity(tmp_path: Path) -> None:
    labels = label_maps(6, 0)
    training = paint(label_maps(20, 3), 4)
    samples = paint(labels, 2)
    samples[4] = (training[11] + 0.01).clamp(0, 1)
    record = {**RECORD, "split_level": "slice"}
    report = SynthesisReport(
        tmp_path, ReferenceImages(Slices(training)), lambda i: f"slice {i}", None, record, label_names=NAMES
    )
    run(report, [list(range(6))], labels, samples, paint(labels, 1))
    with (tmp_path / "metrics_cases.csv").open() as file:
        likeness = [float(row["nearest_training_ms_ssim"]) for row in csv.DictReader(file)]
    assert likeness[4] == max(likeness) > 99
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["leaky_split"] is True
    assert not [name for name in metrics["scores"] if name.startswith(("label_dice", "same_label"))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"record": {"mode": "S"}, "label_names": NAMES}, "`record` lacks t0, schedule, split_level"),
        ({"record": RECORD, "segmenter": nearest_level}, "need `label_names`"),
        ({"record": RECORD, "draw": lambda labels, number: labels}, "need `label_names`"),
    ],
)
def test_unusable_settings_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    describe: Callable[[int], str] = str
    with pytest.raises(ValueError, match=message):
        SynthesisReport(tmp_path, ReferenceImages(Slices(torch.rand(4, 1, 16, 16))), describe, None, **options)
