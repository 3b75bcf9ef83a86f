"""Mistyped options and busy output folders end a run before it does anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.engines.preflight import begin_run, check_overrides, lock_folder


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "train.json"
    train = {
        "trainer": {"_target_": "SupervisedTrainer", "max_epochs": 3},
        "handlers": [{"_target_": "ValidationHandler", "interval": 1}],
        "names": {"first": 1},
    }
    path.write_text(json.dumps({"learning_rate": 1, "max_epochs": 2, "train": train, "network": "@n"}))
    return str(path)


@pytest.mark.parametrize(
    "option",
    [
        ["--learning_rate", "0.1"],
        ["--learning-rate=0.1"],
        ["-learning_rate", "0.1"],
        ["--train#trainer#max_epochs", "1"],
        ["--train::trainer::max_epochs", "1"],
        ["--train#trainer#amp_kwargs", "{}"],
        ["--train#handlers#0#interval", "3"],
        ["--network#0#depth", "3"],
        ["--run_id", "run"],
    ],
)
def test_known_options_pass(config: str, option: list[str]) -> None:
    check_overrides(["run", "--config_file", config, *option])


@pytest.mark.parametrize("option", [["--learning_rat", "0.1"], ["--learning_rat=0.1"], ["-lrate", "-1"]])
def test_a_mistyped_option_is_named_with_what_was_meant(config: str, option: list[str]) -> None:
    with pytest.raises(ValueError, match=r"unknown option --l.*; did you mean --learning_rate.*max_epochs"):
        check_overrides(["run", "--config_file", config, *option])


def test_keys_of_overlays_count(config: str, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"+imports": [], "load_path": "x", "train#sampler": {}}))
    arguments = ["--config_file", f"['{config}','{overlay}']", "--load_path", "y"]
    check_overrides(arguments)
    with pytest.raises(ValueError, match="load_pat"):
        check_overrides([*arguments, "--load_pat", "y"])


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("--train#trainr#max_epochs", "--train#trainer"),
        ("--train::names::firts", "--train#names#first"),
    ],
)
def test_a_mistyped_part_of_a_nested_option_is_named(config: str, option: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown option {option}: .* did you mean {near}\?"):
        check_overrides(["--config_file", config, option, "4"])


def test_config_files_may_be_listed_with_commas(config: str, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"load_path": "x"}))
    check_overrides(["--config_file", f"{config},{overlay}", "--load_path", "y", "--max_epochs", "3"])


def test_other_programs_are_left_alone() -> None:
    check_overrides(["--anything", "goes"])


def test_nothing_is_written_for_a_mistyped_option(config: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--max_epoch"):
        begin_run(str(tmp_path / "out"), None, ["--config_file", config, "--max_epoch", "3"])
    assert not (tmp_path / "out").exists()


def test_an_output_folder_serves_one_run_at_a_time(tmp_path: Path) -> None:
    lock_folder(tmp_path / "out", "output_dir")
    lock_folder(tmp_path / "out", "output_dir")  # the same process may ask again
    program = f"from common.engines.preflight import begin_run; begin_run({str(tmp_path / 'out')!r}, None, [])"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "in use by another run" in other.stderr
    assert "--output_dir" in other.stderr


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, signal; from common.engines.preflight import lock_folder;"
        f"lock_folder({str(tmp_path)!r}, 'output_dir'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    lock_folder(tmp_path, "output_dir")
