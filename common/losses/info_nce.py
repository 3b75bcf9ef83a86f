"""Contrastive loss that makes the embeddings of an image's views recognizable among those of other images."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pool = Literal["flatten", "mean"]
Positives = Literal["pairs", "self"]


class InfoNCELoss(nn.Module):
    """``mean_k -log(exp(S_kk) / sum_j exp(S_kj))`` of the cosine similarities S, divided by ``tau``.

    Called with the tokens of a batch and any second argument, which is ignored; returns a float32 scalar, computed
    outside autocast. Other images of the batch of this process serve as negatives.

    ``positives`` says what is compared:

    - ``pairs``: tokens ``(2B, L, D)``, views a of B images and then views b of the same; ``S_kj = <a_k, b_j> / tau``.
      Symmetric: the mean of telling b from a and a from b. ``log B`` if all embeddings are alike.
    - ``self``: tokens ``(B, L, D)``; ``S_kj = <e_k, e_j> / tau``, the formula of Med-DiT. Its positive is the constant
      ``S_kk = 1 / tau``, so that this only drives the images apart.

    Args:
        tau: temperature.
        pool: what represents an image: all its tokens in a row, ``flatten``, or their ``mean``.
        positives: see above.
    Source: van den Oord et al. 2018, "Representation learning with contrastive predictive coding"; Kien et al.,
        "Diffusion Transformer in Medical Image Translation", section 3.4.3.
    """

    def __init__(self, tau: float = 0.07, pool: Pool = "flatten", positives: Positives = "pairs") -> None:
        super().__init__()
        if not tau > 0:
            raise ValueError(f"InfoNCELoss: tau={tau} must be positive.")
        if pool not in get_args(Pool):
            raise ValueError(f"InfoNCELoss: pool={pool!r} is unknown; choose one of {', '.join(get_args(Pool))}.")
        if positives not in get_args(Positives):
            choices = ", ".join(get_args(Positives))
            raise ValueError(f"InfoNCELoss: positives={positives!r} is unknown; choose one of {choices}.")
        self.tau, self.pool, self.positives = tau, pool, positives

    def forward(self, pred: Tensor, target: object = None) -> Tensor:
        similarity = self._similarity(pred)
        if self.positives == "self":
            return _cross_entropy(similarity)
        return 0.5 * (_cross_entropy(similarity) + _cross_entropy(similarity.mT))

    @torch.no_grad()
    def accuracy(self, pred: Tensor) -> Tensor:
        """Share of the views whose nearest view of the other kind is of the same image; scalar. For ``pairs`` only."""
        if self.positives == "self":
            raise ValueError("InfoNCELoss: accuracy needs positives='pairs'; an image is always nearest to itself.")
        similarity = self._similarity(pred)
        images = torch.arange(len(similarity), device=similarity.device)
        right = [(similarity.argmax(dim=axis) == images).float().mean() for axis in (0, 1)]
        return torch.stack(right).mean()

    def _similarity(self, tokens: Tensor) -> Tensor:
        """S, ``(B, B)`` in float32."""
        views = 2 if self.positives == "pairs" else 1
        if tokens.ndim != 3 or len(tokens) % views or len(tokens) < 2 * views:
            raise ValueError(
                f"InfoNCELoss: tokens {tuple(tokens.shape)} must be (B, L, D) with a batch of "
                f"{'two views each' if views == 2 else 'one view each'} of at least two images."
            )
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            vectors = tokens.flatten(1) if self.pool == "flatten" else tokens.mean(dim=1)
            vectors = F.normalize(vectors, dim=-1)  # (views * B, L * D or D)
            halves = vectors.chunk(views)
            return halves[0] @ halves[-1].mT / self.tau


def _cross_entropy(similarity: Tensor) -> Tensor:
    """Mean over rows k of ``-log softmax(S_k)_k``, from ``(B, B)``.

    As ``log(1 + exp(log sum_{j != k} exp(S_kj) - S_kk))``, which keeps small values exact.
    """
    others = similarity.masked_fill(torch.eye(len(similarity), dtype=torch.bool, device=similarity.device), -torch.inf)
    return F.softplus(others.logsumexp(dim=1) - similarity.diagonal()).mean()
