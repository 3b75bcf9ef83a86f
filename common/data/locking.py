"""A lock between processes, for files that several ranks or runs may want to write at once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time into the block; the others wait.

    The lock belongs to the open file, so the system frees it when its holder dies, however it dies. Where the platform
    has no such locks, nobody waits: writers must still write to a temporary name and rename.

    Args:
        path: lock file, created if needed and left behind (removing it would let two processes in).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("Another process is writing beside %s; waiting for it.", path)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
