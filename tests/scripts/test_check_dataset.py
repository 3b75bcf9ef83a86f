"""scripts/check_dataset.py on a small ACDC folder, whole and broken."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_dataset.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_dataset", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(path: Path, voxels: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.5, -1.5, 8.0, 1.0])), path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three patients of two frames."""
    for patient in ("patient001", "patient002", "patient003"):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "Info.cfg").write_text("ED: 1\nES: 2\n")
        for frame in ("frame01", "frame02"):
            rng = np.random.default_rng(1)
            save(tmp_path / patient / f"{patient}_{frame}.nii.gz", rng.integers(0, 500, (9, 8, 3)).astype(np.int16))
            save(tmp_path / patient / f"{patient}_{frame}_gt.nii.gz", rng.integers(0, 4, (9, 8, 3)).astype(np.uint8))
    return tmp_path


def test_a_good_data_set_is_summed_up(script: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        script.check_dataset("acdc", str(root), json=True)
    assert end.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == report["readable_images"] == 6
    assert report["slices"] == 18
    assert report["sizes"] == {"9 x 8 x 3": 6}
    assert report["spacings_mm"] == {"1.5 x 1.5 x 8": 6}
    assert report["label_values"] == [0, 1, 2, 3]
    assert sum(report["patients"].values()) == 3
    assert report["problems"] == []


def test_every_problem_is_listed_with_its_file(
    script: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = root / "patient001"
    whole = (bad / "patient001_frame01.nii.gz").read_bytes()
    (bad / "patient001_frame01.nii.gz").write_bytes(whole[: len(whole) // 2])
    save(bad / "patient001_frame02.nii.gz", np.full((9, 8, 3), 5, np.int16))
    bad = root / "patient002"
    save(bad / "patient002_frame01_gt.nii.gz", np.ones((9, 8, 4), np.uint8))
    save(bad / "patient002_frame02_gt.nii.gz", np.full((9, 8, 3), 7, np.uint8))
    (root / "patient003" / "patient003_frame02_gt.nii.gz").unlink()
    with pytest.raises(SystemExit) as end:
        script.check_dataset("acdc", str(root))
    assert end.value.code == 1
    text = capsys.readouterr().out
    assert "5 problem(s):" in text
    for name, complaint in {
        "patient001_frame01.nii.gz": "cannot be read",
        "patient001_frame02.nii.gz": "is constant",
        "patient002_frame01_gt.nii.gz": "its grid (shape (1, 9, 8, 4)) is not that of",
        "patient002_frame02_gt.nii.gz": "only [0, 1, 2, 3] are labels",
        "patient003": "frame02 has no label map",
    }.items():
        assert any(name in line and complaint in line for line in text.splitlines()), name


def test_a_wrong_folder_ends_with_one_sentence(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: The data folder .* does not exist"):
        script.check_dataset("acdc", str(tmp_path / "nowhere"))


def test_another_number_of_labelled_slices_than_published_is_noted_and_no_problem(
    script: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        script.check_dataset("acdc", str(root))
    assert end.value.code == 0
    assert (
        "3 patients with 18 labelled slices; the published training part has 100 with 1902" in capsys.readouterr().out
    )


def test_an_empty_label_map_is_a_problem(script: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(root / "patient002" / "patient002_frame01_gt.nii.gz", np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(SystemExit) as end:
        script.check_dataset("acdc", str(root))
    assert end.value.code == 1
    assert "patient002_frame01_gt.nii.gz: the label map is empty" in capsys.readouterr().out


def mmwhs(root: Path, stray: int) -> Path:
    """Two MR cases, the second label file with a value that is not in the list."""
    (root / "mr_train").mkdir()
    for number, extra in ((1001, 820), (1002, stray)):
        rng = np.random.default_rng(number)
        save(root / "mr_train" / f"mr_train_{number}_image.nii.gz", rng.integers(0, 500, (9, 8, 4)).astype(np.int16))
        label = rng.choice([0, 500, 600, 420, extra], (9, 8, 4)).astype(np.int16)
        save(root / "mr_train" / f"mr_train_{number}_label.nii.gz", label)
    return root


@pytest.mark.parametrize(("stray", "code"), [(421, 0), (7, 1)], ids=["known slip", "unknown"])
def test_stray_values_of_mmwhs(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], stray: int, code: int
) -> None:
    with pytest.raises(SystemExit) as end:
        script.check_dataset("mmwhs_mr", str(mmwhs(tmp_path, stray)))
    assert end.value.code == code
    text = capsys.readouterr().out
    assert str(stray) in text
    assert ("mr_train_1002_label.nii.gz: values" in text) == (code == 1)


def test_the_values_of_a_labelled_folder_are_those_it_names(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    save(tmp_path / "images" / "a.nii.gz", np.arange(72, dtype=np.int16).reshape(6, 4, 3))
    save(tmp_path / "labels" / "a.nii.gz", np.arange(72, dtype=np.int16).reshape(6, 4, 3) % 3)
    for names, code in (({"0": "background", "1": "one", "2": "two"}, 0), ({"0": "background", "1": "one"}, 1)):
        (tmp_path / "labels.json").write_text(json.dumps({"values": names}))
        with pytest.raises(SystemExit) as end:
            script.check_dataset("labelled_folder", str(tmp_path))
        assert end.value.code == code, capsys.readouterr().out


@pytest.mark.slow
def test_the_command_runs_from_any_folder(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--dataset", "acdc", "--dataset_dir", str(root), "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 6
