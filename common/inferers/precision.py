"""Mixed precision that means the same on GPU and CPU."""

import torch


def supports_bfloat16(device: torch.device | str) -> bool:
    """Whether bf16 matrix products are fast on ``device``: Ampere or newer GPUs, CPUs with AVX512-BF16 or AMX."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def autocast(device: torch.device | str, amp: bool) -> torch.autocast:
    """Context in which matrix products run in bf16, if ``amp`` is on and the device has it; else in fp32.

    MONAI's engines know mixed precision on CUDA only (their ``amp`` does nothing on a CPU), therefore the inferers of
    this project open this context around the network and the engines' own ``amp`` stays off. bf16 needs no gradient
    scaling.
    """
    device = torch.device(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp and supports_bfloat16(device))
