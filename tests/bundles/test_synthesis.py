"""What bundles that draw images from noise write."""

import csv
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import run

sys.path.insert(0, str(Path(__file__).parent))
from bundles import Trained, configs, inferred, of_kind, read, tiny, tiny_inference

on_synthesis = pytest.mark.parametrize("trained", of_kind("synthesis"), indirect=True)


@on_synthesis
def test_evaluation_scores_samples_beside_held_out_images(trained: Trained) -> None:
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


@on_synthesis
def test_samples_are_single_slices_in_the_unit_range_and_know_their_number(trained: Trained) -> None:
    bundle, data, folder = trained
    run(config_file=str(configs(bundle) / "inference.json"), **tiny_inference(bundle, data, folder))
    files = inferred(bundle, folder / "inference")
    images = np.stack([np.asarray(nibabel.load(file).dataobj) for file in files])
    assert images.shape == (3, 16, 16, 1)
    assert images.min() >= 0
    assert images.max() <= 1
    assert min(np.abs(images[i] - images[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
    records = [json.loads(Path(str(file).replace(".nii.gz", ".json")).read_text()) for file in files]
    assert [record["index"] for record in records] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "name"), [("dct_moe", "paper_acdc"), ("dct_moe", "paper_echonet")])
def test_paper_overlays_build_the_papers_network(bundle: str, name: str) -> None:
    """163,173,184 and 163,213,120 parameters (DCT-MoE, table 3, m = 0, four experts)."""
    parser = read(bundle, "train", name)
    parser["network_def"]["statistics"] = None
    network = parser.get_parsed_content("network_def")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == {"paper_acdc": 163_173_184, "paper_echonet": 163_213_120}[name]
