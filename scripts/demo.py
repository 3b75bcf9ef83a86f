"""Sample from the shipped DCT-MoE weights, train the same recipe for a few minutes, put both beside real slices.

Run by ``make demo``; everything it writes lies in ``output/demo``.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import fire
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CONFIGS = "bundles/dct_moe/configs"


def run_bundle(config: str, **options: object) -> None:
    """``python -m monai.bundle run`` from the repository root."""
    arguments = [item for name, value in options.items() for item in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


def read_samples(folder: Path, number: int) -> np.ndarray:
    """First ``number`` images that inference wrote: (N, X, Y) in [0, 1]."""
    from nibabel.nifti1 import Nifti1Image

    files = sorted(folder.glob("sample_*.nii.gz"))[:number]
    return np.stack([np.asarray(Nifti1Image.from_filename(file).dataobj)[..., 0] for file in files])


def read_real(output_dir: Path, number: int) -> np.ndarray:
    """Slices evenly spaced over the training cache: (N, X, Y) in [0, 1]."""
    cache = max((output_dir / "cache").glob("slices-*/images.npy"), key=lambda path: path.stat().st_size)
    images = np.load(cache, mmap_mode="r")
    chosen = np.linspace(0, len(images) - 1, number).round().astype(int)
    return images[chosen, 0].astype(np.float32) / 255


def read_losses(output_dir: Path) -> tuple[list[int], list[float]]:
    """Training loss from the TensorBoard log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(output_dir / "tensorboard"))
    log.Reload()
    events = log.Scalars("train_loss")
    return [event.step for event in events], [event.value for event in events]


def draw(real: np.ndarray, shipped: np.ndarray, short: np.ndarray, losses: tuple, steps: int, path: Path) -> None:
    """The picture: three grids and the loss curve."""
    import torch
    from matplotlib.figure import Figure

    from common.atomic import atomic_path
    from common.pictures import image_grid

    figure = Figure(figsize=(12, 12.5), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for panel, images, title in zip(
        panels,
        (real, shipped, short),
        (
            "phantom slices (training data)",
            "samples of the shipped weights",
            f"samples after this run's {steps} steps from scratch",
        ),
        strict=False,
    ):
        panel.imshow(image_grid(torch.from_numpy(images)[:, None], columns=6, scale=3))
        panel.set_title(title)
        panel.set_axis_off()
    panels[3].plot(*losses, color="0.75", linewidth=0.8)
    window = min(15, len(losses[1]))
    smooth = np.convolve(losses[1], np.ones(window) / window, mode="valid")
    panels[3].plot(losses[0][window // 2 : window // 2 + len(smooth)], smooth, color="tab:blue")
    panels[3].set_yscale("log")
    panels[3].set_xlabel("step")
    panels[3].set_ylabel("training loss")
    figure.suptitle("DCT-MoE on the embedded cardiac phantom - synthetic images, research use only")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def main(epochs: int = 20, samples: int = 36) -> None:
    """Run the demonstration.

    Args:
        epochs: length of the training from scratch, 100 steps each.
        samples: images per grid.
    """
    start = time.monotonic()
    output = ROOT / "output" / "demo"
    shutil.rmtree(output, ignore_errors=True)
    run_bundle(f"{CONFIGS}/inference.json", num_samples=samples, output_dir=output / "shipped")
    run_bundle(
        f"{CONFIGS}/train.json",
        max_epochs=epochs,
        val_interval=epochs,
        num_val_samples=64,
        output_dir=output / "training",
        ckpt_dir=output / "models",
    )
    run_bundle(
        f"{CONFIGS}/inference.json", num_samples=samples, ckpt_dir=output / "models", output_dir=output / "trained"
    )
    losses = read_losses(output / "training")
    picture = output / "demo.png"
    shipped, short = read_samples(output / "shipped", samples), read_samples(output / "trained", samples)
    draw(read_real(output / "training", samples), shipped, short, losses, epochs * 100, picture)
    minutes = (time.monotonic() - start) / 60
    print(f"""
Done in {minutes:.1f} minutes.
  picture:      {picture.relative_to(ROOT)}
  model:        {(output / "models" / "model.pt").relative_to(ROOT)}
  TensorBoard:  .venv/bin/tensorboard --logdir {(output / "training" / "tensorboard").relative_to(ROOT)}
Next, train on your own data, for instance the ACDC archive:
  .venv/bin/python -m monai.bundle run --config_file {CONFIGS}/train.json --dataset acdc --dataset_dir /data/ACDC""")


if __name__ == "__main__":
    fire.Fire(main)
