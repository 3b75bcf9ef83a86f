"""What a run checks before it does any work: mistyped options, a busy output folder."""

import ast
import difflib
import fcntl
import logging
import re
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from monai.bundle import ConfigParser

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


def begin_run(output_dir: str, arguments: Sequence[str] | None = None) -> None:
    """First step of every recipe: refuse unknown options, then take the output folder.

    In a process started as ``python -m monai.bundle run`` it also sees to it that any error from here on ends with its
    message (:mod:`.failure`).

    Args:
        output_dir: folder the run writes to; made if absent.
        arguments: command line to check; default: that of this process.

    Raises:
        ValueError: an option that no config file has; nothing has been written then.
        RuntimeError: the folder is in use by another run.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if "config_file" in dict(_options(arguments)):
        report_failures()
    check_overrides(arguments)
    if process_rank() == 0:
        lock_output(output_dir)
    wait_for_all()


def check_overrides(arguments: Sequence[str]) -> None:
    """Raise ``ValueError`` if the command line sets a key that none of its config files has.

    MONAI takes any ``--key value`` as a new key and then trains with the old value of the one that was meant. Checked are
    top-level names, and nested ones (``--displayable_configs#num_steps``) down to the arguments of a component: those may
    be left out in the config, and the component itself complains about a wrong one.
    """
    options = _options(arguments)
    files = dict(options).get("config_file")
    if files is None:
        return  # not started from the command line
    config = ConfigParser.load_config_files(_config_files(files))
    for option, _ in options:
        path = option.lstrip("+").replace("-", "_").replace("::", "#").split("#")
        if path[0] not in RUN_OPTIONS:
            _require_known(option, path, config)


def _require_known(option: str, path: Sequence[str], config: Any) -> None:
    """Raise ``ValueError`` unless ``path`` leads to something in the nested ``config``."""
    for depth, name in enumerate(path):
        if isinstance(config, str):  # a reference or an expression: what it holds is not known here
            return
        valid = [str(number) for number in range(len(config))] if isinstance(config, list) else list(config)
        if name in valid:
            config = config[int(name)] if isinstance(config, list) else config[name]
            continue
        if "_target_" in valid and depth == len(path) - 1:
            return  # an argument of a component
        prefix = "--" + "#".join([*path[:depth], ""])
        near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(prefix.rstrip('#') + '#' * bool(depth) + key for key in near)}? " if near else ""
        raise ValueError(
            f"unknown option --{option}: no config file of this run has the key '{'#'.join(path[: depth + 1])}'; "
            f"{hint}Keys: {', '.join(sorted(valid))}."
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
