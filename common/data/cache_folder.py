"""Folders of cached results that are there whole or not at all, whoever asks for them at the same time."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .locking import exclusive


def cached_folder(cache_dir: Path, name: str, write: Callable[[Path], None]) -> Path:
    """``cache_dir / name``, written now if it is not there.

    It is written under another name and renamed at the end, under a lock: one of any number of ranks and runs writes,
    the others wait, and nobody sees a part of it.

    Args:
        name: must change with everything that the content depends on.
        write: fills the empty folder it is given.
    """
    folder = cache_dir / name
    if not folder.is_dir():
        with exclusive(cache_dir / f".{name}.lock"):
            if not folder.is_dir():
                with _temporary_folder(cache_dir, prefix=f".{name}-") as temporary:
                    write(temporary)
                    temporary.rename(folder)
    return folder


@contextmanager
def _temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder that is removed at the end, unless it was renamed; the caller holds the lock of ``prefix``."""
    for stale in parent.glob(prefix + "*"):
        shutil.rmtree(stale)  # of a run that was killed
    path = parent / f"{prefix}{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
