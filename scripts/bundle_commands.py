"""Command lines of bundles, for the scripts that run several of them."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def bundle_command(files: Sequence[Path], options: Mapping[str, Any]) -> list[str]:
    """The command that runs config files, the first one with the others laid over it; files lie below `ROOT`."""
    names = [str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file) for file in files]
    arguments = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        names[0] if len(names) == 1 else str(names),
    ]
    for option, value in options.items():
        arguments += [f"--{option}", "$None" if value is None else str(value)]
    return arguments


def settings_of(files: Sequence[Path]) -> dict[str, Any]:
    """Top-level settings of config files; components may bear the same name as another file's setting."""
    merged: dict[str, Any] = {}
    for file in files:
        merged |= json.loads(file.read_text(encoding="utf-8"))
    return {key: value for key, value in merged.items() if not (isinstance(value, dict) and "_target_" in value)}
