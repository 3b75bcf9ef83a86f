"""What a run checks before it does any work: mistyped options, a busy output folder."""

import ast
import difflib
import fcntl
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ..parallel import process_rank, wait_for_all

logger = logging.getLogger(__name__)

# options of `python -m monai.bundle run` itself
RUN_OPTIONS = {
    "run_id",
    "init_id",
    "final_id",
    "meta_file",
    "config_file",
    "logging_file",
    "tracking",
    "args_file",
    "workflow_type",
    "workflow_name",
}
_locks: dict[Path, IO[str]] = {}


def begin_run(output_dir: str, arguments: Sequence[str] | None = None) -> None:
    """First step of every recipe: refuse unknown options, then take the output folder.

    Args:
        output_dir: folder the run writes to; made if absent.
        arguments: command line to check; default: that of this process.

    Raises:
        SystemExit: with one message, for an unknown option or a folder in use; nothing has been written then.
    """
    try:
        check_overrides(sys.argv[1:] if arguments is None else arguments)
        if process_rank() == 0:
            lock_output(output_dir)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error
    wait_for_all()


def check_overrides(arguments: Sequence[str]) -> None:
    """Raise ``ValueError`` if the command line sets a key that none of its config files has.

    MONAI takes any ``--key value`` as a new key and then trains with the old value of the one that was meant. Only
    top-level names are checked; a wrong nested name (``--train#trainer#max_epoch``) fails in MONAI or in the component.
    """
    options = _options(arguments)
    if "config_file" not in options:
        return  # not started from the command line
    valid = set(RUN_OPTIONS)
    for file in _config_files(options["config_file"]):
        valid |= {key.lstrip("+").split("#")[0].split("::")[0] for key in json.loads(Path(file).read_text("utf-8"))}
    for option in options:
        name = option.lstrip("+").replace("-", "_").split("#")[0].split("::")[0]
        if name not in valid:
            near = difflib.get_close_matches(name, sorted(valid), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(f'--{key}' for key in near)}?" if near else ""
            raise ValueError(
                f"unknown option --{option}: no config file of this run has the key '{name}'. {hint} "
                f"Keys: {', '.join(sorted(valid - RUN_OPTIONS))}."
            )


def lock_output(output_dir: str | Path) -> None:
    """Hold ``output_dir`` for this process until it ends, however it ends; ``RuntimeError`` if another run holds it."""
    directory = Path(output_dir).resolve()
    if directory in _locks:
        return
    directory.mkdir(parents=True, exist_ok=True)
    file = (directory / "run.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise RuntimeError(
            f"the output folder {directory} is in use by another run (process {holder}); wait for it, or give this run "
            "a folder of its own with --output_dir."
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _locks[directory] = file


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """``--name value`` and ``--name=value`` pairs of a command line."""
    options = {}
    for position, argument in enumerate(arguments):
        if not argument.startswith("--") or len(argument) == 2:
            continue
        name, separator, value = argument[2:].partition("=")
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        options[name] = value if separator else following
    return options


def _config_files(value: str) -> list[str]:
    """The config files named by ``--config_file``: one path or a Python list of paths."""
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return [value]
    return list(parsed) if isinstance(parsed, (list, tuple)) else [str(parsed)]
