"""What a file of results must say of how it came about."""

from collections.abc import Mapping, Sequence
from typing import Any


def require_provenance(owner: str, record: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``record`` has all ``keys``: without them a table of results cannot be read."""
    lacking = [key for key in keys if key not in record]
    if lacking:
        raise ValueError(
            f"{owner}: `record` lacks {', '.join(lacking)}; results of one protocol, schedule or split do not compare "
            "with those of another, so every file of results states them."
        )


def split_mark(record: Mapping[str, Any]) -> dict[str, bool]:
    """``{"leaky_split": True}`` for results of a split by slice, which has neighbors of test slices in training."""
    return {"leaky_split": True} if record.get("split_level") == "slice" else {}
