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
from bundles import BUNDLES, FACTS, MR_TO_CT, Trained, configs, tiny

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
