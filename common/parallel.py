"""Facts about the processes of a run; sensible answers without ``torch.distributed`` too."""

import torch.distributed as dist
from monai.utils import evenly_divisible_all_gather
from torch import Tensor


def process_rank() -> int:
    """Rank of this process, 0 in a single-process run."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def process_count() -> int:
    """Number of processes, 1 in a single-process run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(rows: Tensor) -> Tensor:
    """Rows of all processes, rank after rank; the processes may hold different numbers of them."""
    return evenly_divisible_all_gather(rows, concat=True)


def wait_for_all() -> None:
    """Return once every process has come here."""
    if process_count() > 1:
        dist.barrier()
