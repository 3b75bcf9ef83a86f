"""Mistyped options and busy output folders end a run before it does anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.engines.preflight import begin_run, check_overrides, lock_output


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"learning_rate": 1, "max_epochs": 2, "train": {"trainer": {"max_epochs": 3}}}))
    return str(path)


@pytest.mark.parametrize(
    "option",
    [
        ["--learning_rate", "0.1"],
        ["--learning-rate=0.1"],
        ["--train#trainer#max_epochs", "1"],
        ["--train::trainer::max_epochs", "1"],
        ["--run_id", "run"],
    ],
)
def test_known_options_pass(config: str, option: list[str]) -> None:
    check_overrides(["run", "--config_file", config, *option])


@pytest.mark.parametrize("option", [["--learning_rat", "0.1"], ["--learning_rat=0.1"], ["--lrate", "-1"]])
def test_a_mistyped_option_is_named_with_what_was_meant(config: str, option: list[str]) -> None:
    with pytest.raises(ValueError, match=r"unknown option --l.*did you mean --learning_rate.*max_epochs"):
        check_overrides(["run", "--config_file", config, *option])


def test_keys_of_overlays_count(config: str, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"+imports": [], "load_path": "x", "train#sampler": {}}))
    arguments = ["--config_file", f"['{config}','{overlay}']", "--load_path", "y"]
    check_overrides(arguments)
    with pytest.raises(ValueError, match="load_pat"):
        check_overrides([*arguments, "--load_pat", "y"])


def test_other_programs_are_left_alone() -> None:
    check_overrides(["--anything", "goes"])


def test_nothing_is_written_for_a_mistyped_option(config: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--max_epoch"):
        begin_run(str(tmp_path / "out"), ["--config_file", config, "--max_epoch", "3"])
    assert not (tmp_path / "out").exists()


def test_an_output_folder_serves_one_run_at_a_time(tmp_path: Path) -> None:
    lock_output(tmp_path / "out")
    lock_output(tmp_path / "out")  # the same process may ask again
    program = f"from common.engines.preflight import begin_run; begin_run({str(tmp_path / 'out')!r}, [])"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "in use by another run" in other.stderr
    assert "--output_dir" in other.stderr


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, signal; from common.engines.preflight import lock_output;"
        f"lock_output({str(tmp_path)!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    lock_output(tmp_path)
