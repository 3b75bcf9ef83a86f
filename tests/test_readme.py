"""The commands in the README files are what the code takes."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import fire
import pytest

from common.engines.preflight import check_overrides

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("bundles/*/docs/README.md"))]


def commands() -> list[str]:
    """Lines of all code blocks."""
    blocks = [block for path in DOCUMENTS for block in re.findall(r"```\w*\n(.*?)```", path.read_text("utf-8"), re.S)]
    return sorted({line.strip() for block in blocks for line in block.splitlines() if line.strip()})


def bundle_commands() -> list[str]:
    return [command for command in commands() if "monai.bundle run" in command]


def test_there_are_commands_to_check() -> None:
    assert len(bundle_commands()) >= 6
    assert {"make demo", "make test"} <= set(commands())


@pytest.mark.parametrize("command", bundle_commands())
def test_config_files_and_options_exist(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)
    check_overrides(arguments[arguments.index("monai.bundle") + 1 :])


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.M)


def script_commands() -> list[str]:
    return [command for command in commands() if command.startswith("python scripts/")]


@pytest.mark.parametrize("command", [command for command in script_commands() if "run_stages" in command])
def test_stages_take_the_options(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are those of the stages; it refuses what belongs to none before anything runs."""
    monkeypatch.chdir(ROOT)
    script = runpy.run_path("scripts/run_stages.py")
    runs: list[list[str]] = []

    def pretend(arguments: list[str], **_: object) -> subprocess.CompletedProcess:
        runs.append(arguments)
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr(subprocess, "run", pretend)
    fire.Fire(script["main"], shlex.split(command)[2:])
    for arguments in runs:
        if "monai.bundle" in arguments:
            check_overrides(arguments[arguments.index("monai.bundle") + 1 :])
    assert runs


@pytest.mark.parametrize("command", [command for command in script_commands() if "run_stages" not in command])
def test_scripts_take_the_options(command: str) -> None:
    script, *arguments = shlex.split(command)[1:]
    text = help_of(script)
    passed_on = settings_of_strategies() if "run_strategy" in script else set()
    for option in re.findall(r"--(\w+)", " ".join(arguments)):
        found = re.search(rf"--{option}\b|\b{option.upper()}\b", text)
        assert found or option in passed_on, f"{script} has no option --{option}"


@cache
def help_of(script: str) -> str:
    run = subprocess.run(
        [sys.executable, ROOT / script, "--", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return run.stdout + run.stderr


def settings_of_strategies() -> set[str]:
    """Options that run_strategy.py hands on to its trainings."""
    configs = ROOT / "bundles" / "cardiac_segmentation" / "configs"
    return set(json.loads((configs / "train.json").read_text("utf-8")))


def test_files_named_in_the_documents_exist() -> None:
    for path in DOCUMENTS:
        for name in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
            assert (path.parent / name).exists(), f"{path} links to {name}"


@pytest.mark.slow
def test_demo_ends_with_a_picture() -> None:
    """``make demo`` at a fraction of its length, in the checkout as it is."""
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py", "--epochs", "1", "--samples", "6"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=900,
    )
    assert (ROOT / "output" / "demo" / "demo.png").stat().st_size > 50_000
    assert "demo.png" in run.stdout.splitlines()[-5] + run.stdout.splitlines()[-6]
    assert "--dataset acdc" in run.stdout
