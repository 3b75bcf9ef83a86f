"""The metrics inside ignite engines and across processes, the way MONAI runs its own."""

import datetime
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from common.metrics.frechet import FrechetDistance
from common.metrics.image_quality import PSNR, SSIM
from common.metrics.multiscale_ssim import MultiscaleSSIM
from common.metrics.nearest import NearestNeighborDistance
from common.metrics.seams import SeamRatio
from common.metrics.spectrum import SpectrumDistance


def _metrics() -> dict[str, CumulativeIterationMetric]:
    return {
        "frechet": FrechetDistance(),
        "spectrum": SpectrumDistance(),
        "seams": SeamRatio(8),
        "nearest": NearestNeighborDistance(),
        "psnr": PSNR(),
        "ssim": SSIM(),
        "ms_ssim": MultiscaleSSIM(),
    }


def _pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(10, 1, 24, 24, generator=generator), torch.rand(10, 1, 24, 24, generator=generator) ** 2


def _direct() -> dict[str, float]:
    pred, reference = _pairs()
    values = {}
    for name, metric in _metrics().items():
        metric(y_pred=pred, y=reference)
        values[name] = metric.aggregate().item()
    return values


def test_each_metric_runs_as_a_monai_handler() -> None:
    pred, reference = _pairs()
    engine = Engine(lambda engine, batch: batch)
    engine.state.metric_details = {}
    for name, metric in _metrics().items():
        IgniteMetricHandler(metric_fn=metric).attach(engine, name)
    engine.run(list(zip(pred.split(4), reference.split(4), strict=True)), max_epochs=1)
    assert engine.state.metrics == pytest.approx(_direct())


def _one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    pred, reference = _pairs()
    share = slice(0, 7) if rank == 0 else slice(7, 10)  # uneven on purpose
    values = {}
    for name, metric in _metrics().items():
        metric(y_pred=pred[share], y=reference[share])
        values[name] = metric.aggregate().item()
    torch.save(values, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_with_uneven_shares_agree_with_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(_direct())
