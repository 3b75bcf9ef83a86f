"""What the tests over all bundles need to know of each."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from monai.bundle import ConfigParser

from common.data.cases import find_cases
from common.data.splits import split_of

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parent.parent.name for path in ROOT.glob("bundles/*/configs/metadata.json"))
NO_CONFIG = {"metadata", "prompts", "stages", "strategies"}

Options = dict[str, Any]


class Trained(NamedTuple):
    """A bundle, the data it was trained on, and the folder with all that the training has written."""

    bundle: str
    data: Path
    folder: Path


@dataclass(frozen=True)
class Facts:
    """One bundle.

    kind: what it does with its data.
    data: name of the fixture with a data set to train on.
    volume_of: a copy of the data and a section -> a NIfTI file that belongs to it, there already or to be added.
    tiny: options that make it train on these data in seconds.
    embedded: the same for the embedded phantom, on which it trains by default.
    inference: the data -> options of an inference on (or after training on) them.
    results: images that this inference writes.
    copies: further files that it writes, which hold what it was given.
    evaluation: further options of evaluate.json.
    evaluations: folders below ``evaluation`` that one evaluation writes, one for each of its protocols.
    integers: whether their voxels are int16; otherwise float32.
    picture: what a validation draws; ``{}`` is the epoch.
    number_to_validate: option that says how many samples or slices a validation looks at; None: at all there are.
    plain: options that take out the terms which the halves of a batch do not share.
    idle: parameters of the tiny network that the loss does not depend on, so that their steps are rounding errors which
        Adam has brought to full size: a bias of one channel in front of a norm of that channel alone.
    others: configs that stand alone beside train and inference, with the options of their own that make them tiny.
    stages: those of them that come before train, in this order: option of later configs -> the config that trains the
        weights of which the option is the path.
    bases: the configs, a complete one first, that an overlay is laid over, unless these are train or inference alone.
    overlays: further options that an overlay needs to run on the data.
    elsewhere: overlays that only run on other data, in tests of their own.
    """

    kind: Literal["synthesis", "translation", "painting", "segmentation"]
    data: str
    volume_of: Callable[[Path, str], Path]
    tiny: Options
    embedded: Options
    inference: Callable[[Path], Options]
    results: tuple[str, ...]
    picture: str
    number_to_validate: str | None
    copies: tuple[str, ...] = ()
    evaluation: Options = field(default_factory=dict)
    evaluations: tuple[str, ...] = (".",)
    integers: bool = False
    plain: Options = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    others: Mapping[str, Options] = field(default_factory=dict)
    stages: Mapping[str, str] = field(default_factory=dict)
    bases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overlays: Mapping[str, Options] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()


SHORT = {"max_epochs": 1, "epoch_length": 2, "batch_size": 4, "val_batch_size": 4, "val_interval": 1}
SMALL_TRANSLATOR = {
    **SHORT,
    "image_size": [32, 48],  # a head is narrower than long
    "pixel_mm": "$None",
    "slices_per_case": 4,
    "channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [16],
    "window_size": 8,
    "swin_channels": 32,
    "balance_max_tokens": 100,
    "text_source": "table",
    "num_val_slices": 6,
}
SMALL_LATENT_TRANSLATOR = {
    **SHORT,
    "image_size": [32, 48],
    "hidden_size": 32,
    "depth": 1,
    "num_heads": 2,
    "num_steps": 3,
    "num_val_slices": 6,
}
SMALL_GAN = {"channels": 8, "num_downs": 4, "discriminator_channels": 8}
MR_TO_CT: Options = {  # on the data of the fixture `head_scans`, of which one patient is held out
    "dataset": "synthrad",
    "source": "mr",
    "target": "ct",
    "images": {"source": "@source", "target": "@target", "mask": "mask"},
    "extra_images": {},
    "held_out": ["1BA002"],
    "foreground": "head",
    "fit": "resize",
}


def volume_of_patient(data: Path, section: str) -> Path:
    """MR of the first patient of a section."""
    return Path(find_cases("synthrad", data, section, images={"image": "mr"})[0]["image"])


SMALL_HEARTS = {**SHORT, "image_size": [32, 32], "pixel_mm": "$None", "num_val_slices": 6}
DENOISER = {
    "denoiser_channels": [8, 8],
    "denoiser_res_blocks": 1,
    "attention_levels": [False, True],
    "num_head_channels": [0, 8],
    "norm_groups": 4,
    "spade_channels": 4,
    "num_train_steps": 5,  # which end in noise
    "beta_end": 0.95,
}
PAINTER = {
    **SMALL_HEARTS,
    "channels": [8, 8],
    "num_res_layers": 1,
    "num_embeddings": 16,
    "embedding_dim": 3,
    "discriminator_channels": 4,
    "discriminator_layers": 2,
    "edge_channels": [4, 4, 4],
    "fusion_channels": 4,
    "disc_start_share": 0.0,
    "disc_warmup": 0,
    **DENOISER,
    "num_val_samples": 6,
}
PROTOCOLS = {"segmenter_path": "$None", "encoder_path": "@autoencoder_path", "starts": [0, 2], "num_reconstructions": 6}
SEGMENTER = {
    **SMALL_HEARTS,
    "features": [4, 4, 4, 4, 4, 4],
    "embed_dim": 12,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 4,
    "min_label_pixels": 1,
}
U_NET_BLOCKS = ["conv_0", *(f"{part}_{level}.convs" for part in ("down", "upcat") for level in (1, 2, 3, 4))]
EMBEDDED_HEARTS = {"phantom_cases": 10, "phantom_size": 48, "min_label_pixels": 1}


def volume_of_heart(data: Path, section: str) -> Path:
    """The first frame of the first patient of a section."""
    return Path(find_cases("acdc", data, section, frames="labelled")[0]["image"])


NEW_FILES = [f"new_{number}.nii.gz" for number in range(40)]

FACTS = {
    "cardiac_segmentation": Facts(
        kind="segmentation",
        data="hearts",
        volume_of=volume_of_heart,
        tiny={**SEGMENTER, "dataset": "acdc"},
        embedded=SEGMENTER | EMBEDDED_HEARTS,
        inference=lambda data: {"input_dir": str(data / "inputs" / "images"), "batch_size": 3},
        results=("heart_a_label.nii.gz", "heart_b_label.nii.gz", "heart_c_label.nii.gz"),
        integers=True,
        picture="segmentations_{:06d}.png",
        number_to_validate=None,
        idle=tuple(f"network.{block}.conv_{number}.conv.bias" for block in U_NET_BLOCKS for number in (0, 1)),
        others={"pretrain": {}},
        bases={"paper_swin_unet": ("train", "paper_acdc", "swin_unet")},
    ),
    "dct_moe": Facts(
        kind="synthesis",
        data="picture_folder",
        volume_of=lambda data, section: (
            data / next(name for name in NEW_FILES if split_of("image_folder", name) == section)
        ),
        tiny={
            **SHORT,
            "dataset": "image_folder",
            "image_size": [16, 16],
            "spacing_mm": "$None",
            "network_size": "tiny",
            "num_val_samples": 6,
            "num_steps": 3,
        },
        embedded={
            **SHORT,
            "phantom_cases": 20,
            "image_size": [16, 16],
            "spacing_mm": "$None",
            "network_size": "tiny",
            "num_val_samples": 6,
            "num_samples": 2,
            "num_steps": 3,
        },
        inference=lambda data: {"num_samples": 3, "batch_size": 2},
        results=tuple(f"sample_{number:06d}.nii.gz" for number in range(3)),
        picture="samples_{:06d}.png",
        number_to_validate="num_val_samples",
        plain={"balance_coefficient": 0, "router_noise": 0},
    ),
    "dfbk": Facts(
        kind="translation",
        data="brain_scans",
        volume_of=lambda data, section: next(
            file for file in sorted(data.glob("BraTS-*/*-t2f.nii.gz")) if split_of("brats", file.name[:15]) == section
        ),
        tiny={**SMALL_TRANSLATOR, "dataset": "brats", "allow_text_table": True, "flip_axes": [0]},
        embedded={**SMALL_TRANSLATOR, "phantom_cases": 12, "phantom_size": 48},
        inference=lambda data: {"input_dir": str(data / "inputs"), "batch_size": 3},
        results=("head_a_t2f.nii.gz", "head_b_t2f.nii.gz", "head_c_t2f.nii.gz"),
        picture="translations_{:06d}.png",
        number_to_validate="num_val_slices",
        idle=tuple(f"backbone.decoder.1.stages.1.residual.{name}.bias" for name in ("conv2", "shortcut")),
        overlays={
            "paper_isles": {"dataset": "brain_phantom_isles", "phantom_cases": 12, "phantom_size": 48},
            "paper_synthrad": {"dataset": "brain_phantom_synthrad", "phantom_cases": 12, "phantom_size": 48},
        },
        elsewhere=frozenset({"paper_isles_inference", "paper_synthrad_inference"}),
    ),
    "fqcdm": Facts(
        kind="painting",
        data="encoded_hearts",
        volume_of=volume_of_heart,
        tiny={**PAINTER, "dataset": "acdc"},
        embedded=PAINTER | EMBEDDED_HEARTS,
        inference=lambda data: {"input_dir": str(data / "inputs" / "labels"), "batch_size": 3, "min_label_pixels": 1},
        results=("heart_a_image.nii.gz", "heart_b_image.nii.gz", "heart_c_image.nii.gz"),
        copies=("heart_a_label.nii.gz", "heart_b_label.nii.gz", "heart_c_label.nii.gz"),
        evaluation=PROTOCOLS,
        evaluations=("synthesis", "reconstruction"),
        picture="samples_{:06d}.png",
        number_to_validate="num_val_samples",
        others={"train_autoencoder": {}},
        stages={"autoencoder_path": "train_autoencoder"},
        bases={
            "train_joint": ("train_autoencoder",),
            "ablation_none": ("train_autoencoder",),
            "ablation_dbd": ("train_autoencoder",),
            "vqvae": ("train_autoencoder",),
            "vqgan": ("train_autoencoder",),
            "evaluate_autoencoder": ("train_autoencoder",),
            "multi_gpu_autoencoder": ("train_autoencoder",),
            "multi_gpu_synthesize": ("train", "synthesize"),
            "ablation_no_fqb": ("train", "evaluate"),
            "paper_ddpm": ("train", "paper_acdc", "ddpm"),
            "paper_mmwhs_ct": ("train", "paper_acdc"),
            "paper_mmwhs_mr": ("train", "paper_acdc"),
        },
        overlays={
            "train_joint": DENOISER,
            "evaluate_autoencoder": {"num_val_slices": 6},
            "synthesize": {"synthetic_dir": "$@output_dir + '/synthetic'", "num_samples": 4, "min_label_pixels": 1},
            "ablation_no_fqb": PROTOCOLS,
            "ddpm": {"autoencoder_path": "$None"},
            "paper_acdc": {"split": "hash"},  # as the autoencoder was trained
            "paper_ddpm": {"autoencoder_path": "$None"},
        },
        elsewhere=frozenset({"paper_mmwhs_ct", "paper_mmwhs_mr"}),
    ),
    "med_dit": Facts(
        kind="translation",
        data="registered_heads",
        volume_of=volume_of_patient,
        tiny={**SMALL_LATENT_TRANSLATOR, "dataset": "synthrad"},
        embedded={**SMALL_LATENT_TRANSLATOR, "phantom_cases": 12, "phantom_size": 48},
        inference=lambda data: {"input_dir": str(data / "inputs"), "batch_size": 3},
        results=("head_a_ct.nii.gz", "head_b_ct.nii.gz", "head_c_ct.nii.gz"),
        integers=True,
        picture="translations_{:06d}.png",
        number_to_validate="num_val_slices",
        others={
            "train_autoencoder": {"channels": [16, 16], "norm_groups": 8},
            "pretrain_embedder": {"views": 2},
            "pix2pix": SMALL_GAN,
        },
        stages={"autoencoder_path": "train_autoencoder", "embedder_path": "pretrain_embedder"},
        bases={
            "large_autoencoder": ("train_autoencoder",),
            "large_embedder": ("pretrain_embedder",),
            "paper_embedder": ("pretrain_embedder",),
            "multi_gpu_embedder": ("pretrain_embedder",),
            "cyclegan": ("pix2pix",),
            "multi_gpu_gan": ("pix2pix",),
            "paper_pix2pix": ("pix2pix",),
            "paper_cyclegan": ("pix2pix", "cyclegan"),
            "paper_pix2pix_inference": ("inference", "pix2pix_inference"),
            "paper_cyclegan_inference": ("inference", "cyclegan_inference"),
            "paper_dit_sb2": ("train", "paper_synthrad_brain"),
            "public_code": ("train", "paper_synthrad_brain"),
        },
        overlays={"cyclegan": {"num_blocks": 1}, "paper_cyclegan": {"num_blocks": 1}},
        elsewhere=frozenset(
            {
                "pix2pix_inference",
                "cyclegan_inference",
                "paper_pix2pix_inference",
                "paper_cyclegan_inference",
                "paper_synthrad_brain",
                "paper_synthrad_pelvis",
                "paper_synthrad_inference",
                "paper_dit_sb2",
                "public_code",
            }
        ),
    ),
}


def of_kind(kind: str) -> list[str]:
    """Names of the bundles of a kind."""
    return [bundle for bundle in BUNDLES if FACTS[bundle].kind == kind]


def configs(bundle: str) -> Path:
    return ROOT / "bundles" / bundle / "configs"


def complete(bundle: str) -> list[str]:
    """Names of the configs that stand alone, the stages before train first; all others are overlays on these."""
    others = FACTS[bundle].others
    stages = [name for name in others if name in FACTS[bundle].stages.values()]
    return [*stages, "train", "inference", *(name for name in others if name not in stages)]


def trainings(bundle: str) -> list[str]:
    """The complete configs that train."""
    return [name for name in complete(bundle) if name != "inference"]


def overlays(bundle: str) -> list[str]:
    """Names of all configs that are meant to be laid over another."""
    return sorted({path.stem for path in configs(bundle).glob("*.json")} - set(complete(bundle)) - NO_CONFIG)


def base(bundle: str, overlay: str) -> tuple[str, ...]:
    """The configs that an overlay is meant for, the complete one first."""
    return FACTS[bundle].bases.get(overlay, ("inference",) if overlay.endswith("inference") else ("train",))


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


def stage_weights(stage: str, folder: Path) -> Path:
    """Weights of a stage before train that was trained below ``folder``."""
    return folder / "stages" / stage / "models" / "model.pt"


def tiny(bundle: str, data: Path, folder: Path, *, config: str = "train", **more: Any) -> Options:
    """Overrides of a training of seconds that writes below ``folder`` only.

    What the stages before it have trained lies beside the data.
    """
    facts = FACTS[bundle]
    options = {
        **facts.tiny,
        **facts.others.get(config, {}),
        **{option: str(stage_weights(stage, data)) for option, stage in facts.stages.items()},
        "dataset_dir": str(data),
        "output_dir": str(folder / "output"),
        "ckpt_dir": str(folder / "models"),
        "cache_dir": str(folder / "output" / "cache"),
        "device": "cpu",
        "amp": False,
    }
    return {key: value for key, value in options.items() if key in keys(bundle, config)} | more


def tiny_evaluation(bundle: str, data: Path, folder: Path, **more: Any) -> Options:
    """The same for an evaluation of the weights of that training."""
    return tiny(bundle, data, folder) | FACTS[bundle].evaluation | more


def tiny_inference(bundle: str, data: Path, folder: Path, **more: Any) -> Options:
    """The same for inference with the weights of that training."""
    options = tiny(bundle, data, folder, config="inference") | FACTS[bundle].inference(data)
    options["output_dir"] = str(folder / "inference")
    options.pop("dataset", None)  # in training the name of a data set, in inference the data set itself
    return options | more


def split_record(folder: Path) -> Options:
    """What a training below ``folder`` has noted of who was in which section, beside its results or its weights."""
    (path,) = (folder / part / "split.json" for part in ("output", "models") if (folder / part / "split.json").exists())
    return json.loads(path.read_text(encoding="utf-8"))


def inferred(bundle: str, folder: Path) -> list[Path]:
    """The images that an inference with these options has written; beside copies there must be no others."""
    facts = FACTS[bundle]
    assert {file.name for file in folder.glob("*.nii.gz")} == {*facts.results, *facts.copies}
    return [folder / name for name in facts.results]
