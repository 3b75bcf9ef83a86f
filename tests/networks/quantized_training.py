"""A tiny quantized autoencoder in training; as a script, in as many processes as torchrun starts."""

import copy
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from common.engines.randomness import StepRandomness
from common.losses.adaptive_weight import AdaptiveWeight
from common.losses.adversarial import HingeGAN
from common.networks.blocks.feature_quantizer import CodebookMode
from common.networks.nets.dual_branch_discriminator import DualBranchDiscriminator
from common.networks.nets.quantized_autoencoder import QuantizedAutoencoder

BATCH, SIZE, CODES = 4, 16, 40


def tiny_autoencoder(mode: CodebookMode = "gradient", **changes: Any) -> QuantizedAutoencoder:
    """Latents of 3 channels at a quarter of the resolution, 40 codes that are replaced after two steps without use."""
    torch.manual_seed(0)
    settings = {
        "channels": (4, 8),
        "num_res_layers": 1,
        "num_embeddings": CODES,
        "embedding_dim": 3,
        "restart_after": 2,
    }
    return QuantizedAutoencoder(mode=mode, **{**settings, **changes})


class Training:
    """Steps with random batches that depend on their number alone; the adversarial weight is an adaptive one."""

    def __init__(self, mode: CodebookMode) -> None:
        self.network = tiny_autoencoder(mode)
        torch.manual_seed(1)
        self.judge = DualBranchDiscriminator(
            channels=4, num_layers=1, edge_channels=(4,), fusion_channels=2
        ).requires_grad_(False)
        self.optimizer = torch.optim.SGD([p for p in self.network.parameters() if p.requires_grad], lr=0.1)
        self.randomness, self.weight = StepRandomness(seed=3), AdaptiveWeight()
        self.wrapped = DistributedDataParallel(self.network) if dist.is_initialized() else self.network
        self.weights: list[float] = []
        self.restarted = 0

    def steps(self, first: int, last: int) -> "Training":
        """Iterations ``first`` to ``last``."""
        rank, count = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for number in range(first, last + 1):
            self.randomness.start(number)
            everything = torch.rand(BATCH, 1, SIZE, SIZE, generator=self.randomness.shared("cpu"))
            images = everything[rank::count]
            self.restarted += int((self.network.quantizer.unused >= 2).sum())
            output = self.wrapped(images)
            reconstruction = (output["image"] - images).abs().mean()
            adversarial = HingeGAN().generator(self.judge(output["image"], (images > 0.5).float()))
            weight = self.weight(reconstruction, adversarial, self.network.last_layer)
            self.weights.append(weight.item())
            self.optimizer.zero_grad()
            (reconstruction + output["codebook_loss"] + weight * adversarial).backward()
            self.optimizer.step()
        return self

    def state(self) -> dict[str, Tensor]:
        """All that the steps have changed."""
        return {
            **copy.deepcopy(self.network.state_dict()),
            "weights": torch.tensor(self.weights),
            "restarted": torch.tensor(self.restarted),
        }


def main() -> None:
    """``quantized_training.py FOLDER MODE ...``: train in each mode, save what this process ends with."""
    folder = Path(sys.argv[1])
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if dist.is_initialized() else 0
    for mode in sys.argv[2:]:
        (folder / mode).mkdir(parents=True, exist_ok=True)
        torch.save(Training(mode).steps(1, 6).state(), folder / mode / f"rank{rank}.pt")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
