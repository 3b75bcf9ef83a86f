"""Run the stages of a bundle one after the other: ``python scripts/run_stages.py med_dit``.

The stages and their order are in the bundle's ``configs/stages.json``. Options go to every stage whose config has such
a key (``--dataset synthrad``), or to one stage alone (``--train.max_epochs 50``). The first stage that fails ends the
run.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bundle_commands import ROOT, bundle_command, settings_of

ONE_STAGE = {"output_dir", "ckpt_dir", "load_path"}


def main(bundle: str, *, stages: str | Sequence[str] = "main", **options: Any) -> None:
    """Run the stages of a bundle.

    Args:
        bundle: folder name in ``bundles/``.
        stages: a chain of the bundle, or names of stages separated by commas.
        options: of the stages, as for ``python -m monai.bundle run``. ``--bundle_root <folder>`` keeps data, weights
            and output of all stages there, away from the bundle's own.
    """
    folder = ROOT / "bundles" / bundle / "configs"
    plan = read_plan(folder)
    chosen = choose(plan, stages)
    steps = [(name, command(name, plan["stages"][name], folder, options)) for name in chosen]
    refuse_unused(options, plan["stages"], chosen, folder)
    begin = time.monotonic()
    for number, (name, arguments) in enumerate(steps, start=1):
        print(f"\n=== {bundle}, stage {number} of {len(steps)}: {name}\n{' '.join(arguments[1:])}", flush=True)
        start = time.monotonic()
        result = subprocess.run(arguments, cwd=ROOT)
        if result.returncode:
            rest = ",".join(chosen[number - 1 :])
            raise SystemExit(
                f"Stage {name} of {bundle} failed; what it said is above. Go on later with --stages {rest}"
            )
        print(f"=== {name}: {time.monotonic() - start:.0f} s", flush=True)
    root = options.get("bundle_root", f"bundles/{bundle}")
    print(f"""
All {len(steps)} stages of {bundle}: {(time.monotonic() - begin) / 60:.1f} minutes.
  weights:  {root}/models
  results:  {root}/output (evaluation/ with reports and metrics.json, inference/, comparison/, as far as these ran)
Next, use the weights on volumes of your own (with the sizes they were trained with, as overlay or options):
  python -m monai.bundle run --config_file bundles/{bundle}/configs/inference.json \\
    --bundle_root {root} --input_dir FOLDER""")


def read_plan(folder: Path) -> dict[str, Any]:
    """``stages.json`` of a bundle: ``stages`` (name -> config files or a script) and ``chains`` (name -> stages)."""
    path = folder / "stages.json"
    if not path.is_file():
        known = sorted(found.parent.parent.name for found in (ROOT / "bundles").glob("*/configs/stages.json"))
        raise SystemExit(f"{path} does not exist; bundles with stages: {', '.join(known)}.")
    return json.loads(path.read_text(encoding="utf-8"))


def choose(plan: Mapping[str, Any], stages: str | Sequence[str]) -> list[str]:
    """Names of the stages to run, in the order given."""
    names = stages.split(",") if isinstance(stages, str) else list(stages)
    if len(names) == 1 and names[0] in plan["chains"]:
        return list(plan["chains"][names[0]])
    unknown = [name for name in names if name not in plan["stages"]]
    if unknown:
        raise SystemExit(
            f"Unknown stage {', '.join(unknown)}; stages: {', '.join(plan['stages'])}; chains: "
            f"{', '.join(plan['chains'])}."
        )
    return names


def command(name: str, stage: Mapping[str, Any], folder: Path, options: Mapping[str, Any]) -> list[str]:
    """The command line of a stage."""
    root = str(options.get("bundle_root", folder.parent.relative_to(ROOT)))
    if "script" in stage:
        return [sys.executable, f"scripts/{stage['script']}", *(text.format(root=root) for text in stage["arguments"])]
    fixed = {option: value.format(root=root) for option, value in stage.get("options", {}).items()}
    chosen = {**fixed, **options_of(name, stage, folder, options)}
    return bundle_command(files_of(stage, folder), chosen)


def files_of(stage: Mapping[str, Any], folder: Path) -> list[Path]:
    """The config files of a stage; a script has none."""
    return [folder / file for file in stage.get("config", [])]


def options_of(name: str, stage: Mapping[str, Any], folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for this stage: its own, and the common ones that its config files know, maybe by another name."""
    keys = settings_of(files_of(stage, folder))
    aliases = stage.get("aliases", {})
    shared = {aliases.get(option, option): value for option, value in options.items() if "." not in option}
    common = {option: value for option, value in shared.items() if option.split("#")[0] in keys}
    own = {option.removeprefix(f"{name}."): value for option, value in options.items() if option.startswith(f"{name}.")}
    return {**common, **own}


def refuse_unused(options: Mapping[str, Any], stages: Mapping[str, Any], chosen: Sequence[str], folder: Path) -> None:
    """End the program if an option reaches no stage; a mistyped one would be lost otherwise, or found hours later."""
    for option in options:
        name, dot, own = option.partition(".")
        if option in ONE_STAGE:
            raise SystemExit(
                f"--{option} would be the same for all stages; say --<stage>.{option}, or --bundle_root for all."
            )
        candidates = {name} & set(chosen) if dot else chosen
        key = (own if dot else option).split("#")[0]
        if not any(
            stages[stage].get("aliases", {}).get(key, key) in settings_of(files_of(stages[stage], folder))
            for stage in candidates
        ):
            raise SystemExit(f"--{option} belongs to none of the stages {', '.join(chosen)}.")


if __name__ == "__main__":
    fire.Fire(main)
