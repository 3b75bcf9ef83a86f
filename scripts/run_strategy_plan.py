"""What ``run_strategy.py`` runs: a strategy of ``strategies.json``, laid out as command lines in folders."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle_commands import bundle_command, settings_of

EQUAL = ("max_epochs", "epoch_length", "batch_size", "image_size")  # settings that no arm may have of its own
_PATHS = ("output_dir", "ckpt_dir", "pretrained_path", "resume")  # say where, not what
_STEPS = {"train": ("train", "evaluate"), "pretrain": ("pretrain",), "evaluate": ("evaluate",)}  # by prefix
_OWN = {
    "seed": "say --seeds",
    "ckpt_dir": "weights lie in the folder of their run",
    "pretrained_path": "arms with `pretrain` set it",
    "resume": "what was interrupted goes on by itself",
}


@dataclass(frozen=True)
class Arm:
    """One way to make training data, and where its result is drawn.

    x: place on the axis, None for a reference that is only a level; series: its line; options: of train.json; pretrain:
    options of pretrain.json if that runs before; against: the arm whose results its own are held against.
    """

    name: str
    x: float | str | None
    options: Mapping[str, Any]
    series: str = ""
    pretrain: Mapping[str, Any] | None = None
    against: str | None = None


@dataclass(frozen=True)
class Strategy:
    """Arms that are compared with each other; see ``strategies.json``."""

    name: str
    title: str
    x_label: str
    arms: Mapping[str, Arm]
    networks: Mapping[str, tuple[str, ...]]
    stages: Mapping[str, tuple[str, ...]]
    scale: str = "linear"
    reference: str | None = None


@dataclass(frozen=True)
class Step:
    """One command: config files and options."""

    name: str
    files: tuple[Path, ...]
    options: Mapping[str, Any]

    @property
    def command(self) -> list[str]:
        """The command line."""
        return bundle_command(self.files, self.options)

    def settings(self) -> dict[str, Any]:
        """What a result depends on, as JSON has it: options and the content of the config files."""
        options = {name: value for name, value in self.options.items() if name not in _PATHS}
        content = [json.loads(file.read_text(encoding="utf-8")) for file in self.files]
        for entry in content:
            entry.pop("_desc_", None)
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
        return json.loads(json.dumps({"files": [file.name for file in self.files], "content": digest, **options}))


@dataclass(frozen=True)
class Run:
    """Steps of one network, arm and seed in a folder of their own.

    result: the file that the last step leaves; before: another run that must have ended well.
    """

    network: str
    arm: str
    seed: int
    folder: Path
    steps: tuple[Step, ...]
    result: Path
    before: "Run | None" = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.network}/{self.arm}/seed_{self.seed}"


def read_strategy(name: str, plan: Path, networks: Sequence[str] | None = None) -> Strategy:
    """A strategy of the file ``plan``; config files lie beside it.

    Raises:
        SystemExit: the file, the strategy or a network is not there, or an arm breaks the comparison.
    """
    if not plan.is_file():
        raise SystemExit(f"{plan} does not exist; it must hold the strategies.")
    content = json.loads(plan.read_text(encoding="utf-8"))
    entry = _choose(name, content["strategies"], "strategy")
    common, reference = entry.get("options", {}), entry.get("reference")
    arms = {
        arm: Arm(
            name=arm,
            x=own["x"],
            options={**common, **own["options"]},
            series=own.get("series", ""),
            pretrain=own.get("pretrain"),
            against=own.get("against", reference),
        )
        for arm, own in entry["arms"].items()
    }
    for arm in arms.values():
        unequal = [option for option in EQUAL if option in arm.options]
        if unequal:
            raise SystemExit(f"{plan}: arm {arm.name} sets {', '.join(unequal)}, which must be equal for all arms.")
        for other in (arm.against, reference):
            if other is not None:
                _choose(other, arms, f"arm of {name}")
    chosen = entry.get("networks", list(content["networks"])) if networks is None else networks
    return Strategy(
        name=name,
        title=entry["title"],
        x_label=entry["x_label"],
        arms=arms,
        networks={network: tuple(_choose(network, content["networks"], "network")) for network in chosen},
        stages={stage: tuple(files) for stage, files in content["stages"].items()},
        scale=entry.get("scale", "linear"),
        reference=reference,
    )


def expand(
    strategy: Strategy, configs: Path, seeds: Iterable[int], output_dir: Path, options: Mapping[str, Any]
) -> list[Run]:
    """All runs of a strategy, each below ``<output_dir>/<strategy>/<network>/<arm>/seed_<n>``.

    Args:
        strategy: what to run.
        configs: folder of the config files.
        seeds: each is one repetition of every arm.
        output_dir: root of the folders.
        options: for all runs; a step gets those that its config files know. One that begins with ``pretrain.``,
            ``evaluate.`` or ``train.`` is for that step alone (and the evaluation of what ``train.`` trains).

    Raises:
        SystemExit: an option that no step knows, or that the strategy itself sets.
    """
    _refuse_unused(strategy, configs, options)
    runs = []
    for network, overlays in strategy.networks.items():
        root = output_dir / strategy.name / network
        for arm in strategy.arms.values():
            for seed in seeds:
                before = None
                if arm.pretrain is not None:
                    before = _pretraining(strategy, configs, network, arm.pretrain, seed, root, options)
                folder = root / arm.name / f"seed_{seed}"
                own: dict[str, Any] = {**arm.options, "seed": seed, "output_dir": folder, "ckpt_dir": folder / "models"}
                if before is not None:
                    own["pretrained_path"] = before.result
                files = {stage: _files(strategy, configs, stage, overlays) for stage in ("train", "evaluate")}
                steps = (
                    _step("train", files["train"], options, {**own, "resume": True}),
                    _step("evaluate", files["evaluate"], options, own),
                )
                result = folder / "evaluation" / "metrics.json"
                runs.append(Run(network, arm.name, seed, folder, steps, result, before))
    return runs


def _pretraining(
    strategy: Strategy,
    configs: Path,
    network: str,
    own: Mapping[str, Any],
    seed: int,
    root: Path,
    options: Mapping[str, Any],
) -> Run:
    """The run of pretrain.json that an arm asks for; arms that ask for the same share it."""
    name = "_".join(["pretraining", *(f"{option}_{value}" for option, value in own.items())])
    folder = root / name / f"seed_{seed}"
    where = {"seed": seed, "output_dir": folder, "ckpt_dir": folder / "models", "resume": True}
    files = _files(strategy, configs, "pretrain", strategy.networks[network])
    step = _step("pretrain", files, options, {**own, **where})
    return Run(network, name, seed, folder, (step,), folder / "models" / "model.pt")


def _step(name: str, files: tuple[Path, ...], options: Mapping[str, Any], own: Mapping[str, Any]) -> Step:
    """A step with its own options, those meant for it, and the common ones that its config files know."""
    known = settings_of(files)
    meant = {
        option.removeprefix(f"{prefix}."): value
        for prefix, steps in _STEPS.items()
        for option, value in options.items()
        if option.startswith(f"{prefix}.") and name in steps
    }
    merged = {
        option: str(value) if isinstance(value, Path) else value
        for option, value in {**options, **meant, **own}.items()
        if option.split("#")[0] in known
    }
    return Step(name, files, merged)


def _files(strategy: Strategy, configs: Path, stage: str, overlays: Sequence[str]) -> tuple[Path, ...]:
    """Config files of a stage; a network's overlays come right after the first one."""
    first, *others = strategy.stages[stage]
    paths = tuple(configs / name for name in (first, *overlays, *others))
    for path in paths:
        if not path.is_file():
            raise SystemExit(f"{path} does not exist; strategy {strategy.name} needs it.")
    return paths


def _refuse_unused(strategy: Strategy, configs: Path, options: Mapping[str, Any]) -> None:
    """End the program before anything runs if an option would be lost, or would spoil the comparison."""
    stages = ["train", "evaluate"] + ["pretrain"] * any(arm.pretrain is not None for arm in strategy.arms.values())
    overlays = [name for names in strategy.networks.values() for name in names]
    known = {stage: set(settings_of(_files(strategy, configs, stage, overlays))) for stage in stages}
    for option in options:
        prefix, dot, rest = option.partition(".")
        name = rest if dot else option
        if name in _OWN:
            raise SystemExit(f"--{option} is not for a whole strategy: {_OWN[name]}.")
        if any(name in arm.options for arm in strategy.arms.values()):
            raise SystemExit(f"--{option} is what the arms of {strategy.name} set; change them in strategies.json.")
        keys = known.get(prefix, set()) if dot else set().union(*known.values())
        if name.split("#")[0] not in keys:
            near = difflib.get_close_matches(name, keys, n=1, cutoff=0.5)
            hint = f" Did you mean --{prefix + dot if dot else ''}{near[0]}?" if near else ""
            raise SystemExit(f"--{option} belongs to none of the config files of {strategy.name}.{hint}")


def _choose(name: str, entries: Mapping[str, Any], what: str) -> Any:
    if name not in entries:
        raise SystemExit(f"Unknown {what} {name!r}; there are {', '.join(entries)}.")
    return entries[name]
