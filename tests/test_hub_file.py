"""A published file is taken from where it is allowed to be taken from, or one error says how to provide it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.hub_file import find_hub_file

URL = "https://example.org/releases/network-0123abcd.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch.hub cache without files, and no network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for a download without consent")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


def find(path: Path | None = None, allow_download: bool = False) -> Path:
    return find_hub_file("Owner", "'net'", URL, path, allow_download=allow_download, instead="Or leave it out.")


def test_a_given_path_comes_before_the_cache_and_the_cache_before_a_download(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "network-0123abcd.pth").touch()
    (tmp_path / "mine.pth").touch()
    assert find(tmp_path / "mine.pth") == tmp_path / "mine.pth"
    assert find(allow_download=True) == cache / "network-0123abcd.pth"


def test_consented_download_goes_into_the_cache_and_is_checked_by_its_hash(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, destination: str, hash_prefix: str) -> None:
        assert (url, hash_prefix) == (URL, "0123abcd")
        Path(destination).touch()

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert find(allow_download=True) == cache / "network-0123abcd.pth"
    assert find() == cache / "network-0123abcd.pth"


def test_an_absent_file_is_one_error_with_every_way_out(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        find()
    for part in (
        "Owner",
        "'net'",
        URL,
        str(cache),
        "not allowed",
        "weights=",
        "allow_download=True",
        "Or leave it out.",
    ):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"none\.pth \(no other place tried, since this one was named\)"):
        find(tmp_path / "none.pth", allow_download=True)


def test_a_failed_download_is_reported_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(FileNotFoundError, match="download failed: OSError: no route to host"):
        find(allow_download=True)
