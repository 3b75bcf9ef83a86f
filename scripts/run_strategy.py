"""Train and evaluate all arms of a strategy of cardiac_segmentation: ``python scripts/run_strategy.py mixed``.

The strategies are in ``bundles/cardiac_segmentation/configs/strategies.json``. Options go to all trainings
(``--dataset acdc --dataset_dir /data/ACDC --synthetic_dir out/set --max_epochs 40``). Started again, it goes on where
it was interrupted.
"""

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bundle_commands import ROOT, settings_of
from run_strategy_figure import draw_curve
from run_strategy_plan import Run, Strategy, expand, read_strategy
from run_strategy_queue import Queue, is_finished, require_same
from run_strategy_table import lines_of, read_result, results_csv, summary_csv, summary_markdown

sys.path.insert(0, str(ROOT))
from common.atomic import atomic_path, write_text
from common.data.readers.labelled_folder import read_label_info, read_labelled_folder

PLAN = ROOT / "bundles" / "cardiac_segmentation" / "configs" / "strategies.json"


def main(
    strategy: str,
    *,
    networks: str | Sequence[str] | None = None,
    seeds: str | int | Sequence[int] = (0, 1, 2),
    jobs: int = 1,
    output_dir: str | None = None,
    plan: str = str(PLAN),
    dry_run: bool = False,
    **options: Any,
) -> None:
    """Run all arms of a strategy, then write results.csv, summary.csv, summary.md and curve.png.

    Every run has a folder ``<output_dir>/<strategy>/<network>/<arm>/seed_<n>`` with its logs, weights and evaluation.

    Args:
        strategy: mixed, synthetic_only, pretrain, augmentation or small.
        networks: names separated by commas, unet and swin_unet; default: those of the strategy.
        seeds: repetitions, separated by commas; a seed draws the slices, the starting weights and the order.
        jobs: runs side by side, each with its share of the cores.
        output_dir: root of the folders; default: ``output`` of the bundle, or of ``--bundle_root``.
        plan: file with the strategies; their config files lie beside it.
        dry_run: print the commands only.
        options: of train.json (and evaluate.json, pretrain.json), the same for all runs; ``--pretrain.max_epochs 20``
            is for the pretraining alone, and so on.
    """
    path = Path(plan).resolve()
    bundle = Path(options.get("bundle_root", path.parent.parent))
    root = (bundle / "output" if output_dir is None else Path(output_dir)).absolute()
    numbers = [int(seed) for seed in _names(seeds)]
    asked = read_strategy(strategy, path, None if networks is None else _names(networks))
    every = expand(asked, path.parent, numbers, root, options)
    _require_synthetic(asked, options)
    if dry_run:
        print("\n".join(dict.fromkeys(shlex.join(command) for run in every for command in _commands(run))))
        return
    whole, present = _with_present(asked, path, root, numbers, options)
    require_same(present)
    waiting = [run for run in every if not is_finished(run)]
    print(f"{strategy}: {len(every)} runs, {len(every) - len(waiting)} of them finished before.", flush=True)
    failed = _perform(waiting, jobs)
    finished = [run for run in present if is_finished(run)]
    if finished:
        print(_write_results(whole, finished, root / strategy, options, path.parent))
    if failed:
        sys.exit(f"{len(failed)} of {len(every)} runs failed: {', '.join(failed)}. Start again to repeat them.")


def _perform(runs: Sequence[Run], jobs: int) -> list[str]:
    """Names of the runs that failed."""
    failed: list[str] = []
    ended = 0

    def report(run: Run, problem: str | None, seconds: float) -> None:
        nonlocal ended
        ended += run in runs
        if problem is None:
            print(f"[{ended}/{len(runs)}] {run.name}: {seconds:.0f} s", flush=True)
        else:
            failed.append(run.name)
            print(f"[{ended}/{len(runs)}] {run.name} FAILED: {problem}", flush=True)

    Queue(jobs).perform(runs, report)
    return failed


def _write_results(
    strategy: Strategy, runs: Sequence[Run], folder: Path, options: Mapping[str, Any], configs: Path
) -> str:
    """Write the four files; returns the Markdown."""
    results = [read_result(run) for run in runs]
    lines = lines_of(strategy, results)
    settings = {**settings_of([configs / file for file in strategy.stages["train"]]), **options}
    text = summary_markdown(strategy, lines, settings)
    write_text(folder / "results.csv", results_csv(strategy, results))
    write_text(folder / "summary.csv", summary_csv(strategy, lines))
    write_text(folder / "summary.md", text)
    with atomic_path(folder / "curve.png") as temporary:
        draw_curve(strategy, lines).savefig(temporary, dpi=110, format="png")
    return f"{text}\nThe results are in {folder}."


def _with_present(
    asked: Strategy, plan: Path, root: Path, seeds: Sequence[int], options: Mapping[str, Any]
) -> tuple[Strategy, list[Run]]:
    """The strategy with the networks of earlier calls, and all runs of it and of the seeds of earlier calls."""
    folders = [path.parent for path in (root / asked.name).glob("*/*/seed_*/run.json")]
    networks = dict.fromkeys([*asked.networks, *(folder.parent.parent.name for folder in folders)])
    numbers = {*seeds, *(int(folder.name.removeprefix("seed_")) for folder in folders)}
    whole = read_strategy(asked.name, plan, list(networks))
    return whole, expand(whole, plan.parent, sorted(numbers), root, options)


def _require_synthetic(strategy: Strategy, options: Mapping[str, Any]) -> None:
    """End the program now, not after hours, if the arms need more synthetic slices than there are."""
    arms = strategy.arms.values()
    needed = max(settings.get("num_synthetic") or 0 for arm in arms for settings in (arm.options, arm.pretrain or {}))
    folder = options.get("synthetic_dir")
    if not needed:
        return
    if folder is None:
        raise SystemExit(f"{strategy.name} needs {needed} synthetic slices; say where they are: --synthetic_dir FOLDER")
    try:
        found, info = len(read_labelled_folder(Path(folder))), read_label_info(Path(folder))
    except (ValueError, OSError) as error:
        raise SystemExit(f"--synthetic_dir: {error}") from error
    if info is not None and info.synthetic and found < needed:
        raise SystemExit(
            f"{strategy.name} needs {needed} synthetic slices, {folder} has {found}. Make more of them (synthesize.json"
            f" of fqcdm, --num_samples {needed}), or take arms out of the strategy."
        )


def _commands(run: Run) -> list[list[str]]:
    before = [] if run.before is None else _commands(run.before)
    return [*before, *(step.command for step in run.steps)]


def _names(text: str | int | Sequence[Any]) -> list[str]:
    """``a,b`` as text, as fire's tuple, or one name alone."""
    parts = text.split(",") if isinstance(text, str) else [text] if isinstance(text, int) else text
    return list(dict.fromkeys(str(part).strip() for part in parts))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that the trainings end, too
    fire.Fire(main)
