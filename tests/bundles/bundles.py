"""What the tests over all bundles need to know of each."""

import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parent.parent.name for path in ROOT.glob("bundles/*/configs/metadata.json"))
COMPLETE = {"train", "inference"}  # configs that stand alone; all others are overlays on one of these

# overrides that make a bundle train in seconds, on any folder of small grey pictures
TINY: dict[str, dict[str, Any]] = {
    "dct_moe": {
        "dataset": "image_folder",
        "image_size": [16, 16],
        "spacing_mm": "$None",
        "network_size": "tiny",
        "max_epochs": 1,
        "epoch_length": 2,
        "batch_size": 4,
        "num_val_samples": 6,
        "val_batch_size": 4,
        "val_interval": 1,
        "num_steps": 3,
    },
}


def configs(bundle: str) -> Path:
    return ROOT / "bundles" / bundle / "configs"


def overlays(bundle: str) -> list[str]:
    """Names of all configs that are meant to be laid over another."""
    names = {path.stem for path in configs(bundle).glob("*.json")} - COMPLETE - {"metadata", "prompts"}
    return sorted(name for name in names if not name.startswith("train_"))


def base(overlay: str) -> str:
    """The complete config that an overlay is meant for."""
    return "inference" if overlay.endswith("inference") else "train"


def all_overlays() -> list[tuple[str, str]]:
    return [(bundle, overlay) for bundle in BUNDLES for overlay in overlays(bundle)]


def read(bundle: str, *names: str) -> ConfigParser:
    """Config files merged in this order, nothing resolved."""
    parser = ConfigParser()
    parser.read_config([str(configs(bundle) / f"{name}.json") for name in names])
    return parser


def keys(bundle: str, name: str) -> set[str]:
    """Top-level keys of a config, as one sets them on the command line."""
    content = json.loads((configs(bundle) / f"{name}.json").read_text(encoding="utf-8"))
    return {key.lstrip("+").split("#")[0] for key in content}


def tiny(bundle: str, data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """Overrides of a training of seconds that writes below ``folder`` only."""
    paths = {"dataset_dir": str(data), "output_dir": str(folder / "output"), "ckpt_dir": str(folder / "models")}
    return {**TINY[bundle], **paths, "device": "cpu", "amp": False, **more}


def tiny_inference(bundle: str, data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """The same for inference with the weights of that training."""
    options = {**tiny(bundle, data, folder), "num_samples": 3, "batch_size": 2}
    options["output_dir"] = str(folder / "inference")
    del options["dataset"]  # in training the name of a data set, in inference the data set itself
    return {key: value for key, value in options.items() if key in keys(bundle, "inference")} | more
