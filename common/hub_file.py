"""One published file of weights: at a given path, in the cache of ``torch.hub``, or downloaded with consent."""

import os
from pathlib import Path

import torch


def find_hub_file(
    owner: str, what: str, url: str, path: str | os.PathLike | None = None, *, allow_download: bool, instead: str
) -> Path:
    """The file that ``url`` names.

    Args:
        owner: who asks, for the error.
        what: what the file holds, for the error.
        url: where it is published; the file's name ends with the start of its SHA-256 (``name-0123abcd.pth``), which a
            download is checked by.
        path: where it is; if given, no other place is tried.
        allow_download: consent to a download into the cache; without it the network is not touched.
        instead: the sentence that says what to do without it.

    Raises:
        FileNotFoundError: it is nowhere; says where it was looked for and how to provide it.
    """
    name = url.rsplit("/", 1)[1]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    place = cached if path is None else Path(path)
    if place.is_file():
        return place
    tried = "download not allowed"
    if path is None and allow_download:
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=Path(name).stem.rsplit("-", 1)[1])
            return cached
        except (OSError, RuntimeError) as error:  # the network, the disk, or a wrong hash
            tried = f"download failed: {type(error).__name__}: {error}"
    elif path is not None:
        tried = "no other place tried, since this one was named"
    raise FileNotFoundError(
        f"{owner}: no weights of {what} at {place} ({tried}). Provide them in one of three ways: "
        f"weights=<path of {name} from {url}>; that file in {cached.parent}; allow_download=True without a path. "
        f"{instead}"
    )
