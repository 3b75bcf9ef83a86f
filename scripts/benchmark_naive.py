"""The straightforward forms that ``benchmark.py`` compares the library with: same numbers, written as one first would.

They are fair: no work is done twice on purpose, and each is asserted to compute what the library computes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from torch import Tensor, nn

from common.engines.optimization import adamw
from common.frequency.zigzag import zigzag_order
from common.inferers.diffusion import NoisePredictionInferer
from common.networks.blocks.moe_mlp import Mlp, MoEMLP

BlockTransform = Callable[[NDArray], NDArray]


def transform_by_block(images: NDArray[np.float32], block: int, transform: BlockTransform) -> NDArray[np.float32]:
    """The bare loop: every block (b, b) of images (N, H, W) is transformed in its place."""
    result = np.empty_like(images)
    for image, coefficients in zip(images, result, strict=True):
        for y in range(0, image.shape[0], block):
            for x in range(0, image.shape[1], block):
                coefficients[y : y + block, x : x + block] = transform(image[y : y + block, x : x + block])
    return result


def tokenize_by_block(
    images: NDArray[np.float32], block: int, eta: float, transform: BlockTransform, shift: float = 128.0
) -> NDArray[np.float32]:
    """The whole encoder as a loop over blocks: (N, H, W) grey levels -> tokens (N, T, 4 b^2).

    A token is a square of 2x2 blocks, in the order top left, top right, bottom left, bottom right.
    """
    order = zigzag_order(block).numpy()
    side, values = 2 * block, block**2
    gy, gx = images.shape[1] // side, images.shape[2] // side
    tokens = np.empty((len(images), gy * gx, 4 * values), np.float32)
    for image, features in zip(images - np.float32(shift), tokens, strict=True):
        for token in range(gy * gx):
            for part in range(4):
                y = (token // gx) * side + (part // 2) * block
                x = (token % gx) * side + (part % 2) * block
                coefficients = transform(image[y : y + block, x : x + block])
                features[token, part * values : (part + 1) * values] = coefficients.ravel()[order] / eta
    return tokens


class MoEByMask(MoEMLP):
    """Mixture of experts as a loop over experts: a boolean mask picks the tokens, ``index_add_`` puts them back.

    Args:
        moe: the layer whose weights, router and gate it takes over.
    """

    def __init__(self, moe: MoEMLP) -> None:
        nn.Module.__init__(self)
        self.num_experts, self.top_k, self.gate = moe.num_experts, moe.top_k, moe.gate
        self.router_noise = moe.router_noise
        self.router = moe.router
        inner, hidden_size = moe.fc1_weight.shape[1:]
        experts = [Mlp(hidden_size, inner / hidden_size).to(moe.fc1_weight.device) for _ in range(moe.num_experts)]
        with torch.no_grad():
            for number, expert in enumerate(experts):
                expert.fc1.weight.copy_(moe.fc1_weight[number])
                expert.fc1.bias.copy_(moe.fc1_bias[number])
                expert.fc2.weight.copy_(moe.fc2_weight[number])
                expert.fc2.bias.copy_(moe.fc2_bias[number])
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        probs = self.route(x)  # (B, N, E)
        tokens = x.flatten(0, 1)  # (M, D)
        chosen, experts = probs.flatten(0, 1).topk(self.top_k, dim=-1)  # (M, k)
        weights = self.weigh(chosen)
        y = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            mask = experts == number  # (M, k)
            rows = mask.any(dim=-1).nonzero().squeeze(-1)
            weight = weights[mask]  # one per row: a token chooses an expert once
            y.index_add_(0, rows, expert(tokens[rows]) * weight[:, None])
        return y.view_as(x), probs


def use_masked_experts(network: nn.Module) -> nn.Module:
    """Replace each mixture layer of ``network`` in place; returns the network."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, MoEMLP) and not isinstance(child, MoEByMask):
                setattr(module, name, MoEByMask(child).train(child.training))
    return network


class StraightforwardStep:
    """Training step of a recipe in its simple form: fp32, masked experts, a plain loop wherever one will do.

    Forward, loss, backward, clipping, AdamW, moving average and schedule in the order of the trainer; loss and its two
    parts are read on the host in each step, for the log.

    Args:
        recipe: a parsed ``train.json``; the step takes its network over.
    """

    def __init__(self, recipe: ConfigParser) -> None:
        part = recipe.get_parsed_content
        self.network = use_masked_experts(part("network")).train()
        self.average = use_masked_experts(part("ema").model).requires_grad_(False)
        self.decay, self.clip_norm = part("ema_decay"), part("clip_norm")
        self.prepare_batch, self.loss, self.device = part("prepare_batch"), part("loss"), part("device")
        self.randomness, self.inferer = part("randomness"), NoisePredictionInferer(amp=False)
        options = {"lr": part("learning_rate"), "betas": tuple(part("betas"))}
        groups = adamw(self.network, weight_decay=part("weight_decay"), **options).param_groups
        groups = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in groups]
        self.optimizer = torch.optim.AdamW(groups, foreach=False, fused=False, **options)
        factor = part("lr_scheduler").lr_lambdas[0]
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.iteration = 0
        self.log: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        self.iteration += 1
        self.randomness.start(self.iteration)
        x0, target, _, drawn = self.prepare_batch(batch, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.loss.terms(self.inferer(x0, self.network, **drawn), target)
        loss = terms["noise"] + self.loss.balance_coefficient * terms["balance"]
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm, foreach=False)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.log = (loss.item(), terms["noise"].item(), terms["balance"].item())
        self.update_average()
        return loss.detach()

    @torch.no_grad()
    def update_average(self) -> None:
        """Moving average, one parameter after the other, with the library's ramp."""
        rate = min(self.decay, (1 + self.iteration) / (10 + self.iteration))
        for average, current in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.mul_(rate).add_(current, alpha=1 - rate)
