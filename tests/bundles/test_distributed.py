"""Two processes do what one does: the same training, the same images."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import run
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(Path(__file__).parent))
from command_line import command_line

from bundles import BUNDLES, configs, tiny, tiny_inference
from common.engines.preflight import lock_folder

pytestmark = pytest.mark.distributed

# every process logs its own loss and keeps its own final weights
RECORD = {
    "+train#handlers": [
        {
            "_target_": "TensorBoardStatsHandler",
            "log_dir": "$@output_dir + '/rank' + str(@rank)",
            "tag_name": "loss",
            "iteration_log": 1,
            "epoch_log": False,
            "output_transform": "$lambda output: output['loss']",
        }
    ],
    "+run": ["$torch.save(@network_def.state_dict(), @output_dir + '/rank' + str(@rank) + '.pt')"],
}
# without the terms that the halves of a batch do not share: balance of the experts, noise of the router
PLAIN: dict[str, dict[str, Any]] = {"dct_moe": {"balance_coefficient": 0, "router_noise": 0}}
EPOCHS, EPOCH_LENGTH = 2, 4
SETTINGS = {"epoch_length": EPOCH_LENGTH, "decay_steps": "$None", "val_interval": EPOCHS, "num_val_samples": 7}

Trained = tuple[str, Path, Path]


def run_in(processes: int, bundle: str, names: list[str | Path], options: dict[str, Any]) -> None:
    """Run these configs in this process, or with torchrun and the overlay for it in several."""
    if processes == 1:
        files = [name if isinstance(name, Path) else configs(bundle) / f"{name}.json" for name in names]
        run(config_file=[str(file) for file in files], **options)
        return
    names = [names[0], f"multi_gpu_{names[0]}", *names[1:]]
    result = command_line(bundle, names, options, processes=processes)
    assert result.returncode == 0, result.stderr[-4000:]


def trained(bundle: str, data: Path, folder: Path, processes: int, **more: Any) -> Path:
    """Train in ``folder``, a batch of 8 over all processes."""
    overlay = folder / "record.json"
    overlay.write_text(json.dumps(RECORD))
    options = tiny(bundle, data, folder, batch_size=8 // processes, max_epochs=EPOCHS, **SETTINGS)
    run_in(processes, bundle, ["train", overlay], options | more)
    return folder


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def one(bundle: str, picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training in one process."""
    return trained(bundle, picture_folder, tmp_path_factory.mktemp("one"), 1, **PLAIN[bundle])


@pytest.fixture(scope="module")
def two(bundle: str, picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same training in two processes with half the batch each."""
    return trained(bundle, picture_folder, tmp_path_factory.mktemp("two"), 2, **PLAIN[bundle])


def losses(folder: Path, rank: int) -> np.ndarray:
    log = EventAccumulator(str(folder / "output" / f"rank{rank}")).Reload()
    (tag,) = log.Tags()["scalars"]
    return np.array([event.value for event in log.Scalars(tag)])


def weights(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)


def require_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        difference = (value.double() - second[name].double()).abs().max()
        assert difference <= tolerance, f"{name}: {difference}"


def test_loss_of_two_processes_is_that_of_one_with_the_double_batch(one: Path, two: Path) -> None:
    alone = losses(one, 0)
    together = [losses(two, rank) for rank in (0, 1)]
    assert len(alone) == EPOCHS * EPOCH_LENGTH
    assert np.abs(together[0] - together[1]).min() > 1e-3  # they do see different images
    np.testing.assert_allclose(np.mean(together, axis=0), alone, rtol=1e-4)


def test_weights_of_two_processes_are_those_of_one(one: Path, two: Path) -> None:
    expected = weights(one / "output" / "rank0.pt")
    found = weights(two / "output" / "rank0.pt")
    require_close(found, expected, tolerance=1e-5)
    require_close(weights(two / "models" / "model.pt"), weights(one / "models" / "model.pt"), tolerance=1e-5)


def test_both_processes_hold_the_same_weights(two: Path) -> None:
    require_close(weights(two / "output" / "rank0.pt"), weights(two / "output" / "rank1.pt"), tolerance=0)


def test_validation_draws_the_same_images(one: Path, two: Path) -> None:
    name = f"output/samples_{EPOCHS:06d}.png"
    expected, found = (np.asarray(Image.open(folder / name)).astype(int) for folder in (one, two))
    assert expected.std() > 5
    np.testing.assert_allclose(found, expected, atol=1)  # grey levels


def test_recipe_as_it_is_trains_in_two_processes(bundle: str, picture_folder: Path, tmp_path: Path) -> None:
    """With the auxiliary loss and the router's noise, which differ between the processes."""
    folder = trained(bundle, picture_folder, tmp_path, 2)
    assert np.isfinite(np.concatenate([losses(folder, rank) for rank in (0, 1)])).all()
    first, second = (weights(folder / "output" / f"rank{rank}.pt") for rank in (0, 1))
    require_close(first, second, tolerance=0)
    assert all(value.isfinite().all() for value in first.values() if value.is_floating_point())


def test_one_process_resumes_what_two_have_begun(
    bundle: str, picture_folder: Path, one: Path, two: Path, tmp_path: Path
) -> None:
    ends = []
    for begun in (one, two):
        folder = shutil.copytree(begun, tmp_path / begun.name)
        trained(bundle, picture_folder, folder, 1, max_epochs=EPOCHS + 1, resume=True, **PLAIN[bundle])
        ends.append(weights(folder / "output" / "rank0.pt"))
        assert (folder / "output" / "checkpoints" / f"checkpoint_{EPOCHS + 1:06d}.pt").exists()
        assert not (folder / "output" / "checkpoints.previous").exists()
    require_close(*ends, tolerance=2e-5)
    before = weights(one / "output" / "rank0.pt")
    assert max((ends[0][name].double() - before[name].double()).abs().max() for name in before) > 1e-4


def test_failure_of_one_process_ends_the_run(bundle: str, picture_folder: Path, tmp_path: Path) -> None:
    """The first process finds the output folder in use, the other waits for it: no hang, and the reason is shown."""
    options = tiny(bundle, picture_folder, tmp_path)
    lock_folder(options["output_dir"], "output_dir")
    result = command_line(bundle, ["train", "multi_gpu_train"], options, processes=2, timeout=120)
    assert result.returncode == 1
    messages = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert messages
    assert "is in use by another run" in messages[0]


def test_evaluation_gives_the_same_scores(bundle: str, picture_folder: Path, one: Path, tmp_path: Path) -> None:
    metrics, pictures = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        shutil.copytree(one / "models", folder / "models")
        options = tiny(bundle, picture_folder, folder) | SETTINGS | PLAIN[bundle]
        run_in(processes, bundle, ["train", "evaluate"], options)
        results = folder / "output" / "evaluation"
        metrics.append(json.loads((results / "metrics.json").read_text()))
        pictures.append(np.asarray(Image.open(results / "samples.png")).astype(int))
    np.testing.assert_allclose(pictures[1], pictures[0], atol=1)
    assert metrics[1]["n"] == metrics[0]["n"]
    for name, scores in metrics[0]["scores"].items():
        for group in ("samples", "held_out"):
            found = metrics[1]["scores"][name][group]["value"]
            assert found == pytest.approx(scores[group]["value"], rel=1e-4), f"{name} of {group}"


def test_inference_gives_the_same_images(bundle: str, picture_folder: Path, one: Path, tmp_path: Path) -> None:
    """Seven samples, which two processes cannot divide evenly."""
    images = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        options = tiny_inference(bundle, picture_folder, one, num_samples=7, output_dir=str(out))
        run_in(processes, bundle, ["inference"], options)
        files = sorted(out.glob("sample_*.nii.gz"))
        assert [file.name for file in files] == [f"sample_{number:06d}.nii.gz" for number in range(7)]
        images.append(np.stack([np.asarray(nibabel.load(file).dataobj) for file in files]))
    np.testing.assert_allclose(images[1], images[0], atol=1e-4)
    assert np.abs(images[0][0] - images[0][1]).max() > 1e-3
