"""Snapping the vectors of a latent image to a learned list of codes."""

from typing import Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ...parallel import process_count, process_rank, sum_over_processes
from .precision import full_precision

CodebookMode = Literal["gradient", "ema"]

_LARGEST = 2**22  # distances that are held at a time: fits into the cache of a CPU, and is enough work for a GPU
_JITTER = 1e-3  # tells codes apart that start at the same vector


class FeatureQuantizer(nn.Module):
    """Nearest of N codes for every vector of a latent image, with a codebook that learns and does not die.

    latent ``(B, C, h, w)`` -> codebook loss (scalar), quantized latent ``(B, C, h, w)`` and index of each code
    ``(B, h, w)`` int64. Loss and latent are float32 and computed outside autocast. The gradient of the quantized latent
    goes straight to the latent: ``F + sg(e_k - F)`` with ``k = argmin_k |F - e_k|``. The loss is
    ``mean |sg(F) - e_k|^2 + commitment * mean |F - sg(e_k)|^2``, means over all elements; the first term moves the
    codes, the second the encoder. In mode ``"ema"`` the first is absent, and codes are running means of the vectors
    they stand for.

    A training forward first replaces the codes that the last ``restart_after`` training forwards did not use, at the
    very first one all of them, by random vectors of the batch. Nothing changes in evaluation mode or after
    :meth:`freeze`. The draws come from PyTorch's global generator, and in several processes from that of rank 0 and
    over the batch of all of them, so that n processes with B images each (of which process r has every n-th, from r on)
    do what one does with n * B.

    Args:
        num_embeddings: N.
        embedding_dim: C.
        commitment: weight of the second term.
        mode: ``"gradient"``: codes are trained by the optimizer (without weight decay, please); ``"ema"``: see above.
        decay: of the running means.
        restart_after: training forwards without use after which a code is replaced.

    Attributes:
        codebook: codes (N, C).
        unused: for each code, the training forwards since its last use; ``restart_after`` before the first.

    Source: van den Oord et al. 2017, "Neural discrete representation learning", eqs. 1-3; FQCDM, section 3.2.
    """

    unused: Tensor
    sizes: Tensor
    sums: Tensor

    def __init__(
        self,
        *,
        num_embeddings: int = 1024,
        embedding_dim: int = 8,
        commitment: float = 0.25,
        mode: CodebookMode = "gradient",
        decay: float = 0.99,
        restart_after: int = 100,
    ) -> None:
        super().__init__()
        if mode not in get_args(CodebookMode):
            raise ValueError(
                f"FeatureQuantizer: mode={mode!r} is unknown; choose one of {', '.join(get_args(CodebookMode))}."
            )
        if min(num_embeddings, embedding_dim, restart_after) < 1 or commitment < 0 or not 0 <= decay < 1:
            raise ValueError(
                f"FeatureQuantizer: num_embeddings={num_embeddings}, embedding_dim={embedding_dim} and "
                f"restart_after={restart_after} must be at least 1, commitment={commitment} not negative and "
                f"decay={decay} in [0, 1)."
            )
        self.num_embeddings, self.embedding_dim, self.commitment = num_embeddings, embedding_dim, commitment
        self.mode, self.decay, self.restart_after = mode, decay, restart_after
        self.frozen = False
        codes = torch.empty(num_embeddings, embedding_dim).uniform_(-1 / num_embeddings, 1 / num_embeddings)
        self.codebook = nn.Parameter(codes, requires_grad=mode == "gradient")
        self.register_buffer("unused", torch.full((num_embeddings,), restart_after))
        if mode == "ema":
            # one vector each, the code itself: sizes of 0 would divide the codes that a batch does not use by nothing
            self.register_buffer("sizes", torch.ones(num_embeddings))
            self.register_buffer("sums", codes.clone())

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self._check(latent)
        with full_precision(latent.device):
            latent = latent.float()
            vectors = latent.detach().movedim(1, -1).reshape(-1, self.embedding_dim)  # (M, C), image after image
            learns = self.training and not self.frozen
            if learns:
                self._restart(vectors, vectors_per_image=latent[0, 0].numel())
            nearest = self._nearest(vectors)
            indices = nearest.reshape(len(latent), *latent.shape[2:])
            codes = self.embed(indices)
            loss = self.commitment * F.mse_loss(latent, codes.detach())
            if self.mode == "gradient":
                loss = loss + F.mse_loss(codes, latent.detach())
            if learns:
                self._note_use(vectors, nearest)
            # exactly the codes, which latent + (codes - latent) would miss by rounding
            quantized = codes.detach() + (latent - latent.detach())
        return loss, quantized, indices

    def quantize(self, latent: Tensor) -> Tensor:
        """Indices ``(B, h, w)`` of the nearest codes; the codebook stays as it is, in training mode, too."""
        self._check(latent)
        with full_precision(latent.device):
            vectors = latent.detach().float().movedim(1, -1)  # (B, h, w, C)
            return self._nearest(vectors.reshape(-1, self.embedding_dim)).reshape(vectors.shape[:-1])

    def embed(self, indices: Tensor) -> Tensor:
        """Codes ``(B, C, h, w)`` of indices ``(B, h, w)``."""
        return F.embedding(indices, self.codebook).movedim(-1, 1).contiguous()

    def freeze(self) -> "FeatureQuantizer":
        """Let nothing change the codebook any more, in training mode neither."""
        self.frozen = True
        return self.requires_grad_(False)

    def _check(self, latent: Tensor) -> None:
        if latent.ndim != 4 or latent.shape[1] != self.embedding_dim:
            raise ValueError(
                f"FeatureQuantizer: got a latent of shape {tuple(latent.shape)}; needed is (B, {self.embedding_dim}, "
                "h, w). It comes from another encoder."
            )

    @torch.no_grad()
    def _nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest code ``(M,)`` for vectors ``(M, C)``, by ``|e|^2 - 2 F.e`` about the codes' mean.

        ``|F|^2`` is the same for all codes; about the mean, the squares do not cancel where codes are far from 0.
        """
        center = self.codebook.mean(0)
        codes = self.codebook - center
        squares = codes.square().sum(1)  # (N,)
        rows = max(1, _LARGEST // len(codes))
        parts = [
            torch.addmm(squares, part - center, codes.T, alpha=-2).min(1).indices  # (rows, N) -> (rows,)
            for part in vectors.split(rows)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def _restart(self, vectors: Tensor, vectors_per_image: int) -> None:
        """Put random vectors in the place of unused codes; without a look at the device's memory, which would wait."""
        stale = self.unused >= self.restart_after  # (N,)
        fresh = self._random(vectors, vectors_per_image)
        self.codebook.copy_(torch.where(stale[:, None], fresh, self.codebook))
        self.unused.masked_fill_(stale, 0)
        if self.mode == "ema":
            self.sizes.masked_fill_(stale, 1.0)
            self.sums.copy_(torch.where(stale[:, None], fresh, self.sums))

    def _random(self, vectors: Tensor, vectors_per_image: int) -> Tensor:
        """N vectors ``(N, C)`` of the batch of all processes, the same on each; all different if there are enough."""
        processes, total = process_count(), len(vectors) * process_count()
        jitter = torch.zeros_like(self.codebook)
        if total >= self.num_embeddings:
            places = torch.randperm(total, device=vectors.device)[: self.num_embeddings]
        else:
            places = torch.randint(total, (self.num_embeddings,), device=vectors.device)
            jitter.normal_().mul_(_JITTER)
        if processes > 1:
            dist.broadcast(places, src=0)
            dist.broadcast(jitter, src=0)
        # image number i of one process is number i // n of process i % n
        image, position = places // vectors_per_image, places % vectors_per_image
        ours = image % processes == process_rank()
        chosen = vectors[image // processes * vectors_per_image + position]
        return sum_over_processes(torch.where(ours[:, None], chosen, 0.0)) + jitter

    @torch.no_grad()
    def _note_use(self, vectors: Tensor, nearest: Tensor) -> None:
        """Count the codes that were used, and in mode ``"ema"`` move them."""
        sums = torch.zeros(self.num_embeddings, self.embedding_dim + 1, device=vectors.device)
        sums[:, :-1].index_add_(0, nearest, vectors)
        sums[:, -1].index_add_(0, nearest, torch.ones_like(vectors[:, 0]))
        sums = sum_over_processes(sums)
        used = sums[:, -1] > 0
        self.unused.copy_(torch.where(used, 0, self.unused + 1))
        if self.mode == "ema":
            self.sizes.lerp_(sums[:, -1], 1 - self.decay)
            self.sums.lerp_(sums[:, :-1], 1 - self.decay)
            means = self.sums / self.sizes[:, None]  # of unused codes the same as before, until both vanish
            self.codebook.copy_(torch.where(used[:, None], means, self.codebook))
