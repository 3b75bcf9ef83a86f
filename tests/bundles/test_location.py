"""Bundles run from any copy of the repository and write nowhere but where they say."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from command_line import command_line

from bundles import BUNDLES, FACTS, ROOT, keys, tiny

# `import monai` imports matplotlib, which lists the system's fonts in a cache of its own before any code of ours runs
BY_MONAI = r"\.(cache|config)(/matplotlib(/fontlist-.*)?)?$"
ALLOWED = ("output", "models", "data")  # in bundle_root; output_dir, ckpt_dir and dataset_dir lie there by default


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> digest of all files below ``folder``, or "folder"."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository's files, without its history, at a path with a space."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, to tell the repository's files from others")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    target = tmp_path / "a copy" / "of the project"
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def stays_in_the_bundle(bundle: str, name: str) -> bool:
    return any(name == f"bundles/{bundle}/{part}" or name.startswith(f"bundles/{bundle}/{part}/") for part in ALLOWED)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_copy_at_a_path_with_a_space_writes_into_its_bundle_only(bundle: str, copy: Path, tmp_path: Path) -> None:
    """All trainings, evaluation and inference on one and the same embedded phantom, all with the default paths."""
    outside = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "temporary"}
    for folder in outside.values():
        folder.mkdir()
    before = contents(copy)
    facts = FACTS[bundle]
    stages = [[stage] for stage in facts.stages.values()]
    for names in (*stages, ["train"], ["train", "evaluate"], ["inference"]):
        settings = facts.embedded | facts.others.get(names[0], {}) | {"device": "cpu"}
        options = {key: value for key, value in settings.items() if key in keys(bundle, names[0])}
        options |= facts.evaluation if "evaluate" in names else {}
        environment = {name: str(folder) for name, folder in outside.items()}
        result = command_line(bundle, names, options, root=copy, **environment)
        assert result.returncode == 0, result.stderr[-4000:]

    after = contents(copy)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not stays_in_the_bundle(bundle, name)} == set()
    root = f"bundles/{bundle}"
    assert {
        f"{root}/models/model.pt",
        f"{root}/output/evaluation",
        f"{root}/output/inference",
        f"{root}/data",
    } <= changed
    assert len([path for path in (copy / root / "data").iterdir() if path.is_dir()]) == 1
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert contents(outside["TMPDIR"]) == {}
    assert {name for name in contents(outside["HOME"]) if not re.match(BY_MONAI, name)} == set()


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_run_with_folders_of_its_own_leaves_the_repository_alone(
    bundle: str, copy: Path, data_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """All three folders elsewhere, at paths with a space; the data are only read."""
    data = shutil.copytree(data_of(bundle), tmp_path / "my data")
    before, before_data = contents(copy), contents(data)
    result = command_line(bundle, ["train"], tiny(bundle, data, tmp_path / "my results"), root=copy)
    assert result.returncode == 0, result.stderr[-4000:]
    assert contents(copy) == before
    assert contents(data) == before_data
    assert {path.name for path in (tmp_path / "my results").iterdir()} == {"models", "output"}
