"""The lock lets one writer in at a time."""

import threading
import time
from pathlib import Path

import pytest

from common.data.locking import exclusive


def test_writers_take_turns(tmp_path: Path) -> None:
    """Each reads a number, waits, writes it back plus one: without the lock, updates get lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    def add() -> None:
        with exclusive(tmp_path / "new" / "lock"):
            number = int(counter.read_text())
            time.sleep(0.01)
            counter.write_text(str(number + 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "8"


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), exclusive(tmp_path / "lock"):
        raise RuntimeError("inside")
    with exclusive(tmp_path / "lock"):
        pass
