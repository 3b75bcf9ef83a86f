"""scripts/compute_statistics.py: the training part of a folder, through the recipe's own transforms."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from common.frequency.statistics import CoefficientStatistics

SCRIPT = Path(__file__).parents[2] / "scripts" / "compute_statistics.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compute_statistics", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty pictures of one bright column: per 4 x 4 block three columns of 0 and one of 240."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.zeros((20, 24), np.uint8)
    pixels[:, ::4] = 240
    for number in range(20):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def test_the_statistics_of_stripes_are_known(
    script: ModuleType, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Crop 16 keeps whole periods: DC = b (mean - 128) = 4 (60 - 128) = -272, energy as in the pixels (Parseval)."""
    output = tmp_path / "out" / "statistics.json"
    script.compute_statistics("image_folder", str(root), output=str(output), crop=16, intensity="fixed")
    statistics = CoefficientStatistics.from_json(output.read_text())
    assert 5 < statistics.num_slices < 20  # the training part only
    assert statistics.mean[0].item() == pytest.approx(-272, abs=0.1)
    energy = (statistics.mean.double() ** 2 + statistics.std.double() ** 2).sum().item()
    assert energy == pytest.approx(4 * (240 - 128) ** 2 + 12 * 128**2, rel=1e-3)
    text = capsys.readouterr().out
    assert f"written to {output}" in text
    assert f"{statistics.num_slices} slices" in text
    assert [path.name for path in output.parent.iterdir()] == ["statistics.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 64}, "smaller than the crop 64 x 64"),
        ({"intensity": "percent"}, "Unknown intensity 'percent'"),
        ({"dropped": 99, "crop": 16}, "99"),
    ],
)
def test_a_bad_option_ends_with_one_sentence_and_no_file(
    script: ModuleType, root: Path, tmp_path: Path, options: dict, message: str
) -> None:
    output = tmp_path / "statistics.json"
    output.write_text("old")
    with pytest.raises(SystemExit, match=message):
        script.compute_statistics("image_folder", str(root), output=str(output), **options)
    assert output.read_text() == "old"
