"""Small image files for tests of whole bundles, and a machine without network."""

import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 grey PNG files of 24x24 px, each its own patient: a bright disc of varying place and size on a ramp."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24]
    for number in range(40):
        center, radius = random.uniform(8, 16, 2), random.uniform(3, 7)
        disc = np.hypot(x - center[0], y - center[1]) < radius
        image = 20 + 2 * x + 150 * disc + random.normal(0, 4, (24, 24))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"picture_{number:02d}.png")
    return folder


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Addresses that anything tried to reach; who waits for a network that is not there fails.

    The Hugging Face cache is empty.
    """
    asked: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no network in tests")

    def wait(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s to try again")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(time, "sleep", wait)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return asked
