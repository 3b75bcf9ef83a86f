"""Performance of the library, each figure beside the straightforward form in the same run; prints one JSON document.

python scripts/benchmark.py [--quick|--full] [--device cpu|cuda] [--rows tokenizer,sampling] [--threads 1]
"""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import benchmark_latent
import benchmark_rows
import benchmark_translation
from benchmark_measure import available_cores, machine_facts
from benchmark_plan import Plan, Skipped
from benchmark_recipe import Workload

ROWS = {**benchmark_rows.ROWS, **benchmark_translation.ROWS, **benchmark_latent.ROWS}


def make_plan(device: str, folder: Path, quick: bool, full: bool = False) -> Plan:
    """Sizes of the design's targets, or tiny ones; ``full``: the networks of papers on a CPU, too."""
    if quick:
        tiny = Workload("tiny", 16, 4)
        return Plan(
            device,
            folder,
            0.1,
            tiny,
            (tiny,),
            tiny,
            tokenized=16,
            looped=1,
            steps=10,
            evaluations=(3, 5),
            volumes=4,
            translation={
                "image_size": [16, 16],
                "attention_resolutions": [4],
                "window_size": 4,
                "pixel_mm": 14.0,
                "batch_size": 4,
            },
            volume=(24, 24, 16),
            depths=(4, 8),
            latent={"num_steps": 3, "batch_size": 4},
            latent_volume=(24, 24, 16),
        )
    if device == "cpu":
        demo = Workload("demo", 48, 32)
        return Plan(device, folder, 8.0, demo, (demo, Workload("S", 96, 8)), demo, paper=full)
    large = Workload("M", 96, 128)
    return Plan(device, folder, 8.0, large, (large,), large, calls=5, paper=True)


def measure(plan: Plan, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The rows of ``names`` on one device, and those left out with the reason; progress goes to stderr."""
    rows, skipped = [], []
    for name in names:
        function, cpu_only = ROWS[name]
        if cpu_only and plan.device != "cpu":
            continue
        start = time.perf_counter()
        print(f"{name} on {plan.device} ...", file=sys.stderr, flush=True)
        try:
            found = [row.as_dict() for row in function(plan)]
        except Skipped as reason:
            skipped.append({"name": name, "device": plan.device, "reason": str(reason)})
            continue
        for row in found:
            print(f"  {row['name']}: {row['ours']} {row['unit']}, ratio {row['ratio']}", file=sys.stderr)
        print(f"  {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        rows += found
    return rows, skipped


def benchmark(
    quick: bool = False,
    full: bool = False,
    device: str | None = None,
    rows: str | Sequence[str] | None = None,
    threads: int | None = None,
) -> None:
    """Measure and print.

    Args:
        quick: tiny sizes, seconds; shows that everything runs, the figures mean nothing.
        full: with rows that take a CPU half an hour; a GPU has them in any case.
        device: "cpu" or "cuda"; both, where there is a GPU, if not given.
        rows: only these, separated by commas.
        threads: of the CPU; all cores, if not given. Use fewer while other programs compute.
    """
    names = list(ROWS) if rows is None else rows.split(",") if isinstance(rows, str) else list(rows)
    if unknown := [name for name in names if name not in ROWS]:
        sys.exit(f"error: no row is called {', '.join(unknown)}; choose among {', '.join(ROWS)}.")
    if device not in (None, "cpu", "cuda"):
        sys.exit(f"error: device '{device}' is not 'cpu' or 'cuda'.")
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no CUDA device; leave --device away to measure the CPU.")
    devices = [device] if device else ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    torch.set_num_threads(threads or available_cores())
    start = time.perf_counter()
    facts = machine_facts(Path(__file__).resolve().parents[1])
    report: dict[str, Any] = {"machine": facts, "quick": quick, "rows": [], "skipped": []}
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        for name in devices:
            measured, skipped = measure(make_plan(name, Path(folder), quick, full), names)
            report["rows"] += measured
            report["skipped"] += skipped
    report["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    fire.Fire(benchmark)
