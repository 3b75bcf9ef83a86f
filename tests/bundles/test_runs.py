"""Each bundle trains, evaluates and infers on tiny data, through MONAI's own entry points."""

import csv
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow, run
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from bundles import BUNDLES, ROOT, all_overlays, base, configs, keys, read, tiny, tiny_inference


@pytest.fixture(scope="module", params=BUNDLES)
def trained(request: pytest.FixtureRequest, picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """(bundle, data, folder) after a training of two steps."""
    folder = tmp_path_factory.mktemp(request.param)
    bundle = request.param
    run(config_file=str(configs(bundle) / "train.json"), **tiny(bundle, picture_folder, folder))
    return bundle, picture_folder, folder


def test_training_writes_what_the_contract_says(trained: tuple) -> None:
    _, _, folder = trained
    assert (folder / "models" / "model.pt").is_file()
    assert (folder / "output" / "samples_000001.png").is_file()
    assert list((folder / "output" / "checkpoints").glob("checkpoint_*.pt"))
    assert list((folder / "output" / "tensorboard").iterdir())
    assert {path.name for path in folder.iterdir()} == {"models", "output"}


def test_weights_are_plain_tensors(trained: tuple) -> None:
    _, _, folder = trained
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert not any(name.startswith("module.") for name in state)


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_properties_conform_to_monai(trained: tuple, kind: str, tmp_path: Path) -> None:
    bundle, data, _ = trained
    file = configs(bundle) / ("train.json" if kind == "train" else "inference.json")
    options = (tiny if kind == "train" else tiny_inference)(bundle, data, tmp_path)
    workflow = create_workflow(config_file=str(file), workflow_type=kind, **options)
    assert workflow.check_properties() == []


def test_evaluation_writes_scores_with_their_floors(trained: tuple) -> None:
    bundle, data, folder = trained
    files = [str(configs(bundle) / "train.json"), str(configs(bundle) / "evaluate.json")]
    run(config_file=files, **tiny(bundle, data, folder))
    results = folder / "output" / "evaluation"
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["n"]["samples"] == 6
    for score in metrics["scores"].values():
        for group in ("samples", "held_out"):
            assert np.isfinite(score[group]["value"])
            assert score[group]["bootstrap_sd"] >= 0
    with (results / "metrics_cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sample"] for row in rows] == [str(i) for i in range(6)]
    assert Image.open(results / "report.png").size[0] > 800


def test_inference_gives_the_same_images_for_any_batch_size(trained: tuple) -> None:
    bundle, data, folder = trained
    images = {}
    for batch_size in (1, 3):
        out = folder / f"inference_{batch_size}"
        options = tiny_inference(bundle, data, folder, batch_size=batch_size, output_dir=str(out))
        run(config_file=str(configs(bundle) / "inference.json"), **options)
        files = sorted(out.glob("sample_*.nii.gz"))
        assert len(files) == 3
        images[batch_size] = np.stack([np.asarray(nibabel.load(file).dataobj) for file in files])
    assert images[1].shape[1:] == (16, 16, 1)
    assert images[1].dtype == np.float32
    assert images[1].min() >= 0
    assert images[1].max() <= 1
    np.testing.assert_allclose(images[1], images[3], atol=1e-4)
    assert np.abs(images[1][0] - images[1][1]).max() > 1e-3


def test_generated_files_say_that_they_are_synthetic(trained: tuple) -> None:
    bundle, data, folder = trained
    out = folder / "provenance"
    options = tiny_inference(bundle, data, folder, num_samples=1, seed=7, output_dir=str(out))
    run(config_file=str(configs(bundle) / "inference.json"), **options)
    header = nibabel.load(out / "sample_000000.nii.gz").header
    assert bytes(header["descrip"]).startswith(f"SYNTHETIC bundle={bundle} ".encode())
    record = json.loads((out / "sample_000000.json").read_text())
    assert record["synthetic"] is True
    assert (record["bundle"], record["seed"], record["index"]) == (bundle, 7, 0)


def test_metadata_describes_the_network(trained: tuple) -> None:
    """Input and output of the network that inference.json builds have the shape and type that metadata states."""
    bundle, _, _ = trained
    metadata = json.loads((configs(bundle) / "metadata.json").read_text())
    formats = metadata["network_data_format"]
    network = read(bundle, "inference").get_parsed_content("network_def").eval()
    entry = formats["inputs"]["image"]
    x = torch.zeros(2, entry["num_channels"], *entry["spatial_shape"], dtype=getattr(torch, entry["dtype"]))
    network.load_state_dict(torch.load(ROOT / "bundles" / bundle / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        y = network(x, torch.full((2,), 0.5))
    entry = formats["outputs"]["pred"]
    assert y.shape == (2, entry["num_channels"], *entry["spatial_shape"])
    assert y.dtype == getattr(torch, entry["dtype"])


def test_shipped_weights_fit_inference() -> None:
    """The weights in the repository load strictly into the network of inference.json and stay small."""
    for bundle in BUNDLES:
        path = ROOT / "bundles" / bundle / "models" / "model.pt"
        assert path.stat().st_size < 12e6
        parser = read(bundle, "inference")
        network = parser.get_parsed_content("network_def")
        network.load_state_dict(torch.load(path, weights_only=True), strict=True)
        network.check_ready()


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "overlay"), [(b, o) for b, o in all_overlays() if not o.startswith("multi_gpu")])
def test_every_overlay_runs(bundle: str, overlay: str, picture_folder: Path, tmp_path: Path) -> None:
    """Two steps, an evaluation or a sampling with each overlay; sizes are those of the tiny run, all else its own."""
    name = base(overlay)
    options = tiny(bundle, picture_folder, tmp_path)
    if name == "inference" or overlay == "evaluate":  # these need weights, trained with what the overlay asks for
        train = json.loads((configs(bundle) / f"{overlay}.json").read_text()).keys() & keys(bundle, "train")
        content = json.loads((configs(bundle) / f"{overlay}.json").read_text())
        settings = {key: content[key] for key in train if isinstance(content[key], (str, int, float, bool))}
        settings = {key: value for key, value in settings.items() if not str(value).startswith("$")}
        run(config_file=str(configs(bundle) / "train.json"), **{**settings, **options})
    if name == "inference":
        options = tiny_inference(bundle, picture_folder, tmp_path)
    run(config_file=[str(configs(bundle) / f"{name}.json"), str(configs(bundle) / f"{overlay}.json")], **options)
    assert list(tmp_path.rglob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "name"), [("dct_moe", "paper_acdc"), ("dct_moe", "paper_echonet")])
def test_paper_overlays_build_the_papers_network(bundle: str, name: str) -> None:
    """163,173,184 and 163,213,120 parameters (DCT-MoE, table 3, m = 0, four experts)."""
    parser = read(bundle, "train", name)
    parser["network_def"]["statistics"] = None
    network = parser.get_parsed_content("network_def")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == {"paper_acdc": 163_173_184, "paper_echonet": 163_213_120}[name]


@pytest.mark.gpu
@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_and_sampling_on_a_gpu(bundle: str, picture_folder: Path, tmp_path: Path) -> None:
    """Train, resume, evaluate and sample in bf16 on the device; nothing waits for it inside a step but the handlers."""
    options = {**tiny(bundle, picture_folder, tmp_path), "device": "$torch.device('cuda:0')", "amp": True}
    train = str(configs(bundle) / "train.json")
    run(config_file=train, **options)
    run(config_file=train, **{**options, "max_epochs": 2, "resume": True})
    run(config_file=[train, str(configs(bundle) / "evaluate.json")], **options)
    sampling = {**tiny_inference(bundle, picture_folder, tmp_path), "device": "$torch.device('cuda:0')", "amp": True}
    run(config_file=str(configs(bundle) / "inference.json"), **sampling)
    assert len(list((tmp_path / "inference").glob("sample_*.nii.gz"))) == 3
