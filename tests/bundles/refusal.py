"""A run that must be refused: one message of our own, and every file that was there is still there."""

from pathlib import Path

import pytest
from monai.bundle import run

from bundles import Options, Trained, configs
from common.engines.failure import is_deliberate, root_cause


def snapshot(folder: Path) -> dict[str, bytes]:
    """Content of all files below ``folder`` but the lock; checkpoints also count where a new run moves them to."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    names = [str(path.relative_to(folder)).replace("checkpoints.previous", "checkpoints") for path in files]
    return {name: path.read_bytes() for name, path in zip(names, files, strict=True)}


def require_untouched(before: dict[str, bytes], folder: Path) -> None:
    after = snapshot(folder)
    assert before
    assert [name for name in before if after.get(name) != before[name]] == []
    assert not list(folder.rglob(".writing-*"))


def refused(trained: Trained, names: list[str], options: Options, *expected: str) -> None:
    """The run of these configs ends with a message that holds all of ``expected``; nothing has changed."""
    before = snapshot(trained.folder)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(config_file=[str(configs(trained.bundle) / f"{name}.json") for name in names], **options)
    cause = root_cause(caught.value)  # what the user sees last
    assert is_deliberate(cause), repr(cause)
    assert [part for part in expected if part not in str(cause)] == [], str(cause)
    require_untouched(before, trained.folder)
