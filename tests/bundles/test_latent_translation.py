"""What the bundle that draws latents reads, builds and writes, from MR files to CT files."""

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

sys.path.insert(0, str(Path(__file__).parent))
from bundles import Options, Trained, complete, configs, keys, read, tiny, tiny_inference, trainings
from common.data.cases import find_cases

PATIENT = "1BB005"  # of the training section, on an odd grid
FOLDERS = {"_desc_", "bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "cache_dir"}


@pytest.fixture
def trained(registered_heads: Path, training_of: Callable[[str], Path], tmp_path: Path) -> Trained:
    """What a training has left, copied for one test."""
    return Trained("med_dit", registered_heads, shutil.copytree(training_of("med_dit"), tmp_path / "trained"))


def infer(trained: Trained, *overlays: str, **more: Any) -> list[Path]:
    options = tiny_inference(*trained, **more)
    run(config_file=[str(configs("med_dit") / f"{name}.json") for name in ("inference", *overlays)], **options)
    return sorted(Path(options["output_dir"]).glob("*.nii.gz"))


def voxels(path: Path) -> np.ndarray:
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj)


# Configs


def plain_values(*names: str) -> dict[str, Any]:
    """Top-level numbers, words and lists of merged configs; folders left out."""
    content = read("med_dit", *names).get()
    return {
        key: value
        for key, value in content.items()
        if key not in FOLDERS and not isinstance(value, dict) and not {"$", "@"} & set(str(value))
    }


RUN_ONLY = {"batch_size", "num_workers", "num_samples", "val_batch_size", "max_epochs", "learning_rate", "betas"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["train"], ["inference"]),
        (["train"], ["train_autoencoder"]),
        (["train"], ["pretrain_embedder"]),
        (["train"], ["pix2pix"]),
        (["train", "global"], ["inference", "global"]),
        (["train", "dit_sb2"], ["inference", "dit_sb2"]),
        (["train", "paper_synthrad_brain"], ["inference", "paper_synthrad_inference"]),
        (["train", "paper_synthrad_pelvis"], ["inference", "paper_synthrad_inference"]),
        (["train", "paper_synthrad_brain"], ["pretrain_embedder", "paper_synthrad_brain"]),
    ],
    ids=lambda names: "+".join(names),
)
def test_stages_agree_in_what_they_share(theirs: list[str], ours: list[str]) -> None:
    """Data, split, windows, sizes, network and schedule, or a later stage would refuse the weights of a former one."""
    first, second = plain_values(*theirs), plain_values(*ours)
    own = {"max_epochs", "val_interval", "weight_decay", "warmup_steps", "final_lr_factor", "ema_decay", "ema_every"}
    shared = first.keys() & second.keys() - RUN_ONLY - own - {"decay_steps", "imports", "dataset", "initialize", "run"}
    assert {"image_size", "mr_lower", "hu_min", "hu_max", "foreground"} <= shared
    assert {key: second[key] for key in shared} == {key: first[key] for key in shared}


def test_baselines_train_on_the_same_patients_as_the_bundle() -> None:
    for name in ("train_autoencoder", "pretrain_embedder", "pix2pix"):
        ours, theirs = read("med_dit", name), read("med_dit", "train")
        assert ours["train"].keys() >= {"dataset", "preprocessing"}
        assert ours["train"]["preprocessing"] == theirs["train"]["preprocessing"], name
        assert ours["dataset"] == theirs["dataset"]
        key = "dataset" if name == "train_autoencoder" else "slices"
        assert ours["train"][key]["data"] == theirs["train"]["slices"]["data"], name


COUNTS = {  # trainable weights of the diffusion transformer
    ("paper_synthrad_brain",): 102_255_136,
    ("paper_synthrad_pelvis",): 102_255_136,
    ("paper_synthrad_brain", "paper_dit_sb2"): 34_028_576,
}


@pytest.mark.parametrize("overlays", COUNTS, ids="+".join)
@pytest.mark.parametrize("conditioning", ["global", "spatial"])
def test_paper_overlays_build_the_papers_network(overlays: tuple[str, ...], conditioning: str) -> None:
    """Of the published autoencoder only the factor 8 and the 4 channels count here."""
    parser = read("med_dit", "train", *overlays)
    parser["autoencoder_def"] = {"_target_": "types.SimpleNamespace", "factor": 8, "latent_channels": 4}
    parser["conditioning"] = conditioning
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def#backbone")
    assert network.input_size == (28, 28)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == COUNTS[overlays] + (2 * 2 * 4 * 512 if conditioning == "spatial" else 0)


# Data


def ras(path: Path) -> np.ndarray:
    image: Any = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asarray(image.dataobj, dtype=np.float64)


def in_square(volume: np.ndarray, side: int) -> np.ndarray:
    """Padded with -1 around the center."""
    padding = [((side - length) // 2, side - length - (side - length) // 2) for length in volume.shape[:2]]
    return np.pad(volume, [*padding, (0, 0)], constant_values=-1.0)


def test_training_sees_registered_pairs_prepared_by_the_stated_rules(trained: Trained) -> None:
    """On a grid where the square of a patient needs no resampling; the rules in words:

    MR from its 0.5th to its 99.5th percentile in the mask, CT from -1024 to 2000 HU, -1 outside of the mask, every
    slice of which the mask covers 5 % after padding to a square.
    """
    home = trained.data / "Task1" / "brain" / "1BA002"
    mr, ct, mask = (ras(home / f"{name}.nii.gz") for name in ("mr", "ct", "mask"))
    inside, side = mask > 0, max(mr.shape[:2])
    low, high = np.percentile(mr[inside], [0.5, 99.5])
    source = np.where(inside, 2 * np.clip((mr - low) / (high - low), 0, 1) - 1, -1)
    target = np.where(inside, 2 * (np.clip(ct, -1024, 2000) + 1024) / 3024 - 1, -1)
    chosen = np.nonzero(inside.sum(axis=(0, 1)) >= 0.05 * side**2)[0]

    parser = read("med_dit", "train")
    parser.update(tiny(*trained, image_size=[side, side]))
    slices = parser.get_parsed_content("train#slices")
    assert slices.data[0]["case"] == "1BA002"
    for number, index in enumerate(range(chosen[0], chosen[-1] + 1)):
        pair = slices[number]
        for key, volume in (("source", source), ("target", target)):
            np.testing.assert_allclose(pair[key][0], in_square(volume, side)[..., index], atol=2e-3)  # kept as float16


# Inference


def test_mr_becomes_ct_in_hounsfield_units_on_its_own_grid(trained: Trained, tmp_path: Path) -> None:
    """An oblique volume of odd size with a mask: int16, the MR's affine and shape, air outside of the mask."""
    patient = trained.data / "Task1" / "brain" / PATIENT
    turn = np.eye(4)
    turn[:3, :3] = nibabel.eulerangles.euler2mat(0.1, -0.06, 0.15)
    for name, place in (("mr", tmp_path / "volumes"), ("mask", tmp_path / "masks")):
        place.mkdir()
        image: Any = nibabel.load(patient / f"{name}.nii.gz")
        cropped = np.asarray(image.dataobj)[1:, : image.shape[1] // 2 * 2 - 1, 1:]
        nibabel.save(nibabel.Nifti1Image(cropped, turn @ image.affine), place / "p1.nii.gz")
    (file,) = infer(trained, input_dir=str(tmp_path / "volumes"), mask_dir=str(tmp_path / "masks"))
    volume, source = nibabel.load(file), nibabel.load(tmp_path / "volumes" / "p1.nii.gz")
    inside = voxels(tmp_path / "masks" / "p1.nii.gz") > 0
    assert source.shape[1] % 2 == 1
    assert file.name == "p1_ct.nii.gz"
    assert volume.get_data_dtype() == np.int16
    assert volume.shape == source.shape
    np.testing.assert_allclose(volume.affine, source.affine, atol=1e-5)
    ct = voxels(file)
    assert (ct[~inside] == -1024).all()
    assert -1024 <= ct.min() < ct.max() <= 2000
    assert len(np.unique(ct[inside])) > 50
    record = json.loads((trained.folder / "inference" / "p1_ct.json").read_text())
    assert (record["units"], record["source_modality"], record["modality"]) == ("HU", "mr", "ct")
    assert record["source"] == str(tmp_path / "volumes" / "p1.nii.gz")
    assert record["synthetic"] is True
    assert record["standard_deviation"] is False


def test_several_samples_give_their_mean_and_their_standard_deviation(trained: Trained) -> None:
    """The first of two samples is the one that a run with a single sample gives."""
    source = trained.data / "inputs" / "head_a.nii.gz"
    runs = {
        number: infer(trained, input_dir=str(source), num_samples=number, output_dir=str(trained.folder / str(number)))
        for number in (1, 2)
    }
    assert [path.name for path in runs[2]] == ["head_a_ct.nii.gz", "head_a_ct_sd.nii.gz"]
    first, mean, deviation = (voxels(path).astype(float) for path in (*runs[1], *runs[2]))
    assert nibabel.load(runs[2][0]).get_data_dtype() == np.int16
    assert nibabel.load(runs[2][1]).get_data_dtype() == np.float32
    # of two samples a and b the deviation is |a - b| / sqrt 2 and |a - mean| is |a - b| / 2; the volumes are rounded
    np.testing.assert_allclose(deviation / np.sqrt(2), np.abs(first - mean), atol=1.01)
    assert deviation.max() > 20
    assert (deviation[mean == -1024] < 1e-3).mean() > 0.99  # outside of the head
    record = json.loads((trained.folder / "2" / "head_a_ct.json").read_text())
    assert record["standard_deviation"] is True
    assert record["num_samples"] == 2


def test_the_number_of_steps_is_an_option_and_is_recorded(trained: Trained) -> None:
    source, results = trained.data / "inputs" / "head_a.nii.gz", []
    for steps in (2, 5):
        (file,) = infer(trained, input_dir=str(source), num_steps=steps, output_dir=str(trained.folder / str(steps)))
        record = json.loads(Path(str(file).replace(".nii.gz", ".json")).read_text())
        assert record["method"]["num_steps"] == steps
        assert record["method"]["autoencoder"].startswith("scratch:")
        results.append(voxels(file))
    assert (results[0] != results[1]).any()


@pytest.mark.parametrize("share_noise", [True, False])
def test_slices_that_are_alike_become_alike_if_they_share_their_noise(
    trained: Trained, tmp_path: Path, share_noise: bool
) -> None:
    """Three copies of one slice: without shared noise they would flicker."""
    image: Any = nibabel.load(trained.data / "inputs" / "head_a.nii.gz")
    middle = np.asarray(image.dataobj)[:, :, [4, 4, 4]]
    nibabel.save(nibabel.Nifti1Image(middle, image.affine), tmp_path / "slab.nii.gz")
    (file,) = infer(trained, input_dir=str(tmp_path / "slab.nii.gz"), share_noise=share_noise, batch_size=2)
    ct = voxels(file).astype(int)
    difference = max(np.abs(ct[..., index] - ct[..., 0]).max() for index in (1, 2))
    assert difference <= 1 if share_noise else difference > 20


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["global", "dit_sb2"])
def test_an_overlay_of_the_training_fits_inference_too(overlay: str, registered_heads: Path, tmp_path: Path) -> None:
    trained = Trained("med_dit", registered_heads, tmp_path)
    files = [str(configs("med_dit") / f"{name}.json") for name in ("train", overlay)]
    run(config_file=files, **tiny(*trained))
    (file,) = infer(trained, overlay, input_dir=str(registered_heads / "inputs" / "head_a.nii.gz"))
    record = json.loads(Path(str(file).replace(".nii.gz", ".json")).read_text())
    assert record["method"]["conditioning"] == "global"


@pytest.mark.slow
def test_a_volume_of_full_size_comes_back_whole(trained: Trained, tmp_path: Path) -> None:
    """197x231x190 voxels: an ellipsoid whose first and last slices are empty."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (197, 231, 190)), indexing="ij", sparse=True)
    head = (x / 0.7) ** 2 + (y / 0.8) ** 2 + (z / 0.9) ** 2 < 1
    mr = np.where(head, 300 + 100 * np.cos(9 * x) * np.cos(7 * y + 3 * z), 0).astype(np.int16)
    affine = np.array([[-1.0, 0, 0, 98], [0, -1, 0, 115], [0, 0, 1, -60], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(mr, affine), tmp_path / "head.nii.gz")
    (file,) = infer(trained, input_dir=str(tmp_path / "head.nii.gz"), batch_size=16)
    ct = voxels(file)
    assert ct.shape == (197, 231, 190)
    np.testing.assert_array_equal(nibabel.load(file).affine, affine)
    assert (ct[:, :, [0, -1]] == -1024).all()
    assert (ct[head] > -1024).mean() > 0.9


# Evaluation


@pytest.mark.slow
def test_evaluation_scores_what_inference_writes_beside_floors_and_limits(trained: Trained, tmp_path: Path) -> None:
    """Masked MAE of the written CT is computed here again, from the files alone."""
    evaluation = [str(configs("med_dit") / name) for name in ("train.json", "evaluate.json")]
    run(config_file=evaluation, **tiny(*trained))
    metrics = json.loads((trained.folder / "output" / "evaluation" / "metrics.json").read_text())
    scores = metrics["protocols"]["synthrad"]["scores"]
    needed = {"prediction", "mean_target", "source_copy", "pointwise", "reconstruction", "resampled_target"}
    for score in ("mae", "psnr", "ssim"):
        assert all(np.isfinite(scores[score][method]["value"]) for method in needed), score
    mae = {method: scores["mae"][method]["value"] for method in needed}
    assert 0 < mae["resampled_target"] < mae["pointwise"] < mae["mean_target"]
    assert mae["resampled_target"] < mae["reconstruction"]
    assert metrics["n"]["cases"] == 2
    assert metrics["method"]["conditioning"] == "spatial"

    homes = [Path(case["ct"]).parent for case in find_cases("synthrad", trained.data, "test", images={"ct": "ct"})]
    for name in ("mr", "mask"):
        (tmp_path / name).mkdir()
        for home in homes:  # the name of a case seeds its noise
            shutil.copy(home / f"{name}.nii.gz", tmp_path / name / f"{home.name}.nii.gz")
    files = infer(trained, input_dir=str(tmp_path / "mr"), mask_dir=str(tmp_path / "mask"))
    errors = [
        np.abs(voxels(file) - voxels(home / "ct.nii.gz").astype(float)) for file, home in zip(files, homes, strict=True)
    ]
    inside = [voxels(home / "mask.nii.gz") > 0 for home in homes]
    expected = np.mean([error[mask].mean() for error, mask in zip(errors, inside, strict=True)])
    assert mae["prediction"] == pytest.approx(expected, abs=0.5)


@pytest.mark.slow
def test_baselines_are_scored_by_the_same_report(registered_heads: Path, tmp_path: Path) -> None:
    """Pix2pix, and CycleGAN with both of its losses, beside the same floors; their weights fit inference."""
    floors = []
    for names, size, more in (
        (["pix2pix"], {"num_downs": 4, "channels": 8}, {}),
        (["pix2pix", "cyclegan"], {"num_blocks": 1, "channels": 8}, {}),
        (["pix2pix", "cyclegan"], {"num_blocks": 1, "channels": 8}, {"gan": "wgan-gp"}),
    ):
        folder = tmp_path / str(len(floors))
        options = tiny("med_dit", registered_heads, folder, config="pix2pix", **size, **more)
        for part in (names, [*names, "evaluate"]):
            run(config_file=[str(configs("med_dit") / f"{name}.json") for name in part], **options)
        metrics = json.loads((folder / "output" / "evaluation" / "metrics.json").read_text())
        assert metrics["method"]["name"] == names[-1]
        mae = metrics["protocols"]["synthrad"]["scores"]["mae"]
        assert np.isfinite(mae["prediction"]["value"])
        assert "reconstruction" not in mae
        floors.append([mae[method]["value"] for method in ("mean_target", "pointwise", "resampled_target")])
        trained = Trained("med_dit", registered_heads, folder)
        volumes = infer(trained, f"{names[-1]}_inference", load_path=str(folder / "models" / "model.pt"), **size)
        assert [nibabel.load(file).get_data_dtype() for file in volumes] == [np.int16] * 3
    assert floors[0] == floors[1] == floors[2]


# With the published parts


@pytest.mark.slow
def test_paper_overlays_train_and_translate_with_pretrained_parts(
    registered_heads: Path, tmp_path: Path, pretrained_parts: Options
) -> None:
    """Both later stages and inference as published and as the public code has it, at tiny size.

    The autoencoder and BiomedCLIP's vision tower are read from local files of their formats.
    """
    parts: Options = {"autoencoder_kind": "sd-vae-ft-mse", "image_encoder": "biomedclip", **pretrained_parts}
    shape: Options = {"gate_axis": "token", "embedder_reduction": 6}  # of 6 tokens along each axis
    embedder = tmp_path / "embedder" / "models" / "model.pt"
    for config, folder, overlays in (
        ("pretrain_embedder", tmp_path / "embedder", ["paper_synthrad_brain", "paper_embedder", "public_code"]),
        ("train", tmp_path, ["paper_synthrad_brain", "public_code"]),
        ("inference", tmp_path, ["paper_synthrad_inference", "public_code"]),
    ):
        more = {key: value for key, value in {**parts, **shape}.items() if key in keys("med_dit", config)}
        if config == "train":
            more["embedder_path"] = str(embedder)
        options = tiny("med_dit", registered_heads, folder, config=config, image_size=[48, 96], **more)
        if config == "inference":
            options = tiny_inference("med_dit", registered_heads, folder, image_size=[48, 96], **more)
        run(
            config_file=[str(configs("med_dit") / f"{name}.json") for name in (config, *overlays)],
            **options,
        )
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert bytes(state["settings.autoencoder"].tolist()).startswith(b"sd-vae-ft-mse:")
    assert bytes(state["settings.image_encoder"].tolist()).startswith(b"biomedclip-raw:")
    assert len(list((tmp_path / "inference").glob("*_ct.nii.gz"))) == 3


def test_every_training_refuses_mistyped_options_first() -> None:
    for config in complete("med_dit"):
        assert read("med_dit", config)["run"][0]["_target_"] == "common.engines.preflight.begin_run"
    assert trainings("med_dit") == ["train_autoencoder", "pretrain_embedder", "train", "pix2pix"]
