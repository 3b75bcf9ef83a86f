"""scripts/compare_translators.py: one table of what belongs together, and a reason where something does not."""

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from compare_translators import compare
from compare_translators_figure import draw_comparison
from compare_translators_runs import Line, Score, lines_of, read_run, require_comparable, run_names
from compare_translators_table import Column, as_markdown, cell, columns_of

from common.handlers.translation_report import METHODS, TranslationReport
from common.handlers.translation_scores import MethodScores

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_translators.py"
CASES = ("a", "b", "c")
RECORD = {"dataset": "brain_phantom_synthrad", "section": "test", "held_out": None, "seed": 0}
FLOORS = {"mean_target": 240.0, "source_copy": 600.0, "pointwise": 130.0, "resampled_target": 3.0}


class Slices:
    """Of training; they are only counted."""

    def __init__(self, number: int = 150) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        raise NotImplementedError


def evaluation(
    folder: Path,
    maes: Mapping[str, float],
    cases: Sequence[str] = CASES,
    slices: int = 150,
    target: str = "ct",
    **record: Any,
) -> Path:
    """The two files of the real report; cases are 2 HU apart, so that their standard deviation is 2."""
    report = TranslationReport(
        folder, [{"case": c} for c in cases], Slices(slices), "mr", target, None, RECORD | record
    )
    rows = [
        MethodScores(
            case,
            method,
            {} if method == "resampled_target" else {"paper_ssim": np.array([0.8, 0.9])},
            {"synthrad_mae": mae + 2 * number, "synthrad_psnr": 40 - mae / 20} if target == "ct" else {},
        )
        for number, case in enumerate(cases)
        for method, mae in sorted(maes.items(), key=lambda item: list(METHODS).index(item[0]))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(report.metrics(rows)))
    report.write_cases(rows)
    return folder


def change(folder: Path, **values: Any) -> None:
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """A latent translator and one in pixels."""
    latent = {"prediction": 80.0, "mean_of_samples": 75.0, **FLOORS, "reconstruction": 40.0}
    record = {"method": {"conditioning": "spatial", "autoencoder": "scratch:12"}}
    folders = {
        "dit": evaluation(tmp_path / "dit" / "output" / "evaluation", latent, **record),
        "gan": evaluation(tmp_path / "gan", {"prediction": 95.0, **FLOORS}, weights="a|b\nc"),
    }
    return [f"{name}={folder}" for name, folder in folders.items()]


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row.pop("name"): row for row in csv.DictReader(file)}


def test_one_row_a_prediction_and_every_floor_and_limit_once(two: list[str], tmp_path: Path) -> None:
    compare(two, tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "comparison.csv")
    kinds = {name: row["kind"] for name, row in rows.items()}
    assert list(kinds) == [
        "dit", "dit, mean of samples", "gan", "mean target", "source copy", "pointwise", "reconstruction",
        "resampled target",
    ]  # fmt: skip
    assert list(kinds.values()) == ["prediction"] * 3 + ["floor"] * 3 + ["limit"] * 2
    assert {name: float(row["synthrad_mae"]) for name, row in rows.items()} == {
        "dit": 82, "dit, mean of samples": 77, "gan": 97, "mean target": 242, "source copy": 602, "pointwise": 132,
        "reconstruction": 42, "resampled target": 5,
    }  # fmt: skip
    assert {(row["synthrad_mae_sd"], row["synthrad_mae_cases"]) for row in rows.values()} == {("2", "3")}
    assert float(rows["gan"]["paper_ssim"]) == pytest.approx(0.85)
    assert rows["resampled target"]["paper_ssim"] == ""


def test_the_markdown_says_what_was_compared_and_how(two: list[str], tmp_path: Path) -> None:
    text = compare(two, tmp_path)
    assert text == (tmp_path / "comparison.md").read_text("utf-8")
    assert "# mr to ct: dit, gan" in text
    assert "dataset brain_phantom_synthrad, section test, 3 cases" in text
    assert "not for diagnosis" in text
    lines = [[part.strip() for part in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    assert lines[0][2:] == ["MAE ↓", "PSNR ↑"]  # in HU; the network's grid is in the CSV
    assert ["dit", "prediction", "82.0 ± 2.0", "36.00 ± 0.00"] in lines
    assert [
        "run",
        "commit",
        "method conditioning",
        "method autoencoder",
        "weights",
    ] in lines  # what differs, and no more
    assert [line for line in lines if line[0] == "dit"][-1][2:] == ["spatial", "scratch:12", ""]
    assert "a\\|b c" in text
    assert "  - MAE: HU, nothing clipped" in text
    assert text.index("SynthRAD2023") < text.index("HU, nothing clipped")


def test_mr_is_compared_on_the_networks_grid(tmp_path: Path) -> None:
    names = ("prediction", "mean_target", "source_copy", "pointwise")
    folder = evaluation(tmp_path / "mr", dict.fromkeys(names, 1.0), target="t2f")
    assert "paper SSIM ↑" in compare([str(folder)], tmp_path / "out")


@pytest.mark.parametrize(
    ("folder", "record", "message"),
    [
        ({}, {"dataset": "synthrad"}, 'dataset differs: "brain_phantom_synthrad" (a); "synthrad" (b)'),
        ({}, {"section": "validation"}, 'section differs: "test" (a); "validation" (b)'),
        ({}, {"held_out": ["1BA002"]}, 'held_out differs: null (a); ["1BA002"] (b)'),
        ({"cases": ("a", "b", "d")}, {}, 'cases differs: "a, b, c" (a); "a, b, d" (b)'),
        ({"slices": 149}, {}, '"training_slices": 149} (b)'),
        ({"target": "t2f"}, {}, 'target differs: "ct" (a); "t2f" (b)'),
    ],
)
def test_what_was_scored_on_other_data_is_refused(
    folder: dict[str, Any], record: dict[str, Any], message: str, tmp_path: Path
) -> None:
    maes = {"prediction": 80.0, **FLOORS}
    runs = [read_run("a", evaluation(tmp_path / "a", maes))]
    runs.append(read_run("b", evaluation(tmp_path / "b", maes, **folder, **record)))
    with pytest.raises(ValueError, match="do not belong in one table") as error:
        require_comparable(runs)
    assert message in str(error.value)


def test_scores_that_two_versions_define_otherwise_are_refused(two: list[str], tmp_path: Path) -> None:
    """Another commit alone is no reason."""
    folder = tmp_path / "gan"
    change(folder, commit="1234567")
    compare(two, tmp_path / "out")
    protocols = json.loads((folder / "metrics.json").read_text())["protocols"]
    protocols["synthrad"]["scores"]["mae"]["meaning"] = "HU, over the whole volume"
    change(folder, protocols=protocols)
    with pytest.raises(
        ValueError, match=r'protocol synthrad_mae .* "HU, over the whole volume" \(gan, commit 1234567\)'
    ):
        compare(two, tmp_path / "out")


def test_floors_that_disagree_give_other_training_data_away(tmp_path: Path) -> None:
    """By rounding they may."""
    maes = {"prediction": 80.0, **FLOORS}
    near = evaluation(tmp_path / "near", {name: mae * (1 + 1e-5) for name, mae in maes.items()})
    far = evaluation(tmp_path / "far", maes | {"pointwise": 131.0})
    first = evaluation(tmp_path / "first", maes)
    compare([str(first), str(near)], tmp_path)
    with pytest.raises(ValueError, match=r"pointwise should not .* synthrad_mae is 132.0 \(first\) and 133.0 \(far\)"):
        compare([str(first), str(near), str(far)], tmp_path)


def test_a_psnr_of_rounding_errors_is_not_compared(tmp_path: Path) -> None:
    """A target that nothing was resampled of: 164 dB on one device, exact on the other."""
    maes = {"prediction": 80.0, **FLOORS}
    folders = [evaluation(tmp_path / name, maes) for name in "abc"]
    for folder, value in zip(folders, (164.0, None, 50.0), strict=True):
        protocols = json.loads((folder / "metrics.json").read_text())["protocols"]
        protocols["synthrad"]["scores"]["psnr"]["resampled_target"]["value"] = value
        change(folder, protocols=protocols)
    compare([str(folder) for folder in folders[:2]], tmp_path)
    with pytest.raises(ValueError, match="resampled_target should not"):
        compare([str(folder) for folder in folders], tmp_path)


def test_each_autoencoder_has_its_own_limit(tmp_path: Path) -> None:
    limits = {"a": 40.0, "b": 40.0, "c": 30.0, "pixels": None}
    runs = []
    for name, limit in limits.items():
        own = {} if limit is None else {"reconstruction": limit}
        runs.append(read_run(name, evaluation(tmp_path / name, {"prediction": 80.0, **FLOORS, **own})))
    require_comparable(runs)
    names = [[line.name for line in lines_of(chosen) if "reconstruction" in line.name] for chosen in (runs[:2], runs)]
    assert names == [["reconstruction"], ["reconstruction, a", "reconstruction, b", "reconstruction, c"]]


def test_a_floor_that_an_older_evaluation_lacks_is_taken_from_another(tmp_path: Path) -> None:
    old = {name: mae for name, mae in FLOORS.items() if name != "mean_target"}
    runs = [
        read_run(name, evaluation(tmp_path / name, {"prediction": 80.0, **floors}))
        for name, floors in (("old", old), ("new", FLOORS))
    ]
    require_comparable(runs)
    assert [line.name for line in lines_of(runs)][2:] == ["source copy", "pointwise", "mean target", "resampled target"]


def test_a_cell_tells_exact_from_undefined() -> None:
    assert cell(Score(12.345, 0.678, 3), 1) == "12.3 ± 0.7"
    assert cell(Score(12.5, None, 1), 2) == "12.50"
    assert cell(Score(None, None, 0), 2) == "∞"
    assert cell(None, 2) == "–"


def test_folders_have_names() -> None:
    found = run_names(["runs/dit/output/evaluation", "gan=a/evaluation", "b/pix2pix/"])
    assert list(found) == ["dit", "gan", "pix2pix"]
    assert found["gan"] == Path("a/evaluation")
    with pytest.raises(ValueError, match=r"two runs are called 'dit': a/dit and b/dit. Give names"):
        run_names(["a/dit", "b/dit"])
    with pytest.raises(ValueError, match="no evaluation is given"):
        run_names([])


def test_a_folder_without_a_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metrics.json is missing; evaluate.json writes it"):
        read_run("a", tmp_path)
    folder = evaluation(tmp_path, {"prediction": 1.0, **FLOORS})
    change(folder, report="common.handlers.synthesis_report")
    with pytest.raises(ValueError, match="not the report of a translator"):
        read_run("a", folder)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_run("a", folder)


def test_the_picture_has_a_bar_for_each_run_and_a_line_for_each_floor(tmp_path: Path) -> None:
    lines = [
        Line("dit", "prediction", {"m": Score(80.0, 5.0, 3)}),
        Line("gan", "prediction", {"m": Score(100.0, None, 1)}),
        Line("pointwise", "floor", {"m": Score(110.0, 1.0, 3)}),
        Line("source copy", "floor", {"m": Score(600.0, 1.0, 3)}),
        Line("reconstruction", "limit", {"m": Score(40.0, 1.0, 3)}),
        Line("resampled target", "limit", {}),
    ]
    figure = draw_comparison(lines, [Column("m", "MAE", "↓", 1)], "mr to ct")
    (panel,) = figure.axes
    assert [bar.get_width() for bar in panel.patches] == [80, 100]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["dit", "gan"]
    drawn = {line.get_label(): line.get_xdata()[0] for line in panel.lines if not line.get_label().startswith("_")}
    assert drawn == {"pointwise (floor)": 110, "reconstruction (limit)": 40}
    assert panel.get_xlabel() == "beyond the axis: source copy 600.0"
    assert panel.get_xlim()[0] == 0
    assert len(figure.legends[0].get_texts()) == 4


def test_the_command_writes_prints_and_complains(two: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), two[0], f"--runs={two[1]}", "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "comparison.md").read_text("utf-8") in done.stdout
    assert np.asarray(Image.open(tmp_path / "out" / "comparison.png").convert("L")).std() > 20
    change(tmp_path / "gan", section="validation")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: These evaluations do not belong in one table:\n- section differs")


def test_columns_follow_the_report(two: list[str]) -> None:
    run = read_run("dit", Path(two[0].partition("=")[2]))
    assert [column[:3] for column in columns_of(run)] == [("synthrad_mae", "MAE", "↓"), ("synthrad_psnr", "PSNR", "↑")]
    assert "| run | commit" in as_markdown([run], lines_of([run]), columns_of(run))
