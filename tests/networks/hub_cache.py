"""Files of a pretrained model as the hub's own tools keep them, and broken ones."""

import shutil
from collections.abc import Callable
from pathlib import Path

from common.networks.encoders.hub import HubFiles


def as_cache(folder: Path, cache: Path, *repositories: HubFiles) -> None:
    """Put a folder's files where the hub's own tools keep them, under commit numbers aaa..., bbb..."""
    for wanted, letter in zip(repositories, "abc", strict=False):
        repository = cache / f"models--{wanted.repository.replace('/', '--')}"
        shutil.copytree(folder / wanted.subfolder, repository / "snapshots" / (letter * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(letter * 40)


def cut_short(path: Path) -> None:
    """A download that ended half-way."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path: Path) -> None:
    """A file that was created and never filled."""
    path.write_bytes(b"")


def git_lfs_pointer(path: Path) -> None:
    """What ``git clone`` leaves without git-lfs."""
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 334643276\n")


BREAKS: list[Callable[[Path], None]] = [cut_short, emptied, git_lfs_pointer]
