"""What a run checks before it does any work: mistyped options, a busy output folder."""

import ast
import difflib
import fcntl
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ..allocator import keep_freed_memory
from ..parallel import process_rank, wait_for_all
from .failure import report_failures

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


def begin_run(output_dir: str, ckpt_dir: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """First step of every recipe: refuse unknown options, then take the folders the run writes to.

    In a process started as ``python -m monai.bundle run`` it also sees to it that any error from here on ends with its
    message (:mod:`.failure`).

    Args:
        output_dir: folder the run writes to; made if absent.
        ckpt_dir: folder a training writes its weights to; made if absent.
        arguments: command line to check; default: that of this process.

    Raises:
        ValueError: an option that no config file has; nothing has been written then.
        RuntimeError: a folder is in use by another run.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if "config_file" in dict(_options(arguments)):
        report_failures()
    check_overrides(arguments)
    if process_rank() == 0:
        lock_folder(output_dir, "output_dir")
        if ckpt_dir is not None:
            lock_folder(ckpt_dir, "ckpt_dir")
    keep_freed_memory()
    wait_for_all()


def check_overrides(arguments: Sequence[str]) -> None:
    """Raise ``ValueError`` if the command line sets a key that no config file has, or a value in JSON's words.

    MONAI takes any ``--key value`` as a new key and then trains with the old value of the one that was meant. Checked
    are top-level names, and nested ones (``--displayable_configs#num_steps``) down to the arguments of a component:
    those may be absent from the config, and the component itself complains about a wrong one.
    """
    options = _options(arguments)
    files = dict(options).get("config_file")
    if files is None:
        return  # not started from the command line
    from monai.bundle import ConfigParser  # seconds; here it has been imported already

    config = ConfigParser.load_config_files(_config_files(files))
    for option, value in options:
        if value in ("null", "None", "false"):
            raise ValueError(
                f"--{option} {value}: options are Python values, and this one would be taken for text or left out; "
                "write False, or '$None' for no value."
            )
        path = option.lstrip("+").replace("-", "_").replace("::", "#").split("#")
        if path[0] not in RUN_OPTIONS:
            _require_known(option, path, config)


def _require_known(option: str, path: Sequence[str], config: Any) -> None:
    """Raise ``ValueError`` unless ``path`` leads to something in the nested ``config``."""
    for depth, name in enumerate(path):
        if isinstance(config, list):
            config = {str(number): item for number, item in enumerate(config)}
        if not isinstance(config, dict):  # a reference or an expression: what it holds is not known here
            return
        if name not in config:
            if depth and "_target_" in config:
                return  # an argument of a component
            parent = "".join(f"{part}#" for part in path[:depth])
            near = " or ".join(f"--{parent}{key}" for key in difflib.get_close_matches(name, config, n=3, cutoff=0.5))
            raise ValueError(
                f"unknown option --{option}: no config file of this run has the key '{parent}{name}'"
                f"{f'; did you mean {near}?' if near else '.'} Keys: {', '.join(sorted(config))}."
            )
        config = config[name]


def lock_folder(folder: str | Path, option: str) -> None:
    """Hold ``folder`` for this process until it ends, however it ends; ``RuntimeError`` if another run holds it.

    Args:
        folder: made if absent.
        option: name of the option that sets it, for the message.
    """
    directory = Path(folder).resolve()
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
            f"the folder {directory} is in use by another run (process {holder}); wait for it, or give this run a "
            f"folder of its own with --{option}."
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _locks[directory] = file


def _options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """``--name value`` and ``--name=value`` pairs of a command line, recognized as ``fire`` does (also ``-name``)."""
    options = []
    for position, argument in enumerate(arguments):
        if not re.match("--.|-[a-zA-Z]", argument):
            continue
        name, separator, value = argument.lstrip("-").partition("=")
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        options.append((name, value if separator else following))
    return options


def _config_files(value: str) -> str | list[str]:
    """``--config_file`` as MONAI gets it: a path, or a Python list of paths."""
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return list(parsed) if isinstance(parsed, (list, tuple)) else str(parsed)
