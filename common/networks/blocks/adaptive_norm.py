"""Layer normalization whose scale and shift follow from a condition (adaLN; Peebles and Xie 2023)."""

from torch import Tensor, nn
from torch.nn import functional as F

from .precision import full_precision

_EPS = 1e-6


class Modulation(nn.Module):
    """``count`` vectors, linear in ``silu(c)``; all start at zero ("adaLN-Zero").

    c ``(B, condition_size)`` -> ``count`` x ``(B, 1, hidden_size)`` in full precision, under autocast, too: what they
    are multiplied with is one number per image, whose rounding all tokens would share.
    """

    def __init__(self, condition_size: int, hidden_size: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(condition_size, count * hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights and biases 0."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        with full_precision(c.device):
            return self.linear(F.silu(c.to(self.linear.weight.dtype)))[:, None].chunk(self.count, dim=-1)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``LN(x) (1 + scale) + shift`` with x ``(B, N, D)``, shift and scale ``(B, 1, D)``; LN itself has no weights."""
    normalized = F.layer_norm(x, x.shape[-1:], eps=_EPS)
    return shift.addcmul(normalized, 1 + scale)
