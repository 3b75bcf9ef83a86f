"""Find and read the files of a pretrained model: in a folder, in the Hugging Face cache, by a consented download."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HubFiles:
    """What is wanted of a repository of the Hugging Face hub.

    Attributes:
        repository: ``owner/name``.
        needed: for each needed file the names it may have, the preferred one first.
        optional: files to take along where they exist.
        subfolder: where they lie in a folder that a user gives; it may serve several repositories.
    """

    repository: str
    needed: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()
    subfolder: str = ""

    def __str__(self) -> str:
        return " and ".join(" or ".join(names) for names in self.needed) + f" of {self.repository}"


@dataclass(frozen=True)
class FoundFiles:
    """The needed files, in the order of :attr:`HubFiles.needed`, all in one folder."""

    folder: Path
    paths: tuple[Path, ...]

    def revision(self) -> str:
        """Commit of the repository; for files that are not in a hub cache ``sha256:...`` of the last needed one."""
        if self.folder.parent.name == "snapshots":  # the layout of the Hugging Face cache
            return self.folder.name
        with self.paths[-1].open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def find_files(
    *wanted: HubFiles, folder: str | os.PathLike | None = None, allow_download: bool = False, instead: str = ""
) -> tuple[FoundFiles, ...]:
    """Find the files of one or more repositories that belong together.

    Args:
        wanted: repositories and names.
        folder: where they are; if given, nothing else is tried.
        allow_download: consent to a download into the Hugging Face cache; without it the network is not touched.
        instead: what does without these files, for the error.

    Raises:
        FileNotFoundError: something is nowhere; names what was looked for, where, and the ways to provide it.
    """
    tried: list[str] = []
    found = [_find(one, None if folder is None else Path(folder), allow_download, tried) for one in wanted]
    complete = tuple(one for one in found if one is not None)
    if len(complete) == len(wanted):
        return complete
    home = Path("<folder>" if folder is None else folder)
    commands = "".join(f"       hf download {one.repository} --local-dir {home / one.subfolder}\n" for one in wanted)
    raise FileNotFoundError(
        f"Pretrained weights are missing. Needed: {'; '.join(map(str, wanted))}. Looked in\n"
        + "".join(f"  - {place}\n" for place in tried)
        + "Provide them in one of three ways:\n"
        f"  1. a folder, filled where there is a network:\n{commands}"
        "  2. a Hugging Face cache that holds them: set HF_HOME to it and give no folder;\n"
        "  3. a download now, into that cache: allow_download=True and no folder."
        + (f"\nOr do without them: {instead}." if instead else "")
    )


@contextlib.contextmanager
def reading(model: str, packages: str, *files: FoundFiles) -> Iterator[None]:
    """Turn whatever the libraries raise over broken files into one error that names the files.

    Args:
        model: what the files hold.
        packages: what pip must have installed to read them.
        files: those that are read.

    Raises:
        ImportError: a package is not installed.
        RuntimeError: anything else.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{model} needs `pip install {packages}` ({error}).") from error
    except Exception as error:  # pickle, zip, safetensors, json, torch and transformers each have their own
        paths = ", ".join(str(path) for found in files for path in found.paths)
        raise RuntimeError(
            f"{model}'s files cannot be used ({type(error).__name__}: {error}). Read: {paths}. A download that was "
            "cut short, or a git-lfs pointer in place of the file, looks like this: compare the sizes with those on "
            "huggingface.co and provide the files again."
        ) from error


def _find(wanted: HubFiles, folder: Path | None, allow_download: bool, tried: list[str]) -> FoundFiles | None:
    """Try the places in turn; what failed is added to ``tried``."""
    if folder is not None:
        place = folder / wanted.subfolder
        return _collect(wanted, lambda name: _existing(place / name), f"folder {place}", tried)
    from huggingface_hub import constants

    cache = f"Hugging Face cache {constants.HF_HUB_CACHE}"
    found = _collect(wanted, lambda name: _cached(wanted.repository, name), cache, tried)
    if found is None and not allow_download:
        tried.append(f"huggingface.co: {wanted.repository} not asked for, allow_download is False")
    elif found is None:
        found = _collect(wanted, lambda name: _download(wanted.repository, name), "huggingface.co", tried)
    return found


def _collect(wanted: HubFiles, get: Callable[[str], Path | None], place: str, tried: list[str]) -> FoundFiles | None:
    """Get every needed file under the first of its names that exists, then the optional ones."""
    paths = []
    try:
        for names in wanted.needed:
            path = next((path for path in map(get, names) if path is not None), None)
            if path is None:
                tried.append(f"{place}: no {' or '.join(names)} of {wanted.repository}")
                return None
            paths.append(path)
        for name in wanted.optional:
            get(name)
    except Exception as error:  # whatever a network and its libraries raise
        tried.append(f"{place}: {wanted.repository}: {type(error).__name__}: {error}")
        return None
    return FoundFiles(paths[0].parent, tuple(paths))


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _cached(repository: str, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, name)
    return Path(path) if isinstance(path, str) else None


def _download(repository: str, name: str) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    try:  # one request, which fails at once without a network; the download itself would try for half a minute
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, name))
    except EntryNotFoundError:
        return None  # the repository has no such file
    return Path(huggingface_hub.hf_hub_download(repository, name))
