"""How much of a codebook is in use."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..parallel import sum_over_processes


class CodeUsage(NamedTuple):
    """``share``: of the codes that were used at all; ``perplexity``: of how many codes with equal use it would be."""

    share: float
    perplexity: float


def code_usage(counts: Tensor) -> CodeUsage:
    """Share of codes in use, and ``exp(-sum p ln p)``, of the number of uses ``(N,)`` of each code.

    Counts should come from a whole epoch: a few images can use but a few codes.

    Raises:
        ValueError: nothing was counted.
    """
    uses = counts.double()
    if not uses.sum() > 0:
        raise ValueError("code_usage: no use of any code was counted; give the codes of an image first.")
    p = uses / uses.sum()
    return CodeUsage(share=(p > 0).double().mean().item(), perplexity=torch.special.entr(p).sum().exp().item())


class CodebookUsage:
    """:func:`code_usage` of all codes since the last :meth:`reset`, of all processes.

    Args:
        num_embeddings: N.
    """

    def __init__(self, num_embeddings: int) -> None:
        self.num_embeddings = num_embeddings
        self.counts = torch.zeros(num_embeddings, dtype=torch.int64)

    def reset(self) -> None:
        """Begin anew."""
        self.counts.zero_()

    def update(self, indices: Tensor) -> None:
        """Count indices of any shape; stays on their device, so that nothing waits for it."""
        uses = indices.detach().flatten()
        self.counts = self.counts.to(uses.device).index_add_(0, uses, torch.ones_like(uses))

    def compute(self) -> CodeUsage:
        """Over all processes; each must call it."""
        return code_usage(sum_over_processes(self.counts))
