"""Timing, peak memory, operation counts and facts of the machine for ``benchmark.py``."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.inferers.precision import supports_bfloat16
from common.networks.blocks.attention import SelfAttention
from common.networks.blocks.moe_mlp import MoEMLP
from common.networks.nets.u_vit import UViT

# dense bf16 peaks in TFLOP/s by a part of the device's name; the first match counts
PEAK_TFLOPS = (("H200", 989.0), ("H100 PCIe", 756.0), ("H100", 989.0), ("A100", 312.0), ("L40S", 362.0))


@dataclass(frozen=True)
class Row:
    """One line of the report. ``ratio``, or ``ours`` where there is none, is held against the target.

    Attributes:
        name: what was measured. unit: of ``ours`` and ``straightforward``.
        ratio: how many times better ours is, or another quotient that ``conditions`` name.
        at_least, at_most: the target, at most one of them. conditions: sizes, precision, other figures.
    """

    name: str
    unit: str
    ours: float
    straightforward: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    conditions: dict[str, Any] = field(default_factory=dict)

    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        value = self.ours if self.ratio is None else self.ratio
        if self.at_least is not None:
            return value >= self.at_least
        return None if self.at_most is None else value <= self.at_most

    def as_dict(self) -> dict[str, Any]:
        """The row as it stands in the JSON."""
        target = None
        if self.at_least is not None:
            target = f">= {self.at_least:g}"
        elif self.at_most is not None:
            target = f"<= {self.at_most:g}"
        return {
            "name": self.name,
            "ours": rounded(self.ours),
            "straightforward": rounded(self.straightforward),
            "ratio": rounded(self.ratio),
            "target": target,
            "met": self.met(),
            "unit": self.unit,
            "conditions": self.conditions,
        }


def rounded(value: float | None) -> float | None:
    """Four significant digits: more than a timing has."""
    return None if value is None else float(f"{value:.4g}")


def wait_for(device: str) -> None:
    """Let the accelerator finish what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def interleaved(
    functions: Sequence[Callable[[], object]], *, seconds: float, device: str = "cpu", rounds: int = 3, calls: int = 1
) -> list[list[float]]:
    """Seconds per call of each function, called in turns so that a change of the machine's load meets them all.

    Args:
        functions: called without arguments, each once before the clock starts.
        seconds: time to spend, at least.
        device: waited for before and after a turn.
        rounds: turns, at least.
        calls: calls a turn; more than one lets the host run ahead of a GPU as it does in a training.
    """
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    start = time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - start < seconds:
        for function, own in zip(functions, times, strict=True):
            wait_for(device)
            begin = time.perf_counter()
            for _ in range(calls):
                function()
            wait_for(device)
            own.append((time.perf_counter() - begin) / calls)
    return times


class Stopwatch:
    """Wraps a function, counts its calls and adds up the time spent inside it, the device's included."""

    def __init__(self, function: Callable[..., Any], device: str) -> None:
        self.function, self.device = function, device
        self.reset()

    def reset(self) -> None:
        """Start again at nothing."""
        self.seconds, self.calls = 0.0, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        wait_for(self.device)
        begin = time.perf_counter()
        result = self.function(*args, **kwargs)
        wait_for(self.device)
        self.seconds += time.perf_counter() - begin
        self.calls += 1
        return result


def outside_and_inside(function: Callable[[], object], inside: Stopwatch, seconds: float) -> tuple[float, float]:
    """Seconds per call of ``function`` that pass outside of a stopwatch it runs through, and those inside.

    Args:
        function: called without arguments, once before the clock starts and at least twice after.
        inside: around the part to tell apart.
        seconds: time to spend, at least.
    """
    function()
    inside.reset()
    whole = Stopwatch(function, inside.device)
    while whole.calls < 2 or whole.seconds < seconds:
        whole()
    return (whole.seconds - inside.seconds) / whole.calls, inside.seconds / whole.calls


def precision(device: str, amp: bool) -> str:
    """What the network computes in."""
    return "bf16" if amp and supports_bfloat16(device) else "fp32"


def multiply_accumulates(backbone: UViT) -> int:
    """Multiply-accumulates of one image's forward pass: linear layers, attention, k experts per token.

    A training step takes three times as many, a multiply-accumulate is two FLOP.
    """
    positions = backbone.position_embedding.shape[1]  # tokens and the extra ones
    total = 0
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear):
            rows = 1 if name.startswith("time_embed") else positions
            rows = backbone.num_tokens if name in ("input", "output") else rows
            total += rows * module.in_features * module.out_features
        elif isinstance(module, SelfAttention):
            total += 2 * positions**2 * backbone.hidden_size
        elif isinstance(module, MoEMLP):
            total += positions * module.top_k * 2 * module.fc1_weight[0].numel()
    return total


def peak_tflops(device_name: str) -> float | None:
    """Dense bf16 peak of a GPU; None if it is not in the table."""
    return next((peak for part, peak in PEAK_TFLOPS if part in device_name), None)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far.

    From the kernel's record of this program; ``getrusage`` would also count the program that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 1024


def run_alone(job: str, folder: Path, **options: Any) -> dict[str, float]:
    """A job of ``benchmark_memory.py`` in a process of its own; what it measured."""
    script = Path(__file__).with_name("benchmark_memory.py")
    arguments = [item for name, value in options.items() for item in (f"--{name}", str(value))]
    command = [sys.executable, str(script), job, str(folder), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_facts(root: Path) -> dict[str, Any]:
    """What the figures depend on."""
    gpu = torch.cuda.is_available()
    return {
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "cpu_bf16": supports_bfloat16("cpu"),
        "gpu": torch.cuda.get_device_name(0) if gpu else None,
        "gpu_bf16": supports_bfloat16("cuda") if gpu else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(root),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit(root: Path) -> str | None:
    """Commit of the checkout, ``+changes`` if files differ from it; None outside a repository."""
    try:
        commands = (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        outputs = [
            subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return outputs[0] + ("+changes" if outputs[1] else "")
