"""Runs of bundles in processes of their own, with the commands a user types."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bundles import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def arguments(bundle: str, names: list[str | Path], options: dict[str, Any]) -> list[str]:
    """``-m monai.bundle run --config_file ... --key value``, relative to the root of a repository."""
    files = [str(name) if isinstance(name, Path) else f"bundles/{bundle}/configs/{name}.json" for name in names]
    overrides = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return ["-m", "monai.bundle", "run", "--config_file", files[0] if len(files) == 1 else str(files), *overrides]


def start(
    bundle: str,
    names: list[str | Path],
    options: dict[str, Any],
    *,
    processes: int = 1,
    root: Path = ROOT,
    **environment: str,
) -> subprocess.Popen[str]:
    """A run that has just been started, with one thread per process."""
    launcher = [sys.executable] if processes == 1 else [*TORCHRUN, f"--nproc_per_node={processes}"]
    return subprocess.Popen(
        [*launcher, *arguments(bundle, names, options)],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all its processes can be ended together
    )


def command_line(
    bundle: str, names: list[str | Path], options: dict[str, Any], *, timeout: float = 180, **more: Any
) -> subprocess.CompletedProcess[str]:
    """A finished run; one that hangs for ``timeout`` seconds is killed with all its processes and is an error."""
    process = start(bundle, names, options, **more)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, errors = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{output[-3000:]}\n{errors[-3000:]}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
