"""Writing of a phantom: once, whole or not at all, and never silently over something else."""

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MANIFEST = "manifest.json"


def array_hash(array: NDArray[Any], affine: ArrayLike | None = None) -> str:
    """SHA-256 over shape, type and values of an array and, if given, its affine; independent of any file format."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    if affine is not None:
        digest.update(np.asarray(affine, dtype="<f8").tobytes())
    return digest.hexdigest()


def phantom_name(
    kind: str, layout: str, recipe: int, options: Mapping[str, Any], defaults: Mapping[str, Any], size: int
) -> str:
    """Folder name ``<kind>-<layout>-r<recipe>-s<seed>-n<cases>-p<size>``, plus a hash of options off their default."""
    name = f"{kind}-{layout}-r{recipe}-s{options['seed']}-n{options['cases']}-p{size}"
    unusual = {key: value for key, value in options.items() if key in defaults and value != defaults[key]}
    if unusual:
        name += "-" + hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:8]
    return name


def write_phantom(
    root: str | Path,
    name: str,
    header: Mapping[str, Any],
    jobs: list[Any],
    write_case: Callable[[Path, Any], dict[str, Any]],
    finish: Callable[[Path, list[dict[str, Any]]], None] | None = None,
) -> Path:
    """Write a phantom as ``root/name`` unless it is there already, and return that folder.

    The cases are written to a temporary sibling by up to four processes, followed by ``manifest.json``; the folder gets
    its name by one rename when it is whole. Of several writers at once the first to finish wins, all return its folder.

    Args:
        header: recipe, options and whatever identifies the phantom; an existing folder must carry the same.
        jobs: one picklable description per case.
        write_case: module-level function that writes one case below the given folder and returns its manifest entry, in
            which ``files`` lists the files it wrote.
        finish: writes files about all cases, given their entries.

    Raises:
        ValueError: if the folder exists but is another phantom than its name says, or lacks files.
    """
    folder = Path(root) / name
    if folder.exists():
        _check(folder, header)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        entries = _run(write_case, temporary, jobs)
        if finish is not None:
            finish(temporary, entries)
        manifest = {**header, "synthetic": True, "cases": entries}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            _check(folder, header)  # another process was faster
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _run(write_case: Callable[[Path, Any], dict[str, Any]], folder: Path, jobs: list[Any]) -> list[dict[str, Any]]:
    """Entries of all cases in order, from a process pool where it pays."""
    workers = min(4, available_cpus(), len(jobs) // 4)
    if workers < 2 or multiprocessing.current_process().daemon:
        return [write_case(folder, job) for job in jobs]
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method)) as pool:
        return list(pool.map(write_case, [folder] * len(jobs), jobs, chunksize=1))


def available_cpus() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(folder: Path, header: Mapping[str, Any]) -> None:
    """Raise unless ``folder`` holds the phantom described by ``header``, complete."""
    path = folder / MANIFEST
    remedy = "move it away or delete it, and it will be written anew"
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"phantom: {folder} has no readable {MANIFEST} ({error}); {remedy}.") from error
    expected = json.loads(json.dumps(dict(header)))
    found = {key: manifest.get(key) for key in expected}
    if found != expected:
        raise ValueError(f"phantom: {folder} was made as {found} but its name stands for {expected}; {remedy}.")
    for entry in manifest["cases"]:
        for name in entry["files"]:
            if not (folder / name).is_file():
                raise ValueError(f"phantom: {folder} lacks {name}, which its {MANIFEST} lists; {remedy}.")
