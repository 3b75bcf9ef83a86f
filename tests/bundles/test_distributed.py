"""Two processes do what one does: the same training, the same images."""

import json
import shutil
import sys
from collections.abc import Callable
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

from bundles import BUNDLES, FACTS, Options, configs, inferred, tiny, tiny_evaluation, tiny_inference
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
EPOCHS, EPOCH_LENGTH = 2, 4
SCORES = ("/value", "/mean_dice", "/dice")  # names of the entries that hold one


def settings(bundle: str) -> Options:
    """A validation at the end, of a number that two processes cannot divide evenly."""
    name = FACTS[bundle].number_to_validate
    number = {} if name is None else {name: 7}
    return {"epoch_length": EPOCH_LENGTH, "decay_steps": "$None", "val_interval": EPOCHS, **number}


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
    options = tiny(bundle, data, folder, batch_size=8 // processes, max_epochs=EPOCHS, **settings(bundle))
    run_in(processes, bundle, ["train", overlay], options | more)
    return folder


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def data(bundle: str, data_of: Callable[[str], Path]) -> Path:
    return data_of(bundle)


@pytest.fixture(scope="module")
def one(bundle: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training in one process, without the terms that the halves of a batch do not share."""
    return trained(bundle, data, tmp_path_factory.mktemp("one"), 1, **FACTS[bundle].plain)


@pytest.fixture(scope="module")
def two(bundle: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same training in two processes with half the batch each."""
    return trained(bundle, data, tmp_path_factory.mktemp("two"), 2, **FACTS[bundle].plain)


def losses(folder: Path, rank: int) -> np.ndarray:
    log = EventAccumulator(str(folder / "output" / f"rank{rank}")).Reload()
    (tag,) = log.Tags()["scalars"]
    return np.array([event.value for event in log.Scalars(tag)])


def weights(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)


def require_close(
    first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float, idle: tuple[str, ...] = ()
) -> None:
    assert first.keys() == second.keys() >= set(idle)
    for name in first.keys() - set(idle):
        message = f"{name}: {{}}".format
        values = first[name].double(), second[name].double()
        torch.testing.assert_close(*values, atol=tolerance, rtol=0, msg=message)


def test_loss_of_two_processes_is_that_of_one_with_the_double_batch(one: Path, two: Path) -> None:
    alone = losses(one, 0)
    together = [losses(two, rank) for rank in (0, 1)]
    assert len(alone) == EPOCHS * EPOCH_LENGTH
    assert np.abs(together[0] - together[1]).min() > 1e-5  # they do see different images
    np.testing.assert_allclose(np.mean(together, axis=0), alone, rtol=1e-4)


@pytest.mark.parametrize("file", ["output/rank0.pt", "models/model.pt"])
def test_weights_of_two_processes_are_those_of_one(bundle: str, one: Path, two: Path, file: str) -> None:
    require_close(weights(two / file), weights(one / file), tolerance=1e-5, idle=FACTS[bundle].idle)


def test_both_processes_hold_the_same_weights(two: Path) -> None:
    require_close(weights(two / "output" / "rank0.pt"), weights(two / "output" / "rank1.pt"), tolerance=0)


def test_validation_draws_the_same_images(bundle: str, one: Path, two: Path) -> None:
    name = FACTS[bundle].picture.format(EPOCHS)
    expected, found = (np.asarray(Image.open(folder / "output" / name)).astype(int) for folder in (one, two))
    assert expected.std() > 5
    np.testing.assert_allclose(found, expected, atol=1)  # grey levels


def test_recipe_as_it_is_trains_in_two_processes(bundle: str, data: Path, tmp_path: Path) -> None:
    """With all terms, also those that differ between the processes (balance of experts, noise of the router)."""
    folder = trained(bundle, data, tmp_path, 2)
    assert np.isfinite(np.concatenate([losses(folder, rank) for rank in (0, 1)])).all()
    first, second = (weights(folder / "output" / f"rank{rank}.pt") for rank in (0, 1))
    require_close(first, second, tolerance=0)
    assert all(value.isfinite().all() for value in first.values() if value.is_floating_point())


def test_one_process_resumes_what_two_have_begun(bundle: str, data: Path, one: Path, two: Path, tmp_path: Path) -> None:
    ends = []
    for begun in (one, two):
        folder = shutil.copytree(begun, tmp_path / begun.name)
        trained(bundle, data, folder, 1, max_epochs=EPOCHS + 1, resume=True, **FACTS[bundle].plain)
        ends.append(weights(folder / "output" / "rank0.pt"))
        assert (folder / "output" / "checkpoints" / f"checkpoint_{EPOCHS + 1:06d}.pt").exists()
        assert not (folder / "output" / "checkpoints.previous").exists()
    require_close(*ends, tolerance=2e-5, idle=FACTS[bundle].idle)
    before = weights(one / "output" / "rank0.pt")
    changes = [(ends[0][name] - value).abs().max() for name, value in before.items() if value.is_floating_point()]
    assert max(changes) > 1e-4


def test_failure_of_one_process_ends_the_run(bundle: str, data: Path, tmp_path: Path) -> None:
    """The first process finds the output folder in use, the other waits for it: no hang, and the reason is shown."""
    options = tiny(bundle, data, tmp_path)
    lock_folder(options["output_dir"], "output_dir")
    result = command_line(bundle, ["train", "multi_gpu_train"], options, processes=2, timeout=120)
    assert result.returncode == 1
    messages = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert messages
    assert "is in use by another run" in messages[0]


def values(tree: Any, path: str = "") -> dict[str, float]:
    """All scores of nested dictionaries, and all entries below ``n``."""
    if isinstance(tree, dict):
        return {name: number for key, item in tree.items() for name, number in values(item, f"{path}/{key}").items()}
    return {path: tree} if path.endswith(SCORES) or path.startswith("/n/") else {}


def test_evaluation_gives_the_same_scores(bundle: str, data: Path, one: Path, tmp_path: Path) -> None:
    metrics, pictures = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        shutil.copytree(one / "models", folder / "models")
        options = tiny_evaluation(bundle, data, folder) | settings(bundle) | FACTS[bundle].plain
        run_in(processes, bundle, ["train", "evaluate"], options)
        results = [folder / "output" / "evaluation" / protocol for protocol in FACTS[bundle].evaluations]
        metrics.append([values(json.loads((part / "metrics.json").read_text())) for part in results])
        found = {(part.name, path.name): path for part in results for path in part.glob("*.png")}
        pictures.append({key: np.asarray(Image.open(path)).astype(int) for key, path in found.items()})
    assert pictures[0].keys() == pictures[1].keys() >= {(part.name, "report.png") for part in results}
    for key, picture in pictures[0].items():
        if key[1] == "samples.png":  # images only, while the report tells its folder
            np.testing.assert_allclose(pictures[1][key], picture, atol=1)
    for alone, together in zip(*metrics, strict=True):
        assert any(name.startswith("/n/") for name in alone)
        assert any(name.endswith(SCORES) for name in alone)
        assert together == pytest.approx(alone, rel=1e-4)


def test_inference_gives_the_same_images(bundle: str, data: Path, one: Path, tmp_path: Path) -> None:
    """Three images or volumes, which two processes cannot divide evenly."""
    images = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        run_in(processes, bundle, ["inference"], tiny_inference(bundle, data, one, output_dir=str(out)))
        images.append([nibabel.load(file).get_fdata() for file in inferred(bundle, out)])
    for first, second in zip(*images, strict=True):
        assert first.std() > 0
        rounding = 1 if FACTS[bundle].integers else 0  # another number of threads can tip a half
        np.testing.assert_allclose(second, first, atol=max(rounding, 1e-4 * np.abs(first).max()))


OTHERS = {
    "autoencoder": ("fqcdm", ["train_autoencoder"], "multi_gpu_autoencoder"),
    "joint": ("fqcdm", ["train_autoencoder", "train_joint"], "multi_gpu_autoencoder"),
    "context encoder": ("cardiac_segmentation", ["pretrain"], "multi_gpu_train"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_training_in_two_processes_is_that_of_one(
    case: str, data_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Codebook, discriminator and running statistics of the latents included."""
    bundle, names, overlay = OTHERS[case]
    states = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        options = tiny(bundle, data_of(bundle), folder, config=names[0], batch_size=8 // processes, epoch_length=4)
        options |= FACTS[bundle].overlays.get(names[-1], {}) | {"decay_steps": 4}
        if processes == 1:
            run(config_file=[str(configs(bundle) / f"{name}.json") for name in names], **options)
        else:
            result = command_line(bundle, [*names, overlay], options, processes=2)
            assert result.returncode == 0, result.stderr[-4000:]
        states.append(weights(folder / "models" / "model.pt"))
    digest = "settings.autoencoder"  # of the last bit of all weights
    idle = tuple(name for name in (*FACTS[bundle].idle, digest) if name in states[0])
    require_close(states[1], states[0], tolerance=1e-4, idle=idle)


def test_baselines_train_in_two_processes(registered_heads: Path, tmp_path: Path) -> None:
    """CycleGAN, with generators and discriminators in both directions: finite, and the same in both processes."""
    overlay = tmp_path / "record.json"
    overlay.write_text(json.dumps(RECORD))
    options = tiny("med_dit", registered_heads, tmp_path, config="pix2pix", num_blocks=1, batch_size=2)
    names: list[str | Path] = ["pix2pix", "cyclegan", "multi_gpu_gan", overlay]
    result = command_line("med_dit", names, options, processes=2)
    assert result.returncode == 0, result.stderr[-4000:]
    assert np.isfinite(np.concatenate([losses(tmp_path, rank) for rank in (0, 1)])).all()
    first, second = (weights(tmp_path / "output" / f"rank{rank}.pt") for rank in (0, 1))
    require_close(first, second, tolerance=0)
    assert all(value.isfinite().all() for value in first.values() if value.is_floating_point())
