"""Facts about the processes of a run; sensible answers without ``torch.distributed`` too."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

Item = TypeVar("Item")


def process_rank() -> int:
    """Rank of this process, 0 in a single-process run."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def process_count() -> int:
    """Number of processes, 1 in a single-process run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(rows: Tensor) -> Tensor:
    """Rows of all processes, rank after rank; the processes may hold different numbers of them."""
    return evenly_divisible_all_gather(rows, concat=True)


def gather_objects(items: Sequence[Item]) -> list[Item]:
    """Items (picklable) of all processes, rank after rank; the processes may hold different numbers of them."""
    if process_count() == 1:
        return list(items)
    parts: list[Any] = [None] * process_count()
    dist.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum of a tensor that every process has in one shape; with a single process the tensor itself."""
    if process_count() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def wait_for_all() -> None:
    """Return once every process has come here."""
    if process_count() > 1:
        dist.barrier()
