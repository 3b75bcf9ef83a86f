"""Feed-forward layers of a transformer block: dense, and as a sparse mixture of experts."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .expert_mlps import expert_mlps
from .token_dispatch import Dispatch, combine, spread

Gate = Literal["ste", "softmax", "renorm"]
Gelu = Literal["none", "tanh"]


class Mlp(nn.Module):
    """``Linear(D, rD) -> GELU -> Linear(rD, D)``: x ``(..., D)`` -> ``(..., D)``, r = ``mlp_ratio``.

    ``gelu``: how the activation is approximated, as ``torch.nn.GELU`` names it.
    """

    def __init__(self, hidden_size: int, mlp_ratio: float = 4.0, *, gelu: Gelu = "none") -> None:
        super().__init__()
        self.gelu = gelu
        inner = int(hidden_size * mlp_ratio)
        self.fc1 = nn.Linear(hidden_size, inner)
        self.fc2 = nn.Linear(inner, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))


class MoEMLP(nn.Module):
    """Mixture of ``num_experts`` MLPs of full width, ``top_k`` of them per token (DCT-MoE, section 4.2).

    x ``(B, N, D)`` -> y ``(B, N, D)`` and the router's probabilities P ``(B, N, num_experts)`` in float32, which the
    balance loss needs. ``y = sum_{i in top_k} w_i E_i(x)`` with ``P = softmax(router(x) + noise)``; no capacity limit,
    no token is dropped. Every expert receives a gradient, zeros where no token chose it.

    Tokens are sorted by expert, so that each expert works on one contiguous slice (:mod:`.token_dispatch`,
    :mod:`.expert_mlps`).

    Args:
        hidden_size: D.
        mlp_ratio: width of an expert's hidden layer in units of D.
        num_experts: number of experts, e.
        top_k: experts per token, 1..e.
        gate: weight of a chosen expert. ``"ste"``: 1 in value, with the gradient of P_i (the paper's Algorithm 1 and
            published results); ``"softmax"``: P_i (the paper's eq. 3); ``"renorm"``: P_i over the sum of the chosen P.
        router_noise: standard deviation of the noise on the router's logits, in training only.
    """

    def __init__(
        self,
        hidden_size: int,
        mlp_ratio: float = 4.0,
        num_experts: int = 4,
        top_k: int = 2,
        gate: Gate = "ste",
        router_noise: float = 1e-2,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"MoEMLP: top_k={top_k} must lie in 1..num_experts={num_experts}.")
        if gate not in get_args(Gate):
            raise ValueError(f"MoEMLP: gate={gate!r} is unknown; choose one of {', '.join(get_args(Gate))}.")
        if gate == "renorm" and top_k == 1:
            raise ValueError(
                "MoEMLP: gate='renorm' with top_k=1 makes every weight 1, so that the router cannot learn; "
                "choose top_k >= 2 or gate 'ste' or 'softmax'."
            )
        inner = int(hidden_size * mlp_ratio)
        self.num_experts, self.top_k, self.gate, self.router_noise = num_experts, top_k, gate, router_noise
        self.router = nn.Linear(hidden_size, num_experts, bias=False)
        self.fc1_weight = nn.Parameter(torch.empty(num_experts, inner, hidden_size))
        self.fc1_bias = nn.Parameter(torch.empty(num_experts, inner))
        self.fc2_weight = nn.Parameter(torch.empty(num_experts, hidden_size, inner))
        self.fc2_bias = nn.Parameter(torch.empty(num_experts, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of the experts normal(0.02) cut at +-2, biases 0."""
        for weight, bias in ((self.fc1_weight, self.fc1_bias), (self.fc2_weight, self.fc2_bias)):
            nn.init.trunc_normal_(weight, std=0.02)
            nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        probs = self.route(x)  # (B, N, E)
        chosen, experts = probs.flatten(0, 1).topk(self.top_k, dim=-1)  # (M, k), M = B N
        dispatch = Dispatch.from_choices(experts, self.num_experts)

        autocast = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
        weight1, bias1 = self.fc1_weight.to(dtype), self.fc1_bias.to(dtype)
        weight2, bias2 = self.fc2_weight.to(dtype), self.fc2_bias.to(dtype)
        rows = spread(x.flatten(0, 1).to(dtype), dispatch)  # (R, D), R >= M k, sorted by expert
        rows = expert_mlps(rows, weight1, bias1, weight2, bias2, dispatch.ends)
        return combine(rows, self.weigh(chosen), dispatch).to(x.dtype).view_as(x), probs

    def route(self, x: Tensor) -> Tensor:
        """Probability of each expert, ``(B, N, E)``, in float32 also under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.router.weight.float())
        if self.training and self.router_noise > 0:
            logits = logits + self.router_noise * torch.randn_like(logits)
        return logits.softmax(dim=-1)

    def weigh(self, chosen: Tensor) -> Tensor:
        """Weights of the chosen experts from their probabilities ``(M, k)``, according to the gate."""
        if self.gate == "ste":
            return 1.0 + (chosen - chosen.detach())
        if self.gate == "softmax":
            return chosen
        return chosen / chosen.sum(dim=-1, keepdim=True)
