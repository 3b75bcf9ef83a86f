"""Each bundle trains, evaluates and infers on tiny data, through MONAI's own entry points."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow, run
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from bundles import (
    BUNDLES,
    FACTS,
    ROOT,
    Trained,
    all_overlays,
    base,
    configs,
    inferred,
    keys,
    read,
    split_record,
    tiny,
    tiny_evaluation,
    tiny_inference,
)

DataOf = Callable[[str], Path]


def test_training_writes_what_the_contract_says(trained: Trained) -> None:
    bundle, _, folder = trained
    assert (folder / "models" / "model.pt").is_file()
    assert (folder / "output" / FACTS[bundle].picture.format(1)).is_file()
    assert list((folder / "output" / "checkpoints").glob("checkpoint_*.pt"))
    assert list((folder / "output" / "tensorboard").iterdir())
    assert {path.name for path in folder.iterdir()} == {"models", "output"}
    split = split_record(folder)
    assert not set(split["training"]["patients"]) & set(split["validation"]["patients"])


def test_weights_are_plain_tensors(trained: Trained) -> None:
    _, _, folder = trained
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert not any(name.startswith("module.") for name in state)


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_properties_conform_to_monai(trained: Trained, kind: str, tmp_path: Path) -> None:
    bundle, data, folder = trained
    file = configs(bundle) / ("train.json" if kind == "train" else "inference.json")
    options = tiny(bundle, data, tmp_path) if kind == "train" else tiny_inference(bundle, data, folder)
    workflow = create_workflow(config_file=str(file), workflow_type=kind, **options)
    assert workflow.check_properties() == []


def test_evaluation_writes_scores_and_a_picture(trained: Trained) -> None:
    bundle, data, folder = trained
    files = [str(configs(bundle) / "train.json"), str(configs(bundle) / "evaluate.json")]
    run(config_file=files, **tiny_evaluation(bundle, data, folder))
    for protocol in FACTS[bundle].evaluations:
        results = folder / "output" / "evaluation" / protocol
        metrics = json.loads((results / "metrics.json").read_text())
        assert metrics["bundle"] == bundle
        assert metrics["seed"] == 0
        assert metrics["weights"] == str(folder / "models" / "model.pt")
        assert (results / "metrics_cases.csv").read_text().count("\n") > 1
        assert Image.open(results / "report.png").size[0] > 800


def test_inference_gives_the_same_images_for_any_batch_size(trained: Trained) -> None:
    bundle, data, folder = trained
    integers = FACTS[bundle].integers
    images = []
    for batch_size in (1, 3):
        out = folder / f"inference_{batch_size}"
        options = tiny_inference(bundle, data, folder, batch_size=batch_size, output_dir=str(out))
        run(config_file=str(configs(bundle) / "inference.json"), **options)
        volumes = [nibabel.load(file) for file in inferred(bundle, out)]
        assert {volume.get_data_dtype() for volume in volumes} == {np.dtype(np.int16 if integers else np.float32)}
        images.append([volume.get_fdata() for volume in volumes])
    for first, second in zip(*images, strict=True):
        assert first.std() > 0
        np.testing.assert_allclose(first, second, atol=1e-4 * np.abs(second).max() + integers)
        assert FACTS[bundle].kind != "segmentation" or (first != second).mean() < 1e-3
    assert all(not np.array_equal(images[0][0], other) for other in images[0][1:])


@pytest.mark.parametrize("trained", [b for b in BUNDLES if FACTS[b].kind != "segmentation"], indirect=True)
def test_generated_files_say_that_they_are_synthetic(trained: Trained) -> None:
    bundle, data, folder = trained
    out = folder / "provenance"
    options = tiny_inference(bundle, data, folder, seed=7, output_dir=str(out))
    run(config_file=str(configs(bundle) / "inference.json"), **options)
    for file in inferred(bundle, out):
        description = bytes(nibabel.load(file).header["descrip"]).rstrip(b"\0").decode()
        assert re.match(rf"SYNTHETIC .*\b{bundle} .*\bseed=7\b", description)
        record = json.loads(Path(str(file).replace(".nii.gz", ".json")).read_text())
        assert record["synthetic"] is True
        assert (record["bundle"], record["seed"]) == (bundle, 7)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_shipped_weights_fit_inference_and_metadata_describes_them(bundle: str) -> None:
    """The weights in the repository stay small and load strictly into the network of inference.json.

    Its inputs and its output have the shapes and types that metadata states, in the order of the arguments.
    """
    path = ROOT / "bundles" / bundle / "models" / "model.pt"
    assert path.stat().st_size < 12e6
    shipped = [path, *(path.parent.glob("*/model.pt"))]  # those of the stages before are in folders
    assert sum(file.stat().st_size for file in shipped) < 16e6
    network = read(bundle, "inference").get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    if hasattr(network, "check_ready"):
        network.check_ready()

    formats = json.loads((configs(bundle) / "metadata.json").read_text())["network_data_format"]
    inputs = []
    for entry in formats["inputs"].values():
        shape = (entry["num_channels"], *entry["spatial_shape"]) if entry["spatial_shape"] else ()
        inputs.append(torch.full((2, *shape), sum(entry["value_range"]) / 2).to(getattr(torch, entry["dtype"])))
    with torch.no_grad():
        y = network(*inputs)
    entry = formats["outputs"]["pred"]
    assert y.shape == (2, entry["num_channels"], *entry["spatial_shape"])
    assert y.dtype == getattr(torch, entry["dtype"])


OVERLAYS = [(b, o) for b, o in all_overlays() if not o.startswith("multi_gpu") and o not in FACTS[b].elsewhere]


def plain(value: Any) -> bool:
    """Whether an entry of a config is a number, a word or a list of them: no component, no expression."""
    if isinstance(value, list):
        return all(plain(item) for item in value)
    return isinstance(value, (str, int, float, bool)) and not str(value).startswith(("$", "@", "%"))


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "overlay"), OVERLAYS)
def test_every_overlay_runs(bundle: str, overlay: str, data_of: DataOf, tmp_path: Path) -> None:
    """Two steps, an evaluation or an inference with each overlay; sizes are those of the tiny run, all else its own."""
    names, data = base(bundle, overlay), data_of(bundle)
    name, more = names[0], FACTS[bundle].overlays.get(overlay, {})
    if overlay == "evaluate" or "evaluate" in names:
        more = FACTS[bundle].evaluation | more
    if any("load_path" in keys(bundle, part) for part in (*names, overlay)):  # of weights trained as the overlay asks
        training = "train" if name == "inference" else name
        content = json.loads((configs(bundle) / f"{overlay}.json").read_text())
        settings = {key: content[key] for key in content.keys() & keys(bundle, training) if plain(content[key])}
        own = {key: value for key, value in more.items() if key in keys(bundle, training)}
        options = {**settings, **tiny(bundle, data, tmp_path, config=training), **own}
        run(config_file=str(configs(bundle) / f"{training}.json"), **options)
    if name == "inference":
        options = tiny_inference(bundle, data, tmp_path)
    else:
        options = tiny(bundle, data, tmp_path, config=name) | more
    run(config_file=[str(configs(bundle) / f"{part}.json") for part in (*names, overlay)], **options)
    assert list(tmp_path.rglob("model.pt" if "validate" not in keys(bundle, name) else "*.png"))


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "stage"), [(b, s) for b in BUNDLES for s in FACTS[b].stages.values()])
def test_a_stage_before_the_training_writes_what_the_contract_says(
    bundle: str, stage: str, data_of: DataOf, tmp_path: Path
) -> None:
    """Plain weights, checkpoints and the patients it has seen, none of whom is for validation or test."""
    data = data_of(bundle)
    run(config_file=str(configs(bundle) / f"{stage}.json"), **tiny(bundle, data, tmp_path, config=stage))
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert list((tmp_path / "output" / "checkpoints").glob("checkpoint_*.pt"))
    assert list((tmp_path / "output" / "tensorboard").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"models", "output"}
    run(config_file=str(configs(bundle) / "train.json"), **tiny(bundle, data, tmp_path / "later"))
    ours, theirs = (split_record(folder) for folder in (tmp_path, tmp_path / "later"))
    assert ours["training"] == theirs["training"]


@pytest.mark.gpu
@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_and_inference_on_a_gpu(bundle: str, data_of: DataOf, tmp_path: Path) -> None:
    """Train, resume, evaluate and infer in bf16 on the device; nothing waits for it inside a step but the handlers."""
    on_gpu = {"device": "$torch.device('cuda:0')", "amp": True}
    options = tiny(bundle, data_of(bundle), tmp_path, **on_gpu)
    train = str(configs(bundle) / "train.json")
    run(config_file=train, **options)
    run(config_file=train, **{**options, "max_epochs": 2, "resume": True})
    evaluation = tiny_evaluation(bundle, data_of(bundle), tmp_path, **on_gpu)
    run(config_file=[train, str(configs(bundle) / "evaluate.json")], **evaluation)
    inference = tiny_inference(bundle, data_of(bundle), tmp_path, **on_gpu)
    run(config_file=str(configs(bundle) / "inference.json"), **inference)
    inferred(bundle, tmp_path / "inference")
