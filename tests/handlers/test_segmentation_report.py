"""The report of a segmentation network: Dice by volume on both grids, absences counted, files that state it all."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from matplotlib.figure import Figure
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.metrics import DiceMetric
from monai.transforms import Compose, CopyItemsd, Invertd
from torch import Tensor, nn

from common.engines.segmentation_batch import SegmentationPrepareBatch
from common.handlers import segmentation_report as module
from common.handlers.segmentation_figure import Example
from common.handlers.segmentation_report import SegmentationReport
from common.handlers.validation_dice import ValidationDice
from common.inferers.segmentation import SegmentationVolumeInferer
from common.metrics.volume_dice import class_means, volume_dice
from common.transforms.slicing import CropOrErrord, RespaceInPlaned

NAMES = ("background", "RV", "Myo", "LV")
SIZE = (10, 9)
NATIVE = (16, 15, 4)
AFFINE = torch.diag(torch.tensor([1.2, 1.2, 8.0, 1.0], dtype=torch.float64))


SPATIAL = Compose(
    [
        RespaceInPlaned(["image", "label"], spacing_mm=1.5, nearest=[False, True]),
        CropOrErrord(["image", "label"], SIZE),
    ]
)


def restore(trace_of: str = "label") -> Compose:
    return Compose([Invertd("pred", SPATIAL, orig_keys=trace_of, nearest_interp=True)])


class Quarters(nn.Module):
    """Class 0..3 by the quarter of the brightness."""

    image_size = SIZE

    def forward(self, image: Tensor) -> Tensor:
        return -(image - (torch.arange(4).reshape(1, 4, 1, 1) + 0.5) / 4).abs()


def item(name: str, seed: int, noise: float, without: int | None = None) -> dict[str, Any]:
    """An image whose brightness tells the class, but for the noise; blocks of classes on the grid of the file."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 4, (1, 4, 5, NATIVE[2]), generator=generator)
    label = label.repeat_interleave(4, dim=1).repeat_interleave(3, dim=2).float()  # (1, 16, 15, 4)
    if without is not None:
        label[label == without] = 0
    image = 255 * ((label + 0.5) / 4 + noise * torch.randn(label.shape, generator=generator)).clamp(0, 1)
    maps = {key: MetaTensor(volume, affine=AFFINE) for key, volume in (("image", image), ("label", label))}
    return {"case": name, "patient": name.split("_")[0], **maps}


ITEMS = [("p2_a", 2, 0.5, None), ("p1_a", 0, 0.02, 1), ("p1_b", 1, 0.2, None)]


class Undrawn(SegmentationReport):
    """Without the picture, which takes most of the time."""

    def draw(self, *args: Any) -> None:
        pass


def run(report: SegmentationReport, items: Sequence[dict[str, Any]], decollate: bool = True) -> None:
    preprocess = Compose([CopyItemsd("label", names="label_native"), SPATIAL])
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, preprocess), batch_size=1),
        network=Quarters(),
        inferer=SegmentationVolumeInferer(),
        prepare_batch=SegmentationPrepareBatch(),
        val_handlers=[report],
        decollate=decollate,
    ).run()


def items() -> list[dict[str, Any]]:
    return [item(*entry) for entry in ITEMS]


def expected(native: bool) -> Tensor:
    """Dice (3, 3) by MONAI's metric, sorted by case; the network's answer is known without it."""
    scores = []
    for entry in sorted(items(), key=lambda entry: entry["case"]):
        fitted = SPATIAL(dict(entry))
        pred = (4 * fitted["image"] / 255).floor().clamp(0, 3)
        label = fitted["label"]
        if native:
            pred, label = restore()({**fitted, "pred": pred})["pred"], entry["label"]
        hot = [torch.nn.functional.one_hot(v.as_tensor().long(), 4).movedim(-1, 1) for v in (pred, label)]
        values = DiceMetric(include_background=False, reduction="none")(*hot)
        scores.append(torch.as_tensor(values)[0])
    return torch.stack(scores)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run(SegmentationReport(folder, NAMES, {"bundle": "test", "seed": 7}, restore()), items())
    return folder


@pytest.mark.parametrize("grid", ["network_grid", "native_grid"])
def test_dice_is_that_of_whole_volumes_on_each_grid(files: Path, grid: str) -> None:
    metrics = json.loads((files / "metrics.json").read_text())
    table = expected(grid == "native_grid").double().numpy()
    scores = metrics["protocols"][grid]
    for column, name in enumerate(NAMES[1:]):
        entry, values = scores["classes"][name], table[:, column]
        known = values[~np.isnan(values)]
        assert entry["dice"] == pytest.approx(known.mean(), abs=1e-6)
        assert entry["sd_over_volumes"] == pytest.approx(known.std(ddof=1), abs=1e-6)
        assert (entry["n_volumes"], entry["n_absent"]) == ((2, 1) if name == "RV" else (3, 0))
    assert scores["mean_dice"] == pytest.approx(np.nanmean(table, axis=0).mean(), abs=1e-6)
    assert scores["sd_over_volumes"] == pytest.approx(np.nanmean(table, axis=1).std(ddof=1), abs=1e-6)


def test_the_two_grids_differ() -> None:
    assert (expected(True) - expected(False)).abs().nan_to_num().max() > 0.01


def test_the_file_says_what_was_evaluated(files: Path) -> None:
    metrics = json.loads((files / "metrics.json").read_text())
    assert metrics["report"] == "common.handlers.segmentation_report"
    assert (metrics["bundle"], metrics["seed"], metrics["n"]) == ("test", 7, {"volumes": 3, "patients": 2})
    assert all("meaning" in grid for grid in metrics["protocols"].values())


def test_the_table_has_a_row_per_volume_and_gaps_where_a_class_is_absent(files: Path) -> None:
    rows = list(csv.DictReader((files / "metrics_cases.csv").read_text().splitlines()))
    assert [(row["case"], row["patient"]) for row in rows] == [("p1_a", "p1"), ("p1_b", "p1"), ("p2_a", "p2")]
    assert rows[0]["network_grid_dice_RV"] == ""
    table = expected(False)
    for row, scores in zip(rows, table, strict=True):
        assert float(row["network_grid_dice_LV"]) == pytest.approx(float(scores[2]), abs=1e-4)
        assert float(row["network_grid_dice_mean"]) == pytest.approx(float(scores.nanmean()), abs=1e-4)


def test_the_worst_the_median_and_the_best_volume_are_drawn(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (files / "report.png").stat().st_size > 10_000
    shown: list[list[str]] = []

    def draw(examples: Sequence[tuple[str, Example]], *_: Any) -> Figure:
        shown.append([text for text, _ in examples])
        return Figure((1, 1))

    monkeypatch.setattr(module, "draw_examples", draw)
    run(SegmentationReport(files / "again", NAMES, {}), items())
    run(SegmentationReport(files / "two", NAMES, {}), items()[:2])
    means = dict(zip(("p1_a", "p1_b", "p2_a"), expected(False).nanmean(1).tolist(), strict=True))
    places = zip(("worst:", "median:", "best:"), sorted(means, key=lambda case: means[case]), strict=True)
    assert [tuple(text.splitlines()[:2]) for text in shown[0]] == list(places)
    assert [text.splitlines()[0] for text in shown[1]] == ["worst:", "best:"]
    assert [text.splitlines()[1] for text in shown[0] if "RV absent" in text] == ["p1_a"]


def test_without_an_inverse_only_the_network_grid_is_scored(tmp_path: Path) -> None:
    run(Undrawn(tmp_path, NAMES, {}), items()[:1])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["protocols"]) == ["network_grid"]
    assert metrics["protocols"]["network_grid"]["classes"]["LV"]["sd_over_volumes"] is None


def test_an_inverse_that_mixes_classes_is_found_out(tmp_path: Path) -> None:
    """The image's own trace interpolates linearly, whatever ``nearest_interp`` says."""
    with pytest.raises(ValueError, match=r"p2_a: the prediction on the grid of the files holds .*nearest pixels"):
        run(Undrawn(tmp_path, NAMES, {}, restore("image")), items())


def test_a_label_out_of_range_names_its_case(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"p2_a: the label map holds 3, but the classes are 0\.\.2"):
        run(Undrawn(tmp_path, NAMES[:3], {}), [{**items()[0], "image": items()[0]["image"] * 0}])


def test_batches_must_be_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="decollate=True"):
        run(Undrawn(tmp_path, NAMES, {}), items()[:1], decollate=False)


def test_a_second_evaluation_forgets_the_first(tmp_path: Path) -> None:
    report = Undrawn(tmp_path, NAMES, {})
    run(report, items())
    run(report, items()[:1])
    assert json.loads((tmp_path / "metrics.json").read_text())["n"]["volumes"] == 1


def test_the_background_alone_cannot_be_scored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must name the background and more"):
        SegmentationReport(tmp_path, ["background"], {})


def test_validation_scores_volumes_from_their_slices() -> None:
    origin = np.array([[item, 0, z] for item in range(3) for z in range(4)])
    generator = torch.Generator().manual_seed(0)
    pred, label = (torch.randint(0, 4, (12, 1, 5, 5), generator=generator) for _ in range(2))
    label[label == 3] = 0

    def step(engine: Engine, index: Tensor) -> None:
        state: Any = engine.state
        state.batch = {"index": index}
        state.output = {"pred": pred[index].float(), "label": label[index]}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    ValidationDice(origin, NAMES).attach(engine)
    engine.run(torch.randperm(12, generator=generator).split(5), max_epochs=2)
    stacks = [volume.reshape(3, 4, 1, 5, 5).permute(0, 2, 3, 4, 1) for volume in (pred, label)]
    means = class_means(volume_dice(stacks[0], stacks[1], 4))
    assert engine.state.metrics == {
        "mean_dice": pytest.approx(float(means[:2].mean())),
        "dice_RV": pytest.approx(float(means[0])),
        "dice_Myo": pytest.approx(float(means[1])),
    }
