"""Runs of ``run_strategy.py`` side by side, each to its end once, however often the program is started."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from bundle_commands import ROOT
from run_strategy_plan import Run

sys.path.insert(0, str(ROOT))
from common.atomic import write_text

_TAIL = 15  # lines of a log that a message shows


class Queue:
    """Performs runs with ``jobs`` processes at a time, each with its share of the processor cores.

    A folder's ``run.json`` tells what its run depends on and which steps have ended well; those are not repeated.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise SystemExit(f"--jobs {jobs}: at least one process is needed.")
        self.jobs = jobs
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._processes: set[subprocess.Popen] = set()
        self._stopping = False
        self._lock = threading.Lock()

    def perform(self, runs: Sequence[Run], report: Callable[[Run, str | None, float], None]) -> None:
        """Bring all runs to their end; those that others wait for come first.

        Args:
            runs: what to do; a run that fails leaves the others alone, but for those that wait for it.
            report: told of each run as it ends: what went wrong (None: nothing) and the seconds it took.
        """
        first = list({run.before.folder: run.before for run in runs if run.before is not None}.values())
        failed: set[Path] = set()
        for wave in (first, list(runs)):
            with ThreadPoolExecutor(self.jobs) as pool:
                futures = {pool.submit(self._finish, run, failed): run for run in wave}
                try:
                    for future in as_completed(futures):
                        problem, seconds = future.result()
                        if problem is not None:
                            failed.add(futures[future].folder)
                        report(futures[future], problem, seconds)
                except BaseException:  # this program is told to end: its processes with it
                    pool.shutdown(wait=False, cancel_futures=True)
                    self._stop()
                    raise

    def _finish(self, run: Run, failed: set[Path]) -> tuple[str | None, float]:
        begin = time.monotonic()
        if run.before is not None and run.before.folder in failed:
            return f"not started, since {run.before.name} failed", 0.0
        record = _read_record(run) or {"settings": settings_of_run(run), "finished": {}}
        for step in run.steps:
            if step.name in record["finished"] and (step is not run.steps[-1] or run.result.is_file()):
                continue
            start = time.monotonic()
            write_text(run.folder / "run.json", json.dumps(record, indent=2) + "\n")
            log = run.folder / f"{step.name}.log"
            status = self._call(step.command, log)
            if status != 0:
                return f"{step.name} ended with status {status}; the end of {log}:\n{_tail(log)}", 0.0
            if step is run.steps[-1] and not run.result.is_file():
                return f"{step.name} left no {run.result}; see {log}", 0.0
            record["finished"][step.name] = {"seconds": round(time.monotonic() - start, 1)}
            write_text(run.folder / "run.json", json.dumps(record, indent=2) + "\n")
        return None, time.monotonic() - begin

    def _call(self, command: Sequence[str], log: Path) -> int:
        with log.open("a", encoding="utf-8") as file:
            with self._lock:
                if self._stopping:
                    return -1
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
                self._processes.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._processes.discard(process)

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._processes:
                process.terminate()


def settings_of_run(run: Run) -> dict[str, Any]:
    """What the result of a run depends on."""
    steps = [*(run.before.steps if run.before is not None else ()), *run.steps]
    return {step.name: step.settings() for step in steps}


def is_finished(run: Run) -> bool:
    """Whether all steps have ended well."""
    record = _read_record(run)
    return record is not None and run.result.is_file() and all(step.name in record["finished"] for step in run.steps)


def require_same(runs: Sequence[Run]) -> None:
    """End the program if a folder holds a run of other options: its result would not belong to the others.

    Raises:
        SystemExit: names the folder and what is different.
    """
    for run in runs:
        record, ours = _read_record(run), settings_of_run(run)
        if record is None:
            continue
        different = [
            f"{step} {name} {_word(theirs, name)}, here {_word(own, name)}"
            for step in dict.fromkeys([*record["settings"], *ours])
            for theirs, own in [(record["settings"].get(step, {}), ours.get(step, {}))]
            for name in dict.fromkeys([*theirs, *own])
            if theirs.get(name) != own.get(name)
        ]
        if different:
            raise SystemExit(
                f"{run.folder} holds a run of other options ({'; '.join(different)}). Give the same options, name "
                "another --output_dir, or remove that folder."
            )


def _word(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "unset"


def _read_record(run: Run) -> dict[str, Any] | None:
    path = run.folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-_TAIL:])
