"""Which training slices an epoch sees, in which order, on which process."""

from collections.abc import Iterator, Sized
from typing import cast

import torch
from torch.utils.data import Dataset, DistributedSampler

from ..parallel import process_count, process_rank
from ..seeds import Stream, derive_seed


class EpochSampler(DistributedSampler):
    """Indices of one epoch, a function of (seed, epoch) only, split over the processes.

    Epochs are cut from one endless stream of permutations of the data set, so an epoch may be shorter or longer than
    it (``epoch_length`` iterations) and still every case comes up equally often. Process r of n takes every n-th index
    from r on: the n batches of an iteration together are the batch of one process with n times the batch size.

    It is a ``DistributedSampler`` because MONAI's engines call :meth:`set_epoch` on those.

    Args:
        dataset: anything with a length.
        batch_size: items a process takes in an iteration.
        epoch_length: iterations of an epoch; ``None``: one pass over the data set (the last, partial batch is left out,
            or repeated from the next permutation when the data set is smaller than one batch).
        seed: seed of the order.
    """

    def __init__(self, dataset: Sized, batch_size: int, epoch_length: int | None = None, seed: int = 0) -> None:
        super().__init__(
            cast(Dataset, dataset), process_count(), process_rank(), shuffle=True, seed=seed, drop_last=True
        )
        if len(dataset) == 0:
            raise ValueError("EpochSampler: the data set is empty; check `dataset` and `dataset_dir`.")
        self.dataset_length = len(dataset)
        if epoch_length is None:
            epoch_length = max(1, self.dataset_length // (batch_size * self.num_replicas))
        self.num_samples = epoch_length * batch_size
        self.total_size = self.num_samples * self.num_replicas

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        first = max(0, self.epoch - 1) * self.total_size  # ignite counts epochs from 1
        indices: list[int] = []
        for number in range(first // self.dataset_length, (first + self.total_size - 1) // self.dataset_length + 1):
            generator = torch.Generator().manual_seed(derive_seed(Stream.ORDER, self.seed, number))
            indices += torch.randperm(self.dataset_length, generator=generator).tolist()
        start = first % self.dataset_length
        return iter(indices[start + self.rank : start + self.total_size : self.num_replicas])
