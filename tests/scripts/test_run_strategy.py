"""scripts/run_strategy.py: every arm to its end once, and means and spreads as computed by hand."""

import csv
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import run_strategy
from run_strategy_figure import draw_curve
from run_strategy_plan import expand, read_strategy
from run_strategy_queue import Queue
from run_strategy_table import MEAN, NATIVE, Line, Spread, lines_of, read_result, spread

CONFIGS = Path(__file__).parents[2] / "bundles" / "cardiac_segmentation" / "configs"
TRAIN = {
    "_desc_": "a training",
    **dict.fromkeys(("dataset", "dataset_dir", "synthetic_dir", "num_real", "num_synthetic", "augment", "seed")),
    **dict.fromkeys(("pretrained_path", "output_dir", "ckpt_dir", "resume", "image_size")),
    **{"max_epochs": 40, "epoch_length": 100, "batch_size": 24, "architecture": "unet"},
    "network_def": {"_target_": "Network"},
}
PRETRAIN = dict.fromkeys(("synthetic_dir", "num_synthetic", "seed", "output_dir", "ckpt_dir", "resume", "max_epochs"))
PLAN = {
    "stages": {"pretrain": ["pretrain.json"], "train": ["train.json"], "evaluate": ["train.json", "evaluate.json"]},
    "networks": {"unet": [], "swin_unet": ["swin_unet.json"]},
    "strategies": {
        "curve": {
            "title": "A curve",
            "x_label": "synthetic slices",
            "scale": "log",
            "networks": ["unet"],
            "reference": "real",
            "options": {"num_real": 100, "augment": False},
            "arms": {
                "real": {"x": None, "options": {"num_synthetic": 0}},
                "some": {"x": 10, "options": {"num_synthetic": 10}},
                "many": {"x": 40, "options": {"num_synthetic": 40}},
            },
        },
        "pretrain": {
            "title": "Pretraining",
            "x_label": "real slices",
            "options": {"num_synthetic": 0, "augment": False},
            "networks": ["unet"],
            "arms": {
                "scratch": {"x": 50, "series": "from scratch", "options": {"num_real": 50}},
                "few": {"x": 50, "against": "scratch", "pretrain": {"num_synthetic": 50}, "options": {"num_real": 50}},
                "more": {"x": 99, "pretrain": {"num_synthetic": 50}, "options": {"num_real": 99}},
            },
        },
    },
}


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Config files of a bundle, and a fake MONAI that the commands find before the true one."""
    folder = tmp_path / "bundle" / "configs"
    folder.mkdir(parents=True)
    overlay = {"architecture": "swin_unet"}
    contents = {"train": TRAIN, "pretrain": PRETRAIN, "evaluate": {"section": "test"}, "swin_unet": overlay}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "strategies.json").write_text(json.dumps(PLAN))
    fake = tmp_path / "fake" / "monai" / "bundle"
    fake.mkdir(parents=True)
    for package in (fake.parent, fake):
        (package / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("fake_bundle.py"), fake / "__main__.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A synthetic set of 50 slices, of which only the names are looked at."""
    folder = tmp_path / "set"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        for number in range(50):
            (folder / part / f"{number}.nii.gz").touch()
    (folder / "labels.json").write_text(json.dumps({"values": {"0": "background"}, "synthetic": True}))
    return folder


def run(configs: Path, strategy: str = "curve", **options: Any) -> Path:
    """Run a strategy; returns its folder."""
    run_strategy.main(strategy, plan=str(configs / "strategies.json"), **options)
    return configs.parent / "output" / strategy


def calls(folder: Path) -> list[dict[str, Any]]:
    """All commands below ``folder`` so far."""
    return [json.loads(line) for path in sorted(folder.rglob("calls.txt")) for line in path.read_text().splitlines()]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- the plan ----------------------------------------------------------------------------------------------------------


def shipped(name: str, configs: Path) -> Any:
    shutil.copy(CONFIGS / "strategies.json", configs / "strategies.json")
    return read_strategy(name, configs / "strategies.json")


AMOUNTS = (10, 20, 40, 80, 100, 200, 400, 800, 1000)


def test_the_shipped_strategies_hold_every_amount_of_the_paper(configs: Path) -> None:
    """Ratios 0.1 to 10 to 100 real slices; 10 to 1000 alone; 50 to 500 real ones after 500 synthetic; Table 4."""
    plans = {
        name: [(arm.options["num_real"], arm.options["num_synthetic"]) for arm in shipped(name, configs).arms.values()]
        for name in ("mixed", "synthetic_only", "pretrain", "augmentation", "small")
    }
    assert plans["mixed"] == [(100, 0), *((100, number) for number in AMOUNTS)]
    assert plans["synthetic_only"] == [(100, 0), *((0, number) for number in AMOUNTS)]
    assert plans["pretrain"] == [(number, 0) for number in (50, 100, 250, 500)] * 2
    assert plans["augmentation"] == [(0, 400), (100, 0), (100, 400)] * 2
    assert plans["small"] == [(100, 0), (0, 400), (100, 100), (100, 400), (100, 1000)] * 2
    mixed = shipped("mixed", configs)
    assert [arm.x for arm in mixed.arms.values()] == [None, 0.1, 0.2, 0.4, 0.8, 1, 2, 4, 8, 10]
    assert mixed.reference == "real"
    pretrained = [arm.pretrain for arm in shipped("pretrain", configs).arms.values()]
    assert pretrained == [None] * 4 + [{"num_synthetic": 500}] * 4
    for name in ("augmentation", "small"):
        switches = [arm.options["augment"] for arm in shipped(name, configs).arms.values()]
        assert switches == [False] * (len(switches) // 2) + [True] * (len(switches) // 2)
    assert list(mixed.networks) == ["unet", "swin_unet"]


def test_every_file_of_the_shipped_strategies_exists() -> None:
    plan = json.loads((CONFIGS / "strategies.json").read_text())
    files = {file for files in (*plan["stages"].values(), *plan["networks"].values()) for file in files}
    assert {file for file in files if not (CONFIGS / file).is_file()} == set()


def test_a_run_trains_then_evaluates_with_its_own_options_in_its_own_folder(configs: Path, tmp_path: Path) -> None:
    strategy = read_strategy("curve", configs / "strategies.json", ["swin_unet"])
    runs = expand(strategy, configs, [0, 7], tmp_path, {"dataset": "acdc", "max_epochs": 3})
    assert [run.name for run in runs] == [
        f"swin_unet/{arm}/seed_{n}" for arm in ("real", "some", "many") for n in (0, 7)
    ]
    train, evaluate = runs[-1].steps
    assert [file.name for file in train.files] == ["train.json", "swin_unet.json"]
    assert [file.name for file in evaluate.files] == ["train.json", "swin_unet.json", "evaluate.json"]
    folder = tmp_path / "curve" / "swin_unet" / "many" / "seed_7"
    shared = {
        **{"dataset": "acdc", "max_epochs": 3, "num_real": 100, "augment": False, "num_synthetic": 40, "seed": 7},
        **{"output_dir": str(folder), "ckpt_dir": str(folder / "models")},
    }
    assert evaluate.options == shared
    assert train.options == {**shared, "resume": True}
    assert train.command[-4:] == ["--ckpt_dir", str(folder / "models"), "--resume", "True"]


def test_arms_share_the_pretraining_of_their_seed(configs: Path, tmp_path: Path) -> None:
    strategy = read_strategy("pretrain", configs / "strategies.json")
    options = {"synthetic_dir": "set", "image_size": 32, "train.max_epochs": 9, "pretrain.max_epochs": 2}
    runs = {run.name: run for run in expand(strategy, configs, [0, 1], tmp_path, options)}
    before = runs["unet/few/seed_1"].before
    assert before is not None
    assert before == runs["unet/more/seed_1"].before
    assert before.folder != runs["unet/few/seed_0"].before.folder
    assert runs["unet/few/seed_1"].steps[0].options["pretrained_path"] == str(before.result)
    assert before.steps[0].options["num_synthetic"] == 50
    assert before.steps[0].options["synthetic_dir"] == "set"
    assert "image_size" not in before.steps[0].options  # it does not know it
    assert before.steps[0].options["max_epochs"] == 2
    assert [step.options["max_epochs"] for step in runs["unet/few/seed_1"].steps] == [9, 9]
    assert runs["unet/scratch/seed_1"].before is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_epoch": 3}, "--max_epoch belongs to none of the config files of curve. Did you mean --max_epochs?"),
        ({"pretrain.max_epochs": 3}, "--pretrain.max_epochs belongs to none of the config files of curve"),
        ({"train.section": 3}, "--train.section belongs to none"),
        ({"network_def": 3}, "--network_def belongs to none"),
        ({"seed": 3}, "--seed is not for a whole strategy: say --seeds"),
        ({"pretrained_path": "x"}, "--pretrained_path is not for a whole strategy"),
        ({"num_synthetic": 3}, "--num_synthetic is what the arms of curve set"),
        ({"strategy": "curves"}, "Unknown strategy 'curves'; there are curve, pretrain"),
        ({"networks": "unet,swin"}, "Unknown network 'swin'; there are unet, swin_unet"),
        ({"synthetic_dir": None}, "curve needs 40 synthetic slices; say where they are: --synthetic_dir"),
        ({"synthetic_dir": "nowhere"}, "--synthetic_dir: The data folder nowhere does not exist"),
        ({"jobs": 0}, "--jobs 0"),
    ],
    ids=str,
)
def test_what_cannot_work_ends_the_run_before_anything_starts(
    configs: Path, pairs: Path, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SystemExit, match=expected):
        run(configs, **{"strategy": "curve", "synthetic_dir": str(pairs), **options})
    assert not (configs.parent / "output").exists()


def test_a_set_that_is_too_small_for_the_largest_arm_is_refused_at_once(configs: Path, pairs: Path) -> None:
    """Images that are not known to be synthetic slices, one a file, cannot be counted."""
    for part in ("images", "labels"):
        for number in range(39, 50):
            (pairs / part / f"{number}.nii.gz").unlink()
    with pytest.raises(SystemExit, match=r"curve needs 40 synthetic slices, .*set has 39\. Make more of them"):
        run(configs, synthetic_dir=str(pairs))
    (pairs / "labels.json").unlink()
    run(configs, synthetic_dir=str(pairs), dry_run=True)


def test_arms_must_be_trained_for_equally_long(configs: Path) -> None:
    plan = json.loads(json.dumps(PLAN))
    plan["strategies"]["curve"]["arms"]["many"]["options"]["max_epochs"] = 80
    (configs / "strategies.json").write_text(json.dumps(plan))
    with pytest.raises(SystemExit, match="arm many sets max_epochs, which must be equal for all arms"):
        run(configs)


def test_a_dry_run_prints_the_commands_and_does_nothing(
    configs: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pretraining that two arms share is printed once."""
    run(configs, "pretrain", seeds=3, synthetic_dir=str(pairs), dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 * 2
    assert all("-m monai.bundle run --config_file" in line for line in lines)
    assert sum("pretrain.json" in line for line in lines) == 1
    assert not (configs.parent / "output").exists()


# -- running -----------------------------------------------------------------------------------------------------------


def test_means_spreads_and_gains_are_those_of_the_runs(configs: Path, pairs: Path) -> None:
    """The fake's Dice of seeds 0, 1, 2 are d, d + 0.01, d + 0.05: mean d + 0.02, standard deviation sqrt(7) / 100."""
    folder = run(configs, synthetic_dir=str(pairs), jobs=2)
    results = rows(folder / "results.csv")
    assert [(row["arm"], row["seed"]) for row in results] == [
        (arm, str(seed)) for arm in ("real", "some", "many") for seed in range(3)
    ]
    assert float(results[-1]["dice_mean"]) == pytest.approx(59.0)
    assert float(results[-1]["dice_cavity"]) == pytest.approx(69.0)
    assert float(results[-1][f"dice_{NATIVE}"]) == pytest.approx(57.0)
    assert "dice_absent" not in results[-1]
    assert (results[-1]["num_real"], results[-1]["num_synthetic"], results[-1]["x"]) == ("100", "40", "40")
    summary = {row["arm"]: row for row in rows(folder / "summary.csv")}
    for arm, mean in (("real", 52.0), ("some", 53.0), ("many", 56.0)):
        assert float(summary[arm]["dice_mean"]) == pytest.approx(mean)
        assert float(summary[arm]["dice_mean_sd"]) == pytest.approx(7**0.5, abs=1e-4)
        assert summary[arm]["seeds"] == "3"
    assert summary["real"]["gain"] == ""
    assert float(summary["many"]["gain"]) == pytest.approx(4.0)
    assert float(summary["many"]["gain_sd"]) == pytest.approx(0.0, abs=1e-9)  # seed by seed there is no spread
    text = (folder / "summary.md").read_text()
    assert "max_epochs 40, epoch_length 100, batch_size 24" in text
    assert "| unet | many | num_real 100, augment False, num_synthetic 40 | 3 | 66.00 ± 2.65 | 46.00 ± 2.65 |" in text
    assert "+4.00 ± 0.00 over real |" in text
    with Image.open(folder / "curve.png") as picture:
        assert min(picture.size) > 300
    assert {call["step"] for call in calls(folder)} == {"train.json", "evaluate.json"}
    assert len(calls(folder)) == 3 * 3 * 2


def test_finished_runs_are_not_repeated_and_interrupted_ones_go_on(configs: Path, pairs: Path) -> None:
    folder = run(configs, synthetic_dir=str(pairs), seeds=1, jobs=2)
    run(configs, synthetic_dir=str(pairs), seeds=(1,))
    assert len(calls(folder)) == 3 * 2
    evaluated, trained = (folder / "unet" / arm / "seed_1" for arm in ("some", "many"))
    (evaluated / "evaluation" / "metrics.json").unlink()
    record = json.loads((trained / "run.json").read_text())
    (trained / "run.json").write_text(json.dumps({**record, "finished": {}}))  # as a kill in the training leaves it
    run(configs, synthetic_dir=str(pairs), seeds="1", jobs=2)
    assert [call["step"] for call in calls(evaluated)] == ["train.json", "evaluate.json", "evaluate.json"]
    assert [call["step"] for call in calls(trained)] == ["train.json", "evaluate.json"] * 2
    assert calls(trained)[2]["options"]["resume"] == "True"
    assert len(calls(folder)) == 3 * 2 + 1 + 2


def test_more_seeds_and_networks_join_those_that_are_there(configs: Path, pairs: Path) -> None:
    run(configs, synthetic_dir=str(pairs), seeds=0, jobs=2)
    folder = run(configs, synthetic_dir=str(pairs), seeds=1, networks="swin_unet", jobs=2)
    results = [(row["network"], row["arm"], row["seed"]) for row in rows(folder / "results.csv")]
    arms = ("real", "some", "many")
    assert results == [("swin_unet", arm, "1") for arm in arms] + [("unet", arm, "0") for arm in arms]
    assert len(calls(folder)) == 6 * 2


def test_a_folder_with_other_options_is_named(configs: Path, pairs: Path) -> None:
    """Also where its run is not asked for again: its result would stand in the same table."""
    folder = run(configs, synthetic_dir=str(pairs), seeds=0, jobs=2)
    refused = r"seed_0 holds a run of other options \(.*"
    with pytest.raises(SystemExit, match=refused + "train max_epochs unset, here 80"):
        run(configs, synthetic_dir=str(pairs), seeds=1, max_epochs=80)
    with pytest.raises(SystemExit, match=refused + 'train dataset unset, here "acdc"'):
        run(configs, synthetic_dir=str(pairs), seeds=0, dataset="acdc")
    (configs / "train.json").write_text(json.dumps({**TRAIN, "batch_size": 12}))
    with pytest.raises(SystemExit, match=refused + "train content"):
        run(configs, synthetic_dir=str(pairs), seeds=1)
    (configs / "train.json").write_text(json.dumps({**TRAIN, "_desc_": "other words"}))
    run(configs, synthetic_dir=str(pairs), seeds=0)
    assert len(calls(folder)) == 3 * 2


def test_a_run_that_fails_leaves_the_others_alone(
    configs: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_FAIL", "--num_synthetic 10")
    with pytest.raises(SystemExit) as ending:
        run(configs, synthetic_dir=str(pairs), seeds=0)
    assert ending.value.code == "1 of 3 runs failed: unet/some/seed_0. Start again to repeat them."
    said = capsys.readouterr().out
    assert "unet/some/seed_0 FAILED: train ended with status 3" in said
    assert "    error: the fake was told to fail" in said
    folder = configs.parent / "output" / "curve"
    assert [row["arm"] for row in rows(folder / "summary.csv")] == ["real", "many"]
    monkeypatch.delenv("FAKE_FAIL")
    run(configs, synthetic_dir=str(pairs), seeds=0)
    assert [row["arm"] for row in rows(folder / "summary.csv")] == ["real", "some", "many"]
    assert len(calls(folder)) == 3 * 2 + 1


def test_arms_wait_for_their_pretraining_and_fail_with_it(
    configs: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_FAIL", "pretrain.json")
    with pytest.raises(SystemExit, match="3 of 3 runs failed"):
        run(configs, "pretrain", synthetic_dir=str(pairs), seeds=0)
    said = capsys.readouterr().out
    assert "unet/few/seed_0 FAILED: not started, since unet/pretraining_num_synthetic_50/seed_0 failed" in said
    folder = configs.parent / "output" / "pretrain"
    assert [row["arm"] for row in rows(folder / "results.csv")] == ["scratch"]
    monkeypatch.delenv("FAKE_FAIL")
    run(configs, "pretrain", synthetic_dir=str(pairs), seeds=0)
    weights = folder / "unet" / "pretraining_num_synthetic_50" / "seed_0" / "models" / "model.pt"
    pretrained = calls(folder / "unet" / "few")[0]["options"]
    assert Path(pretrained["pretrained_path"]) == weights
    assert weights.is_file()
    assert [row["pretrained"] for row in rows(folder / "results.csv")] == ["False", "True", "True"]
    summary = {row["arm"]: row for row in rows(folder / "summary.csv")}
    assert summary["few"]["gain_against"] == "scratch"
    assert summary["more"]["gain"] == ""


def test_jobs_run_side_by_side_with_their_share_of_the_cores(
    configs: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command ends before two have been started, so one after the other would never end."""
    monkeypatch.setenv("FAKE_COMPANY", "2")
    monkeypatch.setenv("FAKE_ROOT", str(tmp_path))
    folder = run(configs, synthetic_dir=str(pairs), seeds=0, jobs=2)
    cores = len(os.sched_getaffinity(0))
    assert {call["threads"] for call in calls(folder)} == {str(max(1, cores // 2))}


def test_what_is_running_ends_with_the_program(configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is told to end while one training has a minute to go."""
    slow = expand(read_strategy("curve", configs / "strategies.json"), configs, [0], tmp_path / "out", {})[0]
    monkeypatch.setenv("FAKE_COMPANY", "1")
    monkeypatch.setenv("FAKE_ROOT", str(tmp_path))
    queue = Queue(2)
    queue.environment["FAKE_SLEEP"] = "60"
    begin = time.monotonic()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    class Interrupting:
        """A run without steps that is over as soon as the other one is under way."""

        before = None
        folder = tmp_path / "none"

        @property
        def steps(self) -> tuple[()]:
            while not list(tmp_path.glob("started_*")):
                time.sleep(0.01)
            return ()

    with pytest.raises(KeyboardInterrupt):
        queue.perform([slow, Interrupting()], interrupt)
    assert time.monotonic() - begin < 30
    assert not slow.result.is_file()


# -- the table and the picture -----------------------------------------------------------------------------------------


def test_spread_is_the_standard_deviation_of_a_sample() -> None:
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, statistics.stdev([1.0, 2.0, 6.0]), 3)
    assert spread([4.0]) == Spread(4.0, None, 1)
    assert str(Spread(3.0, 7**0.5, 3)) == "3.00 ± 2.65"
    assert str(Spread(4.0, None, 1)) == "4.00"


def test_a_report_of_something_else_is_named(configs: Path, tmp_path: Path) -> None:
    strategy = read_strategy("curve", configs / "strategies.json")
    first = expand(strategy, configs, [0], tmp_path, {})[0]
    first.result.parent.mkdir(parents=True)
    for text in ("{", '{"protocols": {}}', '{"protocols": {"network_grid": {"classes": {}, "mean_dice": null}}}'):
        first.result.write_text(text)
        with pytest.raises(SystemExit, match=r"metrics\.json is no report of a segmentation"):
            read_result(first)


def test_the_curve_shows_means_spreads_and_the_level_of_real_only(configs: Path) -> None:
    strategy = read_strategy("curve", configs / "strategies.json", ["unet", "swin_unet"])
    values = {"real": Spread(80.0, 2.0, 3), "some": Spread(81.0, 1.0, 3), "many": Spread(84.0, 0.5, 3)}
    lines = [Line(net, arm, {MEAN: score}, None) for net in strategy.networks for arm, score in values.items()]
    panel = draw_curve(strategy, lines).axes[0]
    curves = panel.containers
    assert [curve.get_label() for curve in curves] == ["unet", "swin_unet"]
    for curve in curves:
        points, _, (bars,) = curve
        assert points.get_xdata() == pytest.approx([10, 40], rel=0.03)
        assert list(points.get_ydata()) == [81.0, 84.0]
        ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
        assert ends == [[80.0, 82.0], [83.5, 84.5]]
    levels = [line for line in panel.lines if line.get_label() == "unet, real only"]
    assert list(levels[0].get_ydata()) == [80.0, 80.0]
    assert panel.get_xscale() == "log"


def test_words_have_places_on_the_axis(configs: Path) -> None:
    strategy = shipped("augmentation", configs)
    lines = [Line("unet", arm, {MEAN: Spread(80.0 + number, 1.0, 3)}, None) for number, arm in enumerate(strategy.arms)]
    panel = draw_curve(strategy, lines).axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["synthetic", "real", "synthetic +\nreal"]
    labels = [curve.get_label() for curve in panel.containers]
    assert labels == ["unet, without augmentation", "unet, with augmentation"]
    for curve in panel.containers:
        assert [round(x) for x in curve[0].get_xdata()] == [0, 1, 2]


def test_lines_have_only_arms_with_results(configs: Path, tmp_path: Path) -> None:
    assert lines_of(read_strategy("curve", configs / "strategies.json"), []) == []
