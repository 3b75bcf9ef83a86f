"""Data for runs of whole bundles, and what a good run leaves behind."""

import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from monai.bundle import run

from common.data.phantoms.brain import write_brain_phantom

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from biomedclip_files import make_tower
from diffusers_files import make_vae
from small_hearts import write_acdc

from bundles import BUNDLES, FACTS, MR_TO_CT, Options, Trained, configs, stage_weights, tiny

DataOf = Callable[[str], Path]


@pytest.fixture(scope="session")
def brain_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 patients of the brain phantom in BraTS layout, 48x48x8 voxels; T1 volumes of three of them in ``inputs``."""
    root = write_brain_phantom(tmp_path_factory.mktemp("brain"), cases=12, size=48, slices=8)
    (root / "inputs").mkdir()
    for letter, number in zip("abc", (1, 2, 4), strict=True):
        scan = f"BraTS-GLI-{number:05d}-000"
        shutil.copy(root / scan / f"{scan}-t1n.nii.gz", root / "inputs" / f"head_{letter}.nii.gz")
    return root


@pytest.fixture(scope="session")
def head_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients of the brain phantom in SynthRAD layout, 48 px and 8 slices before the crop around the head."""
    return write_brain_phantom(tmp_path_factory.mktemp("heads"), layout="synthrad", cases=6, size=48, slices=8)


@pytest.fixture(scope="session")
def registered_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 patients as in ``head_scans``, MR volumes of three of them in ``inputs``, trained stages in ``stages``.

    Of each of the first two centers come five patients, one of which is for test, of the third four.
    """
    folder = tmp_path_factory.mktemp("registered")
    root = write_brain_phantom(folder, layout="synthrad", cases=14, size=48, slices=8)
    (root / "inputs").mkdir()
    for letter, patient in zip("abc", ("1BA002", "1BB005", "1BC008"), strict=True):
        shutil.copy(root / "Task1" / "brain" / patient / "mr.nii.gz", root / "inputs" / f"head_{letter}.nii.gz")
    train_stages("med_dit", root)
    return root


@pytest.fixture(scope="session")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 patients in ACDC layout; three frames, ``inputs/images``, with their label maps, ``inputs/labels``."""
    root = write_acdc(tmp_path_factory.mktemp("hearts"), 12)
    for kind, ending in (("images", ""), ("labels", "_gt")):
        (root / "inputs" / kind).mkdir(parents=True)
        for letter, number in zip("abc", (1, 10, 12), strict=True):
            path = root / f"patient{number:03d}" / f"patient{number:03d}_frame01{ending}.nii.gz"
            shutil.copy(path, root / "inputs" / kind / f"heart_{letter}.nii.gz")
    return root


@pytest.fixture(scope="session")
def encoded_hearts(hearts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of ``hearts`` with a trained autoencoder in ``stages``."""
    root = shutil.copytree(hearts, tmp_path_factory.mktemp("encoded") / "hearts")
    train_stages("fqcdm", root)
    return root


def train_stages(bundle: str, data: Path) -> None:
    """Train what comes before train.json, and keep the weights beside the data."""
    for stage in FACTS[bundle].stages.values():
        folder = data / "stages" / stage
        run(config_file=str(configs(bundle) / f"{stage}.json"), **tiny(bundle, data, folder, config=stage))
        shutil.rmtree(folder / "output")
        assert stage_weights(stage, data).is_file()


@pytest.fixture(scope="session")
def data_of(request: pytest.FixtureRequest) -> DataOf:
    """Function that gives the folder of the data set which a bundle is tested on."""
    return lambda bundle: request.getfixturevalue(FACTS[bundle].data)


@pytest.fixture(scope="session")
def training_of(data_of: DataOf, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function that gives the folder of a training of two steps, which is not to be changed."""

    @cache
    def train(bundle: str) -> Path:
        folder = tmp_path_factory.mktemp(bundle)
        run(config_file=str(configs(bundle) / "train.json"), **tiny(bundle, data_of(bundle), folder))
        return folder

    return train


@pytest.fixture(params=BUNDLES)
def trained(
    request: pytest.FixtureRequest, data_of: DataOf, training_of: Callable[[str], Path], tmp_path: Path
) -> Trained:
    """What that training has left, copied for one test."""
    bundle = request.param
    return Trained(bundle, data_of(bundle), shutil.copytree(training_of(bundle), tmp_path / "trained"))


@pytest.fixture(scope="session")
def training_of_ct(head_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training of two steps from MR to CT, which is not to be changed."""
    folder = tmp_path_factory.mktemp("mr_ct")
    run(config_file=str(configs("dfbk") / "train.json"), **tiny("dfbk", head_scans, folder) | MR_TO_CT)
    return folder


@pytest.fixture
def trained_on_ct(head_scans: Path, training_of_ct: Path, tmp_path: Path) -> Trained:
    """What that training has left, copied for one test, and a copy of its data."""
    data = shutil.copytree(head_scans, tmp_path / "heads")
    return Trained("dfbk", data, shutil.copytree(training_of_ct, tmp_path / "trained_on_ct"))


@pytest.fixture(scope="session")
def pretrained_parts(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """Options that point to small networks with random weights in the formats of the published ones.

    An autoencoder of factor 8 with 4 latent channels, and a vision tower that gives 512 numbers.
    """
    root = tmp_path_factory.mktemp("pretrained")
    make_vae(root / "vae", block_out_channels=(4, 4, 8, 8), layers_per_block=1, norm_num_groups=2)
    make_tower(root / "biomedclip", "test_vit", 512)
    return {"autoencoder_path": str(root / "vae"), "biomedclip_folder": str(root / "biomedclip")}
