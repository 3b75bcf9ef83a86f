"""Bad input of the bundle that draws latents, under the rules of test_bad_input: pairs, stages that do not fit."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import run

sys.path.insert(0, str(Path(__file__).parent))
from refusal import refused
from spoiling import blank, change, like_ct, shifted

from bundles import Options, Trained, configs, read, stage_weights, tiny, tiny_inference

PATIENT = "1BB005"  # of the training section


@pytest.fixture
def trained(registered_heads: Path, training_of: Callable[[str], Path], tmp_path: Path) -> Trained:
    """What a training has left, and a copy of the data and of the former stages' weights that may be spoiled."""
    data = shutil.copytree(registered_heads, tmp_path / "data")
    return Trained("med_dit", data, shutil.copytree(training_of("med_dit"), tmp_path / "trained"))


# Pairs


def hotter(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """CT of which a voxel in the middle of the head is metal of 9000 HU."""
    voxels = np.array(image.dataobj, dtype=np.int16)
    voxels[tuple(length // 2 for length in voxels.shape)] = 9000
    return nibabel.Nifti1Image(voxels, image.affine)


def too_low(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """CT with the padding value of some scanners, in the head."""
    voxels = np.array(image.dataobj, dtype=np.int16)
    voxels[tuple(length // 2 for length in voxels.shape)] = -3024
    return nibabel.Nifti1Image(voxels, image.affine)


GRID = ["do not lie on one grid", "Register them if needed and resample one onto the other"]
SPOILED = [
    ("ct", shifted, [*GRID, "mr.nii.gz (source)", "ct.nii.gz (target)", "origins 7 mm apart"]),
    ("mask", shifted, [*GRID, "mask.nii.gz"]),
    ("mask", blank, ["mask.nii.gz: the mask is empty"]),
    ("ct", hotter, ["ct.nii.gz", "9000", "-1500", "4000"]),
    ("ct", too_low, ["ct.nii.gz", "-3024", "-1500", "4000"]),
    ("mr", like_ct, ["mr.nii.gz (source) looks like CT in Hounsfield units", "the modality of 'source' is 'mr'"]),
]


@pytest.mark.parametrize(("name", "edit", "expected"), SPOILED, ids=lambda value: getattr(value, "__name__", None))
def test_one_bad_pair_among_good_ones(trained: Trained, name: str, edit: Callable, expected: list[str]) -> None:
    change(trained.data / "Task1" / "brain" / PATIENT / f"{name}.nii.gz", edit)
    refused(trained, ["train"], tiny(*trained), PATIENT, *expected)


def test_missing_mask(trained: Trained) -> None:
    (trained.data / "Task1" / "brain" / PATIENT / "mask.nii.gz").unlink()
    refused(trained, ["train"], tiny(*trained), f"1 of 9 cases have no mask ({PATIENT})", "Add the files")


def test_one_bad_volume_among_those_to_translate(trained: Trained) -> None:
    change(trained.data / "inputs" / "head_b.nii.gz", like_ct)
    expected = ["head_b.nii.gz (image) looks like CT in Hounsfield units", "'mr'"]
    refused(trained, ["inference"], tiny_inference(*trained), *expected)


def test_an_empty_mask_of_a_volume_to_translate(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.data / "inputs", tmp_path / "masks")
    change(tmp_path / "masks" / "head_c.nii.gz", blank)
    options = tiny_inference(*trained, mask_dir=str(tmp_path / "masks"))
    refused(trained, ["inference"], options, str(tmp_path / "masks" / "head_c.nii.gz"), "the mask is empty")


# Sizes


@pytest.mark.parametrize("names", [["pretrain_embedder"], ["train"], ["inference"]], ids="+".join)
def test_an_image_size_that_gives_no_whole_tokens(trained: Trained, names: list[str]) -> None:
    """Factor 2 and patches of 2x2."""
    options = tiny_inference(*trained) if names == ["inference"] else tiny(*trained, config=names[0])
    refused(trained, names, options | {"image_size": [34, 48]}, "image_size=[34, 48] must be", "multiples of 4:")


def test_an_image_size_that_the_published_autoencoder_does_not_take(
    trained: Trained, pretrained_parts: Options
) -> None:
    """Factor 8 and patches of 2x2."""
    options = tiny(*trained, config="pretrain_embedder") | {
        "autoencoder_kind": "sd-vae-ft-mse",
        "autoencoder_path": pretrained_parts["autoencoder_path"],
        "image_size": [48, 40],
    }
    refused(trained, ["pretrain_embedder"], options, "image_size=[48, 40] must be", "multiples of 16:")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"conditioning": "local"}, ["conditioning='local' must be 'spatial' or 'global'"]),
        ({"image_encoder": "clip"}, ["image_encoder='clip' is unknown", "biomedclip, small_cnn, none"]),
        ({"autoencoder_kind": "vqgan"}, ["kind='vqgan' is unknown", "scratch, sd-vae-ft-mse"]),
        ({"gate_axis": "row"}, ["gate_axis='row'"]),
        ({"sampler": "dpm"}, ["sampler='dpm' is unknown; choose one of ddim, ddpm"]),
        ({"eta": 2.0}, ["eta=2.0 must lie in [0, 1]"]),
        ({"num_heads": 5}, ["5"]),
        ({"fit": "stretch"}, ["rule='stretch' is unknown. Known are crop, resize"]),
        ({"hu_min": 2000}, ["2000"]),
    ],
    ids=str,
)
def test_impossible_settings(trained: Trained, options: Options, expected: list[str]) -> None:
    """In inference, which builds the network of the training and is quick."""
    refused(trained, ["inference"], tiny_inference(*trained) | options, *expected)


def test_more_steps_than_the_training_had(trained: Trained) -> None:
    refused(trained, ["inference"], tiny_inference(*trained, num_steps=1001), "1001", "1000")


# Stages that are missing, or are not those of this run

NEEDS_AUTOENCODER = [["pretrain_embedder"], ["train"], ["train", "evaluate"], ["inference"]]


def options_of(trained: Trained, names: list[str]) -> Options:
    return tiny_inference(*trained) if names == ["inference"] else tiny(*trained, config=names[0])


@pytest.mark.parametrize("names", NEEDS_AUTOENCODER, ids="+".join)
def test_missing_autoencoder(trained: Trained, names: list[str]) -> None:
    """Told before any image is decoded, which takes long on real data."""
    path, cache = stage_weights("train_autoencoder", trained.data), trained.folder / "new cache"
    path.unlink()
    options = options_of(trained, names) | ({} if names == ["inference"] else {"cache_dir": str(cache)})
    expected = [f"There is no trained autoencoder at {path}", "train_autoencoder.json", "sd-vae-ft-mse"]
    refused(trained, names, options, *expected)
    assert not cache.exists()


def test_missing_embedder(trained: Trained) -> None:
    path, cache = stage_weights("pretrain_embedder", trained.data), trained.folder / "new cache"
    path.unlink()
    expected = [f"There is no pretrained Vision Embedder at {path}", "pretrain_embedder.json", "embedder_path"]
    refused(trained, ["train"], tiny(*trained, cache_dir=str(cache)), *expected)
    assert not cache.exists()


def test_files_of_other_stages_given_for_those_needed(trained: Trained) -> None:
    autoencoder, embedder = (stage_weights(name, trained.data) for name in ("train_autoencoder", "pretrain_embedder"))
    expected = [f"{embedder} holds no autoencoder of train_autoencoder.json"]
    refused(trained, ["train"], tiny(*trained, autoencoder_path=str(embedder)), *expected)
    expected = [
        f"{autoencoder} does not fit this network",
        "VisionEmbedder: the checkpoint was made for another network",
    ]
    refused(trained, ["train"], tiny(*trained, embedder_path=str(autoencoder)), *expected)


def change_weights(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


@pytest.mark.parametrize("names", NEEDS_AUTOENCODER, ids="+".join)
def test_autoencoder_of_another_window(trained: Trained, names: list[str]) -> None:
    options = options_of(trained, names) | {"hu_max": 3000}
    expected = ["was trained on CT between -1024 and 2000 HU, asked for is -1024 and 3000 HU", "hu_max"]
    refused(trained, names, options, str(stage_weights("train_autoencoder", trained.data)), *expected)


def test_autoencoder_whose_training_did_not_end(trained: Trained) -> None:
    path = stage_weights("train_autoencoder", trained.data)
    change_weights(path, lambda state: state["latent_scale"].fill_(torch.nan))
    refused(trained, ["train"], tiny(*trained), str(path), "the scale of the latents is not set")


def retrained(state: dict[str, Any]) -> None:
    """As if the autoencoder came from another training."""
    name = next(name for name in state if name.startswith("network.") and name.endswith("weight"))
    state[name] += 0.01


@pytest.mark.parametrize(
    ("names", "owner"),
    [(["train"], "pretrain_embedder"), (["inference"], "models/model.pt")],
    ids=["train", "inference"],
)
def test_autoencoder_of_another_training(trained: Trained, names: list[str], owner: str) -> None:
    """The embedder, and later the whole model, belong to the latents of one autoencoder."""
    change_weights(stage_weights("train_autoencoder", trained.data), retrained)
    expected = ["does not fit this", "autoencoder: checkpoint scratch:", ", this network scratch:", owner]
    refused(trained, names, options_of(trained, names), *expected)


def test_resuming_with_another_embedder(trained: Trained) -> None:
    """The checkpoint's embedder comes back with the rest, so a stage run again in between changes nothing."""
    change_weights(
        stage_weights("pretrain_embedder", trained.data),
        lambda state: state.update({name: value + 0.5 for name, value in state.items() if value.dtype == torch.float}),
    )
    options = tiny(*trained, config="train", resume=True, max_epochs=1)
    before = torch.load(trained.folder / "models" / "model.pt", weights_only=True)
    run(config_file=str(configs("med_dit") / "train.json"), **options)
    after = torch.load(trained.folder / "models" / "model.pt", weights_only=True)
    for name, value in before.items():
        assert torch.equal(after[name], value), name


# Image encoders


def test_inference_without_the_image_encoder_of_the_training(trained: Trained) -> None:
    expected = ["image_encoder: checkpoint small_cnn, this network none", str(trained.folder / "models/model.pt")]
    refused(trained, ["inference"], tiny_inference(*trained, image_encoder="none"), *expected)


def test_inference_with_another_image_encoder_than_in_training(trained: Trained, pretrained_parts: Options) -> None:
    options = tiny_inference(
        *trained, image_encoder="biomedclip", biomedclip_folder=pretrained_parts["biomedclip_folder"]
    )
    refused(trained, ["inference"], options, "image_encoder: checkpoint small_cnn, this network biomedclip:")


@pytest.mark.parametrize(
    ("part", "options", "expected"),
    [
        ("autoencoder_def", {"autoencoder_kind": "sd-vae-ft-mse", "autoencoder_path": "$None"}, "sd-vae-ft-mse"),
        ("vision", {"image_encoder": "biomedclip"}, "BiomedCLIP"),
    ],
)
@pytest.mark.parametrize("names", [["train"], ["inference"]], ids="+".join)
def test_missing_pretrained_weights_are_told_within_a_second_and_offline(
    trained: Trained, network: list[Any], names: list[str], part: str, options: Options, expected: str
) -> None:
    """The ways out are told too; the time is that of the part which looks for them, imports done."""
    options = options_of(trained, names) | options
    refused(trained, names, options, "Pretrained weights are missing", expected, "hf download", "Or do without them")
    assert network == []
    parser = read("med_dit", *names)
    parser.update(options)
    start = time.monotonic()
    with pytest.raises(RuntimeError):
        parser.get_parsed_content(part)
    assert time.monotonic() - start < 1
