"""Which version of the code made a result."""

import subprocess
from pathlib import Path


def commit() -> str | None:
    """Short hash of the checked-out commit, with ``+`` if files were changed; ``None`` outside a git checkout."""
    try:
        run = {"capture_output": True, "text": True, "timeout": 10, "cwd": Path(__file__).parent}
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **run)  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **run)  # type: ignore[call-overload]
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else None
