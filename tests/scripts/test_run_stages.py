"""scripts/run_stages.py: options reach the stages that know them, and a stage that fails is the last one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "run_stages.py"
CHAIN = ["autoencoder", "embedder", "train", "evaluate", "inference"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_stages", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def commands(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that would have been run, all with success."""
    seen: list[list[str]] = []

    def start(arguments: list[str], **_: Any) -> SimpleNamespace:
        seen.append(arguments)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(script.subprocess, "run", start)
    return seen


def options_of(command: list[str]) -> dict[str, str]:
    """``--name value`` pairs after the config files."""
    rest = command[command.index("--config_file") + 2 :]
    return {name.removeprefix("--"): value for name, value in zip(rest[::2], rest[1::2], strict=True)}


def files_of(command: list[str]) -> str:
    return command[command.index("--config_file") + 1]


def test_the_default_chain_runs_its_stages_in_order(script: ModuleType, commands: list[list[str]]) -> None:
    script.main("med_dit")
    root = "bundles/med_dit/configs/"
    assert [files_of(command) for command in commands] == [
        f"{root}train_autoencoder.json",
        f"{root}pretrain_embedder.json",
        f"{root}train.json",
        str([f"{root}train.json", f"{root}evaluate.json"]),
        f"{root}inference.json",
    ]
    assert all(command[:4] == [sys.executable, "-m", "monai.bundle", "run"] for command in commands)
    assert all(options_of(command) == {} for command in commands)


def test_every_stage_has_config_files_that_exist(script: ModuleType) -> None:
    folder = ROOT / "bundles" / "med_dit" / "configs"
    plan = script.read_plan(folder)
    assert all(set(chain) <= set(plan["stages"]) for chain in plan["chains"].values())
    for name, stage in plan["stages"].items():
        assert all((folder / file).is_file() for file in stage.get("config", [])), name
        assert "config" in stage or (ROOT / "scripts" / stage["script"]).is_file(), name


def test_an_option_reaches_every_stage_that_knows_it_and_no_other(
    script: ModuleType, commands: list[list[str]]
) -> None:
    """``input_dir`` is of inference alone, ``tau`` of the embedder, ``dataset`` of all that train."""
    options = {"input_dir": "mine", "tau": 0.2, "dataset": "synthrad", "image_size": [32, 48]}
    script.main("med_dit", **options, **{"train.max_epochs": 50})
    found = dict(zip(CHAIN, map(options_of, commands), strict=True))
    shared = {"dataset": "synthrad", "image_size": "[32, 48]"}
    assert found["autoencoder"] == shared
    assert found["embedder"] == {**shared, "tau": "0.2"}
    assert found["train"] == {**shared, "max_epochs": "50"}
    assert found["evaluate"] == shared
    # in inference, `dataset` is the list of volumes; the name of the data set that they come from has one of its own
    assert found["inference"] == {"input_dir": "mine", "image_size": "[32, 48]", "mr_dataset": "synthrad"}


def test_a_nested_key_goes_by_its_first_part(script: ModuleType, commands: list[list[str]]) -> None:
    script.main("med_dit", **{"validate#inferer#eta": 0.5})
    assert ["validate#inferer#eta" in options_of(command) for command in commands] == [True, False, True, True, False]


def test_stages_can_be_chosen(script: ModuleType, commands: list[list[str]]) -> None:
    """As text, as fire's list, as a chain; a script among them gets the folder of the bundle."""
    script.main("med_dit", stages="embedder,train")
    script.main("med_dit", stages=("train", "evaluate"))
    assert len(commands) == 4
    commands.clear()
    script.main("med_dit", stages="all", bundle_root="/elsewhere")
    *runs, comparison = commands
    assert all(options_of(command) == {"bundle_root": "/elsewhere"} for command in runs)
    assert comparison[1] == "scripts/compare_translators.py"
    assert "pix2pix=/elsewhere/output/pix2pix/evaluation" in comparison[3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_epoch": 3}, "--max_epoch belongs to none of the stages autoencoder, embedder"),
        ({"trian.max_epochs": 3}, "--trian.max_epochs belongs to none"),
        ({"train.max_epoch": 3}, "--train.max_epoch"),
        ({"channels": 3, "stages": "train"}, "--channels belongs to none of the stages train"),
        ({"ckpt_dir": "x"}, "--ckpt_dir would be the same for all stages; say --<stage>.ckpt_dir"),
        ({"stages": "train,evalute"}, "Unknown stage evalute; stages: autoencoder, embedder, train"),
    ],
    ids=str,
)
def test_what_belongs_to_no_stage_is_refused_before_anything_runs(
    script: ModuleType, commands: list[list[str]], options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SystemExit, match=expected):
        script.main("med_dit", **options)
    assert commands == []


def test_a_bundle_without_stages(script: ModuleType, commands: list[list[str]]) -> None:
    with pytest.raises(SystemExit, match=r"bundles with stages: .*med_dit"):
        script.main("dct_moe")
    assert commands == []


def test_the_first_stage_that_fails_ends_the_chain(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name and how to go on are told."""
    seen = []

    def start(arguments: list[str], **_: Any) -> SimpleNamespace:
        seen.append(files_of(arguments))
        return SimpleNamespace(returncode=int("pretrain_embedder" in seen[-1]))

    monkeypatch.setattr(script.subprocess, "run", start)
    expected = "Stage embedder of med_dit failed.*--stages embedder,train,evaluate,inference"
    with pytest.raises(SystemExit, match=expected):
        script.main("med_dit")
    assert len(seen) == 2


TINY = {
    "phantom_cases": 12,
    "phantom_size": 48,
    "image_size": "[32,48]",
    "device": "cpu",
    "max_epochs": 1,
    "epoch_length": 2,
    "batch_size": 4,
    "val_interval": 1,
    "num_val_slices": 6,
    "hidden_size": 32,
    "depth": 1,
    "num_heads": 2,
    "num_steps": 3,
}


def run_stages(folder: Path, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    arguments = [text for name, value in {**TINY, **options}.items() for text in (f"--{name}", str(value))]
    return subprocess.run(
        [sys.executable, str(SCRIPT), "med_dit", "--bundle_root", str(folder), *arguments, *more],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_the_whole_chain_from_the_command_line(tmp_path: Path) -> None:
    """Every stage finds what the former one has left, and all of it lies in the folder given."""
    result = run_stages(tmp_path, **{"autoencoder.channels": "[16,16]"})
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.count("=== med_dit, stage ") == 5
    assert "All 5 stages of med_dit: " in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"data", "models", "output"}
    for stage in ("autoencoder", "embedder", "."):
        assert (tmp_path / "models" / stage / "model.pt").is_file()
    metrics = json.loads((tmp_path / "output" / "evaluation" / "metrics.json").read_text())
    assert metrics["bundle"] == "med_dit"
    volumes = list((tmp_path / "output" / "inference").glob("*_ct.nii.gz"))
    assert len(volumes) == metrics["n"]["cases"]
    assert all(nibabel.load(path).get_data_dtype() == np.int16 for path in volumes)


@pytest.mark.slow
def test_a_failure_of_a_real_stage_ends_the_chain_with_its_message(tmp_path: Path) -> None:
    result = run_stages(tmp_path, stages="train,evaluate")
    assert result.returncode == 1
    errors = result.stderr.splitlines()
    assert any(line.startswith("error: There is no trained autoencoder at ") for line in errors), result.stderr
    assert errors[-1].startswith("Stage train of med_dit failed")
    assert "stage 2 of 2" not in result.stdout


def test_a_stage_may_know_an_option_by_another_name(script: ModuleType, commands: list[list[str]]) -> None:
    """``dataset`` is a component in inference.json, where the data set's name is ``label_dataset``."""
    options = {"dataset": "acdc", "dataset_dir": "/data/acdc", "split": "stratified"}
    script.main("fqcdm", stages="train,inference", **options)
    train, inference = map(options_of, commands)
    assert train == options
    quick = {"sampler": "ddim", "num_steps": "25"}
    assert inference == {**quick, "label_dataset": "acdc", "dataset_dir": "/data/acdc", "label_split": "stratified"}
    commands.clear()
    script.main("fqcdm", stages="inference", dataset="acdc")
    assert options_of(commands[0]) == {**quick, "label_dataset": "acdc"}


def test_a_stage_of_another_bundle_writes_below_the_folder_of_this_one(
    script: ModuleType, commands: list[list[str]]
) -> None:
    script.main("fqcdm", stages="segmenter", bundle_root="/elsewhere", max_epochs=2)
    found = options_of(commands[0])
    assert found["ckpt_dir"] == "/elsewhere/models/segmenter"
    assert found["max_epochs"] == "2"
    assert files_of(commands[0]).endswith("cardiac_segmentation/configs/train.json")
