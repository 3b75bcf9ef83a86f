"""Every config of every bundle is complete, consistent and free of personal paths."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from monai.utils import optional_import

sys.path.insert(0, str(Path(__file__).parent))
from bundles import BUNDLES, ROOT, all_overlays, base, complete, configs, keys, overlays, read
from common import __version__

REQUIRED = [
    "configs/train.json",
    "configs/multi_gpu_train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/multi_gpu_inference.json",
    "configs/metadata.json",
    "configs/logging.conf",
    "docs/README.md",
    "LICENSE",
]
CONTRACT = [
    "imports",
    "bundle_root",
    "dataset",
    "dataset_dir",
    "output_dir",
    "ckpt_dir",
    "device",
    "amp",
    "seed",
    "resume",
    "max_epochs",
    "epoch_length",
    "batch_size",
    "num_workers",
    "learning_rate",
    "val_interval",
]


def targets(content: Any) -> set[str]:
    """All ``_target_`` strings of a config."""
    if isinstance(content, dict):
        own = {content["_target_"]} if "_target_" in content else set()
        return own.union(*(targets(value) for value in content.values()))
    return set().union(*(targets(value) for value in content)) if isinstance(content, list) else set()


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("file", REQUIRED)
def test_required_files_exist(bundle: str, file: str) -> None:
    assert (ROOT / "bundles" / bundle / file).is_file()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_contract_keys_stand_first_and_in_order(bundle: str) -> None:
    found = [key for key in json.loads((configs(bundle) / "train.json").read_text()) if key in CONTRACT]
    assert found == CONTRACT


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_target_resolves(bundle: str) -> None:
    """Own classes by their full path, MONAI's by their name, others by theirs."""
    for path in configs(bundle).glob("*.json"):
        parser = ConfigParser()
        for target in targets(json.loads(path.read_text(encoding="utf-8"))):
            if "." in target:
                module, name = target.rsplit(".", 1)
                assert optional_import(module, name=name)[1], f"{path.name}: {target}"
            else:
                assert parser.locator.get_component_module_name(target), f"{path.name}: {target}"


def references(content: Any) -> set[str]:
    """All ids that strings of a config refer to with ``@`` or ``%``."""
    if isinstance(content, dict):
        return set().union(*(references(value) for value in content.values()))
    if isinstance(content, list):
        return set().union(*(references(value) for value in content))
    if isinstance(content, str) and content.startswith(("$", "@", "%")):
        return {match.replace("::", "#") for match in re.findall(r"[@%]([A-Za-z_][\w#:]*)", content)}
    return set()


@pytest.mark.parametrize(
    ("bundle", "names"),
    [(b, (n,)) for b in BUNDLES for n in complete(b)] + [(b, (*base(b, o), o)) for b, o in all_overlays()],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_every_reference_exists(bundle: str, names: tuple[str, ...]) -> None:
    parser = read(bundle, *names)
    for reference in references(parser.get()):
        assert reference in parser, f"{'+'.join(names)} refers to @{reference}"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_overlays_override_what_is_there(bundle: str) -> None:
    """A new top-level key in an overlay would be a typo, unless another line of the overlay uses it."""
    known = set().union(*(keys(bundle, name) for name in complete(bundle)))
    for overlay in overlays(bundle):
        content = json.loads((configs(bundle) / f"{overlay}.json").read_text(encoding="utf-8"))
        below = set().union(*(keys(bundle, name) for name in base(bundle, overlay)))
        new = keys(bundle, overlay) - known - below - {"_desc_", "finalize"}
        used = {reference.split("#")[0] for reference in references(content)}
        assert new <= used, f"{overlay}: {new - used}"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_expressions_hold_no_programs(bundle: str) -> None:
    """Logic belongs into tested code: an expression is short and makes at most two calls."""
    for path in configs(bundle).glob("*.json"):
        for expression in re.findall(r'"\$(?!import)([^"]*)"', path.read_text(encoding="utf-8")):
            assert len(expression) <= 110, f"{path.name}: {expression}"
            assert expression.count("(") <= 4, f"{path.name}: {expression}"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_no_personal_paths(bundle: str) -> None:
    for path in (ROOT / "bundles" / bundle).rglob("*"):
        if path.suffix in {".json", ".md", ".conf", ".yml"} and "output" not in path.parts:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r'["\s(]/(home|root|work|Users|mnt|tmp)/', text), path


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_is_complete_and_of_this_library(bundle: str) -> None:
    metadata = json.loads((configs(bundle) / "metadata.json").read_text(encoding="utf-8"))
    needed = [
        "version",
        "changelog",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "supported_apps",
        "name",
        "task",
        "description",
        "authors",
        "copyright",
        "data_source",
        "intended_use",
        "references",
        "network_data_format",
    ]
    assert not [key for key in needed if key not in metadata]
    assert metadata["version"] in metadata["changelog"]
    assert metadata["library_version"] == __version__
    assert next(iter(metadata["network_data_format"]["inputs"])) == "image"
    assert next(iter(metadata["network_data_format"]["outputs"])) == "pred"
    fields = [
        "type",
        "format",
        "modality",
        "num_channels",
        "spatial_shape",
        "dtype",
        "value_range",
        "is_patch_data",
        "channel_def",
    ]
    for side in ("inputs", "outputs"):
        for name, entry in metadata["network_data_format"][side].items():
            assert not [field for field in fields if field not in entry], name
            assert all(key.isdigit() for key in entry["channel_def"]), "MONAI Label converts these to int"
