"""In the place of ``python -m monai.bundle run``: notes its options, fails where told to, leaves weights or a report.

Told by the environment: FAKE_FAIL, a text that makes a command fail whose options contain it; FAKE_COMPANY, how many
commands must have been started before one ends; FAKE_SLEEP, seconds to wait.
"""

import ast
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    arguments = sys.argv[1:]
    assert arguments[0] == "run", arguments
    options = {name[2:]: value for name, value in zip(arguments[1::2], arguments[2::2], strict=True)}
    files = options["config_file"]
    names = [Path(file).name for file in (ast.literal_eval(files) if files.startswith("[") else [files])]
    folder = Path(options["output_dir"])
    call = {"step": names[-1], "files": names, "options": options, "threads": os.environ["OMP_NUM_THREADS"]}
    with (folder / "calls.txt").open("a") as file:
        file.write(json.dumps(call) + "\n")
    print(f"fake {names} in {folder}")
    wait(folder)
    failing = os.environ.get("FAKE_FAIL")
    if failing and failing in " ".join(arguments):
        print("error: the fake was told to fail")
        sys.exit(3)
    if names[-1] == "evaluate.json":
        write_report(folder / "evaluation" / "metrics.json", options)
    else:
        weights = Path(options["ckpt_dir"]) / "model.pt"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_text("weights")


def wait(folder: Path) -> None:
    company = int(os.environ.get("FAKE_COMPANY", "0"))
    if company:
        root = Path(os.environ["FAKE_ROOT"])
        (root / f"started_{os.getpid()}").touch()
        end = time.monotonic() + 30
        while len(list(root.glob("started_*"))) < company:
            if time.monotonic() > end:
                sys.exit(4)
            time.sleep(0.01)
    time.sleep(float(os.environ.get("FAKE_SLEEP", "0")))


def write_report(path: Path, options: dict[str, str]) -> None:
    """Dice 0.5 + synthetic / 1000 + 0.1 where augmented, and by seed 0, 0.01, 0.05 more."""
    dice = 0.5 + int(options["num_synthetic"]) / 1000 + 0.1 * (options["augment"] == "True")
    dice += [0.0, 0.01, 0.05][int(options["seed"])]
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = {"cavity": {"dice": dice + 0.1}, "wall": {"dice": dice - 0.1}, "absent": {"dice": None}}
    report = {"network_grid": {"mean_dice": dice, "classes": classes}, "native_grid": {"mean_dice": dice - 0.02}}
    path.write_text(json.dumps({"protocols": report}))


main()
