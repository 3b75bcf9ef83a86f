"""The report of a translator: every number is what its protocol says, beside its floors; the files say so, too."""

import csv
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from common.engines.prepare_batch import PairPrepareBatch
from common.handlers.translation_figure import CT_VIEWS, Example, draw_examples, example_slice
from common.handlers.translation_references import fit_floors, through_autoencoder
from common.handlers.translation_report import TranslationReport
from common.handlers.translation_scores import MethodScores, summarize
from common.transforms.synthetic_files import save_nifti

SHAPE = (14, 11, 12)  # x, y, z
BLOCK = slice(3, 9)  # the slices that are scored
BLOCK_LENGTH = 6
CONFIGS = Path(__file__).parents[2] / "bundles/dfbk/configs"

Item = dict[str, Any]


class Slices:
    """Training slices whose target depends on the source in no simple way."""

    def __init__(self, number: int = 150) -> None:
        generator = torch.Generator().manual_seed(9)
        self.source = torch.rand(number, 1, 6, 5, generator=generator) * 2 - 1
        self.target = (self.source**2 - 0.4 + 0.2 * torch.randn(self.source.shape, generator=generator)).clamp(-1, 1)

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {"source": self.source[list(indices)], "target": self.target[list(indices)]}


def floor(source: np.ndarray, bins: int = 256) -> np.ndarray:
    """The pointwise map of `Slices`, by NumPy."""
    x, y = Slices().source.double().numpy().ravel(), Slices().target.double().numpy().ravel()
    edges = np.linspace(-1, 1, bins + 1)
    count, total = np.histogram(x, edges)[0], np.histogram(x, edges, weights=y)[0]
    filled = count > 0
    return np.interp(source, ((edges[1:] + edges[:-1]) / 2)[filled], total[filled] / count[filled])


def mean_target() -> float:
    """Of the foreground of `Slices`, by NumPy."""
    source, target = Slices().source.double().numpy(), Slices().target.double().numpy()
    return float(target[np.maximum(source, target) > -0.999].mean())


def meta(volume: Tensor) -> MetaTensor:
    affine = torch.diag(torch.tensor([2.0, 2.0, 5.0, 1.0], dtype=torch.float64))
    affine[2, 3] = -20
    return MetaTensor(volume, affine=affine)


def case(name: str, seed: int, region: bool = True) -> Item:
    """A case whose foreground lies around slice 6."""
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.rand(1, *SHAPE, generator=generator) * 2 - 1 for _ in range(2))
    mask = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    mask[:, 2:10, 3:8, 2:11] = 1
    item = {"case": name, "source": meta(source), "target": meta(target), "mask": meta(mask)}
    if region:
        label = torch.zeros(1, *SHAPE)
        label[:, 3:5, 4:6, 4] = 2.0
        label[:, 3:9, 4:6, 7] = 4.0  # the largest part
        label[:, :, :, 1] = 1.0  # outside of the block
        item["region"] = meta(label)
    return item


def predict(item: Item, samples: int = 3) -> Tensor:
    """(K, X, Y, Z)."""
    generator = torch.Generator().manual_seed(len(item["case"]) + ord(item["case"][-1]))
    noise = torch.randn(samples, *SHAPE, generator=generator)
    return (item["target"].as_tensor() + 0.3 * noise).clamp(-1, 1)


class Known:
    """An inferer that knows the predictions."""

    def __init__(self, predictions: dict[str, Tensor]) -> None:
        self.predictions = predictions

    def __call__(self, inputs: Tensor, network: Any, case: list[str]) -> Tensor:
        return torch.stack([self.predictions[name] for name in case])


def run(
    report: TranslationReport, items: Sequence[Any], predictions: dict[str, Tensor], decollate: bool = True
) -> None:
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=torch.nn.Identity(),
        inferer=Known(predictions),  # type: ignore[arg-type]
        prepare_batch=PairPrepareBatch(),
        val_handlers=[report],
        decollate=decollate,
    ).run()


class Undrawn(TranslationReport):
    """Without the picture, which takes most of the time."""

    def draw(self, examples: Sequence[Example], headline: str) -> None:
        pass


def evaluate(
    folder: Path,
    items: Sequence[Item],
    predictions: dict[str, Tensor] | None = None,
    kind: type[TranslationReport] = Undrawn,
    **settings: Any,
) -> dict[str, Any]:
    """The content of ``metrics.json``."""
    predictions = predictions or {item["case"]: predict(item) for item in items}
    options = {"source": "t1n", "target": "t2f", "slices_per_case": BLOCK_LENGTH, "record": {"seed": 7}, **settings}
    run(kind(folder, items, Slices(), **options), items, predictions)
    return json.loads((folder / "metrics.json").read_text())


def table(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """``metrics_cases.csv`` by case and method; empty cells are left out."""
    with (folder / "metrics_cases.csv").open() as file:
        return {
            (row.pop("case"), row.pop("method")): {name: float(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(file)
        }


def methods_of(item: Item) -> dict[str, np.ndarray]:
    """Volumes (X, Y, N) of the block in [0, 1], all methods and the target."""
    samples = predict(item).double().numpy()
    source = item["source"].as_tensor()[0].double().numpy()
    outside = (item["mask"].as_tensor()[0].numpy() == 0) & (source < -0.999)
    samples = np.where(outside, -1.0, samples)  # inference writes background there
    volumes = {
        "prediction": samples[0],
        "mean_of_samples": samples.mean(0),
        "mean_target": np.where(outside, -1.0, mean_target()),
        "source_copy": source,
        "pointwise": floor(source),
        "target": item["target"].as_tensor()[0].double().numpy(),
    }
    return {name: np.clip((volume[..., BLOCK] + 1) / 2, 0, 1) for name, volume in volumes.items()}


@pytest.fixture
def items() -> list[Item]:
    return [case("b", 1), case("a", 2), case("c", 3, region=False)]


def test_paper_protocol_is_the_mean_of_scikit_images_numbers_over_the_blocks_slices(
    tmp_path: Path, items: list[Item]
) -> None:
    scores = evaluate(tmp_path, items)["protocols"]["paper"]["scores"]
    for method in ("prediction", "mean_of_samples", "mean_target", "source_copy", "pointwise"):
        ratios, similarities = [], []
        for item in items:
            volumes = methods_of(item)
            pairs = [(volumes["target"][..., z], volumes[method][..., z]) for z in range(BLOCK_LENGTH)]
            ratios.append([peak_signal_noise_ratio(*pair, data_range=1) for pair in pairs])
            similarities.append([structural_similarity(*pair, data_range=1) for pair in pairs])
        for name, values in (("psnr", np.array(ratios)), ("ssim", np.array(similarities))):
            found = scores[name][method]
            assert found["value"] == pytest.approx(values.mean(), abs=1e-4), (name, method)
            assert found["mean_over_cases"] == pytest.approx(values.mean(1).mean(), abs=1e-4)
            assert found["sd_over_cases"] == pytest.approx(values.mean(1).std(ddof=1), abs=1e-4)
            assert (found["n_slices"], found["n_cases"]) == (3 * BLOCK_LENGTH, 3)
    assert scores["psnr"]["mean_of_samples"]["value"] > scores["psnr"]["prediction"]["value"] + 1


def test_masked_psnr_takes_the_masks_pixels_only(tmp_path: Path, items: list[Item]) -> None:
    evaluate(tmp_path, items)
    volumes, inside = methods_of(items[0]), items[0]["mask"].numpy()[0, ..., BLOCK] > 0
    error = (volumes["prediction"] - volumes["target"]) ** 2
    expected = np.mean([-10 * np.log10(error[..., z][inside[..., z]].mean()) for z in range(BLOCK_LENGTH)])
    assert table(tmp_path)["b", "prediction"]["masked_psnr"] == pytest.approx(expected, abs=1e-3)


def test_exact_slices_are_left_out_of_psnr_and_counted(tmp_path: Path) -> None:
    item = case("a", 1)
    prediction = item["target"].as_tensor().clone()
    prediction[..., BLOCK.start + 1] -= 0.2  # of the range [-1, 1]
    prediction.clamp_(-1, 1)
    scores = evaluate(tmp_path, [item], {"a": prediction})["protocols"]["paper"]["scores"]
    found = scores["psnr"]["prediction"]
    assert (found["n_slices"], found["exact_slices"], found["sd_over_cases"]) == (1, BLOCK_LENGTH - 1, None)
    change = (prediction - item["target"].as_tensor())[..., BLOCK.start + 1].double() / 2
    assert found["value"] == pytest.approx(-10 * np.log10(change.square().mean().item()), abs=1e-4)
    assert scores["ssim"]["prediction"]["n_slices"] == BLOCK_LENGTH


def test_a_perfect_prediction_has_no_finite_psnr_and_the_file_is_json_all_the_same(tmp_path: Path) -> None:
    item = case("a", 1)
    scores = evaluate(tmp_path, [item], {"a": item["target"].as_tensor()})["protocols"]["paper"]["scores"]
    assert scores["psnr"]["prediction"]["value"] is None
    assert scores["psnr"]["prediction"]["exact_slices"] == BLOCK_LENGTH
    assert scores["ssim"]["prediction"]["value"] == pytest.approx(1)
    assert table(tmp_path)["a", "prediction"]["paper_psnr"] == np.inf


def test_exact_volumes_are_left_out_of_psnr_and_counted() -> None:
    rows = [
        MethodScores(name, "prediction", {}, {"synthrad_psnr": value, "synthrad_mae": mae})
        for name, value, mae in (("a", 30.0, 5.0), ("b", np.inf, 0.0), ("c", 34.0, 7.0))
    ]
    scores = summarize(rows)["synthrad"]["scores"]
    psnr = {"value": 32.0, "exact_cases": 1, "sd_over_cases": pytest.approx(8**0.5), "n_cases": 2}
    assert scores["psnr"]["prediction"] == psnr
    assert scores["mae"]["prediction"] == {"value": 4.0, "sd_over_cases": pytest.approx(13**0.5), "n_cases": 3}


def test_region_scores_are_over_the_regions_voxels_in_the_block(tmp_path: Path, items: list[Item]) -> None:
    scores = evaluate(tmp_path, items)["protocols"]["region"]["scores"]
    inside = items[0]["region"].numpy()[0, ..., BLOCK] > 0
    assert inside.sum() == 16
    volumes = [methods_of(item) for item in items[:2]]  # the third has none
    for method in ("prediction", "source_copy", "pointwise"):
        errors = [np.abs(of[method] - of["target"])[inside].mean() for of in volumes]
        assert scores["absolute_error"][method]["value"] == pytest.approx(np.mean(errors), abs=1e-5)
        assert scores["absolute_error"][method]["n_cases"] == 2
    for method in ("prediction", "target"):
        means = [of[method][inside].mean() for of in volumes]
        assert scores["mean_intensity"][method]["value"] == pytest.approx(np.mean(means), abs=1e-5)
    assert "target" not in scores["absolute_error"]
    rows = table(tmp_path)
    assert ("c", "target") not in rows
    assert "region_absolute_error" not in rows["c", "prediction"]


def test_a_region_outside_of_the_block_does_not_count(tmp_path: Path) -> None:
    item = case("a", 1)
    item["region"][..., BLOCK] = 0
    assert "region" not in evaluate(tmp_path, [item])["protocols"]


def test_z_consistency_compares_the_steps_inside_the_mask(tmp_path: Path, items: list[Item]) -> None:
    evaluate(tmp_path, items)
    volumes, inside = methods_of(items[1]), items[1]["mask"].numpy()[0, ..., BLOCK] > 0
    both = inside[..., 1:] & inside[..., :-1]
    steps = {name: np.abs(np.diff(volume))[both].mean() for name, volume in volumes.items()}
    error = np.abs(np.diff(volumes["prediction"] - volumes["target"]))[both].mean()
    row = table(tmp_path)["a", "prediction"]
    assert row["z_consistency_ratio"] == pytest.approx(steps["prediction"] / steps["target"], abs=1e-3)
    assert row["z_consistency_error_ratio"] == pytest.approx(error / steps["target"], abs=1e-3)


def test_a_single_slice_has_no_z_consistency(tmp_path: Path, items: list[Item]) -> None:
    protocols = evaluate(tmp_path, items, slices_per_case=1)["protocols"]
    assert "z_consistency" not in protocols
    assert protocols["paper"]["scores"]["psnr"]["prediction"]["n_slices"] == 3


def test_without_a_number_all_slices_are_scored(tmp_path: Path, items: list[Item]) -> None:
    protocols = evaluate(tmp_path, items, slices_per_case=None)["protocols"]
    assert protocols["paper"]["scores"]["ssim"]["prediction"]["n_slices"] == 3 * SHAPE[2]
    assert protocols["masked"]["scores"]["psnr"]["prediction"]["n_slices"] == 3 * 9  # the mask has no more


def test_the_files_state_what_was_done_and_do_not_depend_on_the_order(tmp_path: Path, items: list[Item]) -> None:
    metrics = evaluate(tmp_path / "one", items, kind=TranslationReport)
    assert (metrics["seed"], metrics["source"], metrics["target"]) == (7, "t1n", "t2f")
    assert metrics["n"] == {"cases": 3, "training_slices": 150}
    assert set(metrics["protocols"]) == {"paper", "masked", "region", "z_consistency"}
    for protocol in metrics["protocols"].values():
        assert protocol["meaning"]
        assert all(score["meaning"] for score in protocol["scores"].values())
    evaluate(tmp_path / "two", items[::-1], kind=TranslationReport)
    for name in ("metrics.json", "metrics_cases.csv", "report.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    keys = list(table(tmp_path / "one"))
    assert [key for key in keys if key[1] == "prediction"] == [(name, "prediction") for name in "abc"]
    assert {method for _, method in keys} == set(metrics["methods"])


def test_one_sample_has_no_mean_of_samples(tmp_path: Path, items: list[Item]) -> None:
    metrics = evaluate(tmp_path, items, {item["case"]: predict(item)[:1] for item in items})
    assert list(metrics["methods"]) == ["prediction", "mean_target", "source_copy", "pointwise", "target"]


def test_all_floors_are_fitted_in_one_pass_and_once(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = Slices.__getitems__
    monkeypatch.setattr(Slices, "__getitems__", lambda self, indices: calls.extend(indices) or original(self, indices))
    report = Undrawn(tmp_path, items, Slices(), "t1n", "t2f", BLOCK_LENGTH, {})
    for _ in range(2):
        run(report, items, {item["case"]: predict(item) for item in items})
    assert calls == list(range(150))


def test_the_mean_target_is_that_of_the_foreground() -> None:
    """Pixels that are background in both images do not count, air inside of the body does."""

    class Few:
        source = torch.tensor([[-1.0, -1.0, 0.3, 0.5], [-1.0, 0.2, -1.0, -1.0]])
        target = torch.tensor([[-1.0, 0.4, -1.0, 0.8], [-1.0, 0.6, -1.0, -1.0]])

        def __len__(self) -> int:
            return 2

        def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
            return {name: getattr(self, name)[list(indices)].reshape(-1, 1, 2, 2) for name in ("source", "target")}

    floors = fit_floors(Few())
    assert floors.mean_target == pytest.approx((0.4 - 1 + 0.8 + 0.6) / 4)
    source, inside = torch.zeros(1, 2, 1, 2), torch.tensor([True, False, False, True]).reshape(1, 2, 1, 2)
    predicted = floors.predict(source, inside)["mean_target"]
    torch.testing.assert_close(predicted, torch.where(inside, torch.tensor(0.2), torch.tensor(-1.0)))
    Few.source, Few.target = torch.full((2, 4), -1.0), torch.full((2, 4), -1.0)
    with pytest.raises(ValueError, match="none of the 2 training slices has foreground"):
        fit_floors(Few())


def test_the_limit_of_a_latent_translator_is_its_autoencoder(tmp_path: Path, items: list[Item]) -> None:
    """Scored as the prediction is: an autoencoder that gives the prediction for the target gets its scores."""
    deviations = {}
    for item in items:
        item["target"] = meta(item["target"].as_tensor() * 0.8)
        deviations[item["case"]] = 0.1 * torch.sin(torch.arange(SHAPE[1]) / 2.0)
    predictions = {item["case"]: item["target"].as_tensor() + deviations[item["case"]][:, None] for item in items}

    def reconstruct(slices: Tensor) -> Tensor:
        assert slices.ndim == 4
        assert slices.shape[1:] == (1, *SHAPE[:2])
        return slices + deviations["a"]

    protocols = evaluate(tmp_path, items, predictions, reconstruct=reconstruct)["protocols"]
    for protocol in ("paper", "masked", "region", "z_consistency"):
        for score in protocols[protocol]["scores"].values():
            assert score["reconstruction"] == score["prediction"]
    assert protocols["paper"]["scores"]["psnr"]["prediction"]["value"] < 30


def test_slices_without_foreground_are_not_reconstructed() -> None:
    """37 slices, of which 20 lie inside, in batches of no more than 16 and in their order."""
    volume, seen = torch.rand(1, 4, 3, 37), []
    inside = torch.zeros(1, 4, 3, 37, dtype=torch.bool)
    inside[:, 1:, :, 9:29] = True

    def reconstruct(slices: Tensor) -> Tensor:
        seen.append(len(slices))
        return -slices

    result = through_autoencoder(volume, inside, reconstruct)
    assert sum(seen) == 20
    assert max(seen) <= 16
    torch.testing.assert_close(result, torch.where(inside, -volume, torch.tensor(-1.0)))


@pytest.mark.parametrize("broken", [lambda slices: slices[..., :-1], lambda slices: slices / 0])
def test_a_broken_autoencoder_is_told_from_a_bad_one(tmp_path: Path, broken: Any) -> None:
    with pytest.raises(ValueError, match=r"a: the autoencoder makes .* of slices of shape \(12, 1, 14, 11\)"):
        evaluate(tmp_path, [case("a", 1)], reconstruct=broken)


def native(item: Item) -> dict[str, np.ndarray]:
    """The volumes (X, Y, Z) of all methods in HU."""
    samples = predict(item).double().numpy()
    source = item["source"].as_tensor()[0].double().numpy()
    outside = (item["mask"].as_tensor()[0].numpy() == 0) & (source < -0.999)
    whole = {
        "prediction": samples[0],
        "mean_of_samples": samples.mean(0),
        "mean_target": np.where(outside, -1.0, mean_target()),
        "source_copy": source,
        "pointwise": floor(source),
        "reconstruction": item["target"].as_tensor()[0].double().numpy() / 2,
    }
    return {name: 2012 * (volume + 1) - 1024 for name, volume in whole.items()}


def test_ct_is_scored_in_hu_over_the_whole_volume(tmp_path: Path) -> None:
    item = case("a", 1)
    item["target"][:, 5, 5, 5] = 1
    target = 2012 * (item["target"].as_tensor() + 1) - 1024
    target[:, 5, 5, 5] += 500  # beyond the window
    item |= {"target_native": meta(target), "mask_native": item["mask"]}

    def restore(data: Item) -> Item:
        return {**data, "pred": 2012 * (data["pred"] + 1) - 1024}

    def reconstruct(slices: Tensor) -> Tensor:
        return slices / 2

    metrics = evaluate(tmp_path, [item], restore=restore, reconstruct=reconstruct, target="ct")
    scores = metrics["protocols"]["synthrad"]["scores"]
    inside, truth = item["mask"].numpy()[0] > 0, target[0].double().numpy()
    for method, volume in native(item).items():
        error = np.abs(volume - truth)[inside]
        assert scores["mae"][method]["value"] == pytest.approx(error.mean(), rel=1e-5)
        clipped = [np.clip(each, -1024, 3000)[inside] for each in (truth, volume)]
        ratio = peak_signal_noise_ratio(*clipped, data_range=4024)
        assert scores["psnr"][method]["value"] == pytest.approx(ratio, rel=1e-5)
        bone = truth[inside] > 250
        assert scores["mae_bone"][method]["value"] == pytest.approx(error[bone].mean(), rel=1e-5)
        air = truth[inside] < -200
        assert scores["mae_air"][method]["value"] == pytest.approx(error[air].mean(), rel=1e-5)
        soft = ~bone & ~air
        assert scores["mae_soft_tissue"][method]["value"] == pytest.approx(error[soft].mean(), rel=1e-5)
        shown = [np.where(inside, np.clip(each, -1024, 3000) + 1024, 0) for each in (truth, volume)]
        _, full = structural_similarity(*shown, data_range=4024, full=True)
        kept = np.zeros_like(inside)
        kept[3:-3, 3:-3, 3:-3] = inside[3:-3, 3:-3, 3:-3]
        assert scores["ssim"][method]["value"] == pytest.approx(full[kept].mean(), rel=1e-5)
    assert scores["psnr"]["prediction"]["exact_cases"] == 0
    # the window of the network cannot hold 3500 HU
    assert scores["mae"]["resampled_target"]["value"] == pytest.approx(500 / inside.sum(), rel=1e-3)
    assert "target" not in scores["mae"]


def write_ct_case(folder: Path) -> Item:
    """A head on a grid that is neither square nor in RAS, MR and CT, with table and mask."""
    shape = (30, 24, 12)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = (x / 0.75) ** 2 + (y / 0.8) ** 2 < 1
    ct = np.where(body, 300 * np.sin(3 * x + 0.5) * np.cos(2 * y) + 100 * z, -1000.0)
    ct[:2] = 400  # the table
    affine = np.diag([-1.5, 1.5, 3.0, 1.0])
    arrays = {"ct": ct.astype(np.float32), "mr": (body * (x + 2)).astype(np.float32), "mask": body.astype(np.float32)}
    for name, array in arrays.items():
        save_nifti(str(folder / f"{name}.nii.gz"), array, affine, "test")
    paths = {key: str(folder / f"{name}.nii.gz") for key, name in (("source", "mr"), ("target", "ct"))}
    return {"case": "head", **paths, "mask": str(folder / "mask.nii.gz")}


@pytest.fixture
def recipe(tmp_path: Path) -> ConfigParser:
    """The evaluation of bundle dfbk, MR to CT."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in ("train", "evaluate")])
    settings = {"source": "mr", "target": "ct", "image_size": [32, 32], "pixel_mm": None, "fit": "crop"}
    for key, value in {**settings, "slices_per_case": 6, "ckpt_dir": str(tmp_path)}.items():
        parser[key] = value
    return parser


def restored_scores(parser: ConfigParser, folder: Path, offset: float) -> dict[str, Any]:
    """Scores of the true CT on the network's grid plus ``offset``."""
    preprocessing = parser.get_parsed_content("validate#preprocessing")
    restore = parser.get_parsed_content("validate#handlers#1#restore")
    item = preprocessing(write_ct_case(folder))
    report = Undrawn(folder, [item], Slices(), "mr", "ct", 6, {}, restore)
    run(report, [item], {"head": item["target"].as_tensor() + offset})
    return json.loads((folder / "metrics.json").read_text())["protocols"]


def test_the_recipe_leads_the_prediction_back_to_the_grid_of_the_files(recipe: ConfigParser, tmp_path: Path) -> None:
    """No resampling: an offset of .05 is 100.6 HU everywhere; without it nothing is wrong, table and flips included."""
    scores = restored_scores(recipe, tmp_path, offset=0.05)["synthrad"]["scores"]
    assert scores["mae"]["prediction"]["value"] == pytest.approx(0.05 * 2012, rel=1e-4)
    assert scores["mae"]["resampled_target"]["value"] < 1e-3
    assert scores["ssim"]["resampled_target"]["value"] == pytest.approx(1)
    assert scores["mae"]["source_copy"]["value"] > 500


def test_the_limit_of_a_coarser_network_grid_is_lower(recipe: ConfigParser, tmp_path: Path) -> None:
    limits = []
    for size in (20, 40):
        recipe["fit"], recipe["image_size"] = "resize", [size, size]
        recipe.parse(True)
        mae = restored_scores(recipe, tmp_path, offset=0.0)["synthrad"]["scores"]["mae"]
        assert mae["prediction"]["value"] == pytest.approx(mae["resampled_target"]["value"])  # it is the target
        limits.append(mae["resampled_target"]["value"])
    assert limits[0] > 1.5 * limits[1] > 1


def test_the_recipe_cuts_the_block_where_the_target_is_mr(recipe: ConfigParser, tmp_path: Path) -> None:
    """CT needs whole volumes for its own protocol, MR does not."""
    whole = recipe.get_parsed_content("validate#preprocessing")(write_ct_case(tmp_path))
    assert whole["target"].shape == (1, 32, 32, 12)
    assert whole["target_native"].shape == (1, 30, 24, 12)
    for key, value in {"source": "ct", "target": "mr"}.items():
        recipe[key] = value
    item = write_ct_case(tmp_path)
    item["source"], item["target"] = item["target"], item["source"]
    recipe.parse(True)
    block = recipe.get_parsed_content("validate#preprocessing")(item)
    assert block["target"].shape == block["mask"].shape == (1, 32, 32, 6)
    assert "target_native" not in block
    torch.testing.assert_close(block["mask"].as_tensor(), whole["mask"].as_tensor()[..., 3:9])


def test_the_recipe_asks_for_the_data_set_that_was_trained_on(recipe: ConfigParser) -> None:
    """The same files by the same rule: only the section differs, and what else is read of a case."""
    trained, evaluated = (dict(recipe.get(f"{stage}#dataset#data")) for stage in ("train", "validate"))
    assert evaluated.pop("optional") == "@extra_images"
    assert (trained.pop("section"), evaluated.pop("section")) == ("training", "@section")
    assert evaluated == trained


def test_a_volume_thinner_than_the_window_is_named(tmp_path: Path) -> None:
    item = case("thin-07", 1)
    thin = {key: value[..., :5] if isinstance(value, MetaTensor) else value for key, value in item.items()}
    thin |= {"target_native": thin["target"], "mask_native": thin["mask"]}
    with pytest.raises(ValueError, match=r"thin-07: structural_similarity: an image of 14x11x5 with a window of 7"):
        evaluate(tmp_path, [thin], {"thin-07": predict(item)[..., :5]}, restore=dict)


def test_a_prediction_that_is_not_finite_is_named(tmp_path: Path) -> None:
    item = case("bad-1", 1)
    prediction = predict(item)
    prediction[0, 1, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="bad-1: the prediction holds values that are NaN"):
        evaluate(tmp_path, [item], {"bad-1": prediction})


def test_batches_must_be_taken_apart(tmp_path: Path, items: list[Item]) -> None:
    report = TranslationReport(tmp_path, items, Slices(), "t1n", "t2f", BLOCK_LENGTH, {})
    with pytest.raises(ValueError, match="decollate=True"):
        run(report, items, {item["case"]: predict(item) for item in items}, decollate=False)


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 cases"):
        TranslationReport(tmp_path, [], Slices(), "t1n", "t2f", 3, {})


def example_of(item: Item) -> Example:
    block = {name: torch.from_numpy(volume)[None] for name, volume in methods_of(item).items()}
    region = torch.as_tensor(item["region"].as_tensor()[..., BLOCK] > 0) if "region" in item else None
    deviation = torch.full_like(block["target"], 0.1)
    return example_slice(item["case"], item["source"], BLOCK.start, block, region, deviation)


def test_the_slice_shown_has_most_of_the_region_or_is_the_middle_one(items: list[Item]) -> None:
    for item, z in ((items[0], 7), (items[2], BLOCK.start + BLOCK_LENGTH // 2)):
        shown = example_of(item)
        volumes = {name: volume[..., z - BLOCK.start] for name, volume in methods_of(item).items()}
        assert shown.place_mm == 5 * z - 20
        np.testing.assert_allclose(shown.images["source"], volumes["source_copy"], atol=1e-6)
        error = np.abs(volumes["prediction"] - volumes["target"])
        np.testing.assert_allclose(shown.images["error"], error, atol=1e-6)
        expected = peak_signal_noise_ratio(volumes["target"], volumes["pointwise"], data_range=1)
        assert shown.psnr["pointwise"] == pytest.approx(expected, abs=1e-3)


def test_the_figure_shows_each_image_in_its_place_and_scale() -> None:
    """Nose up and the patient's left at the right; CT in a window of its own; differences on half of the range."""
    image = np.zeros((6, 8), np.float32)
    image[0, 7] = 1  # left (x grows to the right side of the patient), front
    region = image > 0
    example = Example("a", 12.0, {"source": image, "error": image / 2}, region, {"source": 31.25})
    columns = {"source": "source\nct", "error": "error"}
    modalities = {"source": "ct", "error": "t1n"}
    figure = draw_examples([example, example], columns, {"error": 0.5}, modalities, (-1024, 3000))
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 4  # the target is no CT
    shown = panels[0].images[0].get_array()
    assert shown.shape == (8, 6)
    assert np.argwhere(shown == 1).tolist() == [[0, 5]]
    assert panels[0].images[0].get_clim() == pytest.approx([(level + 1024) / 4024 for level in (-500, 1300)])
    assert panels[1].images[0].get_clim() == pytest.approx((0, 0.5))
    assert panels[0].get_xlabel() == "PSNR 31.2 dB"
    assert panels[0].get_ylabel() == "a\nz = 12 mm"
    assert [bool(panel.collections) for panel in panels] == [False, True, False, True]  # outlined on differences
    assert bars_below(panels[2:]) == [["-500", "1300 HU"], ["0", "0.5"]]
    assert bars_below(panels[:2]) == []


def bars_below(panels: Sequence[Any]) -> list[list[str]]:
    """What the scales say."""
    return [[label.get_text() for label in bar.get_xticklabels()] for panel in panels for bar in panel.child_axes]


def test_a_ct_is_drawn_in_the_windows_of_bone_and_of_soft_tissue() -> None:
    """Two rows an example, on the network's own window; the MR beside it once."""
    image = np.full((6, 8), 0.5, np.float32)
    example = Example("a", 12.0, dict.fromkeys(("source", "prediction", "error"), image), None, {"prediction": 20})
    columns = {"source": "mr", "prediction": "ct", "error": "error"}
    modalities = {"source": "mr", "prediction": "ct", "error": "ct"}
    figure = draw_examples([example, example], columns, {"error": 0.5}, modalities, (-1000, 1000))
    rows = np.array(figure.axes[:12]).reshape(4, 3)
    assert [[bool(panel.images) for panel in row] for row in rows] == 2 * [[True] * 3, [False, True, True]]
    for row, view in zip(rows, 2 * CT_VIEWS, strict=True):
        assert row[1].images[0].get_clim() == pytest.approx([(level + 1000) / 2000 for level in view[1:3]])
        assert row[2].images[0].get_clim() == pytest.approx((0, view.contrast / 2 / 2000))
    assert [row[0].get_ylabel() or row[1].get_ylabel() for row in rows[:2]] == [
        "a\nz = 12 mm\nbone window",
        "soft-tissue\nwindow",
    ]
    assert [row[1].get_xlabel() for row in rows] == ["PSNR 20.0 dB", "", "PSNR 20.0 dB", ""]
    assert bars_below(rows[:2].ravel()) == []
    assert bars_below(rows[2]) == [["0", "1"], ["-500", "1300 HU"], ["0", "500 HU"]]
    assert bars_below(rows[3]) == [["-100", "150 HU"], ["0", "125 HU"]]


def test_a_few_cases_are_drawn_evenly_spread(tmp_path: Path) -> None:
    drawn: list[str] = []

    class Listing(TranslationReport):
        def draw(self, examples: Sequence[Example], headline: str) -> None:
            drawn.extend(each.case for each in examples)

    evaluate(tmp_path, [case(name, seed) for seed, name in enumerate("fbdgcae")], kind=Listing, number=3)
    assert drawn == ["a", "d", "g"]


def test_the_picture_is_written_also_without_regions_and_samples(tmp_path: Path, items: list[Item]) -> None:
    widths = []
    for name, count in (("full", 3), ("plain", 1)):
        chosen = items if count > 1 else items[2:]
        predictions = {item["case"]: predict(item)[:count] for item in chosen}
        evaluate(tmp_path / name, chosen, predictions, kind=TranslationReport)
        picture = np.asarray(Image.open(tmp_path / name / "report.png").convert("L"))
        assert picture.std() > 20
        widths.append(picture.shape[1])
    assert widths[0] > widths[1] + 100  # one column more


def test_the_picture_names_the_record(tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr("matplotlib.figure.Figure.suptitle", lambda self, text, **_: titles.append(text))
    record = {"seed": 7, "method": {"name": "med_dit", "conditioning": "spatial"}, "weights": "model.pt"}
    evaluate(tmp_path, items, kind=TranslationReport, record=record)
    assert "seed: 7, method (name: med_dit, conditioning: spatial), weights: model.pt" in titles[0]
    assert "research use only" in titles[0]


def _one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    every = [case("b", 1), case("a", 2), case("c", 3, region=False)]
    own = every[:2] if rank == 0 else every[1:]  # uneven order, one case twice
    report = TranslationReport(f"{folder}/two", every, Slices(), "t1n", "t2f", BLOCK_LENGTH, {"seed": 7})
    run(report, own, {item["case"]: predict(item) for item in own})
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_write_what_one_writes(tmp_path: Path, items: list[Item]) -> None:
    torch.multiprocessing.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
    evaluate(tmp_path / "one", items, kind=TranslationReport)
    for name in ("metrics.json", "metrics_cases.csv", "report.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
