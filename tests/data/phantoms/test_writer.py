"""Phantom folders: whole or absent, what their name says, independent of processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.phantoms import writer
from common.data.phantoms.writer import array_hash, phantom_name, write_phantom

HEADER = {"kind": "toy", "recipe": 1, "options": {"seed": 0}}


def write_number(folder: Path, job: int) -> dict[str, Any]:
    (folder / f"{job}.txt").write_text(str(job * job))
    return {"number": job, "files": [f"{job}.txt"]}


def write_until_three(folder: Path, job: int) -> dict[str, Any]:
    if job == 3:
        raise OSError("disk full")
    return write_number(folder, job)


def write_after_a_rival(folder: Path, job: int) -> dict[str, Any]:
    if job == 0:
        write_phantom(folder.parent, "toy", HEADER, [7], write_number)
    return write_number(folder, job)


def test_folder_holds_cases_and_manifest_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = write_phantom(tmp_path / "new", "toy", HEADER, [0, 1, 2], write_number)
    assert sorted(p.name for p in folder.iterdir()) == ["0.txt", "1.txt", "2.txt", "manifest.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["toy"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["synthetic"] is True
    assert [entry["number"] for entry in manifest["cases"]] == [0, 1, 2]


def test_failure_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        write_phantom(tmp_path, "toy", HEADER, list(range(5)), write_until_three)
    assert list(tmp_path.iterdir()) == []


def test_existing_phantom_is_returned_untouched(tmp_path: Path) -> None:
    folder = write_phantom(tmp_path, "toy", HEADER, [0, 1], write_number)
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert write_phantom(tmp_path, "toy", HEADER, [0, 1], write_until_three) == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir()}


def test_of_two_writers_the_first_wins_and_both_return_its_folder(tmp_path: Path) -> None:
    folder = write_phantom(tmp_path, "toy", HEADER, [0, 1], write_after_a_rival)
    assert (folder / "7.txt").exists()
    assert not (folder / "1.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "manifest.json").write_text(
                (f / "manifest.json").read_text().replace('"seed": 0', '"seed": 9')
            ),
            r"was made as .*'seed': 9.* its name stands for .*'seed': 0.*delete it",
        ),
        (lambda f: (f / "manifest.json").unlink(), r"no readable manifest.json.*delete it"),
        (lambda f: (f / "manifest.json").write_text("{"), r"no readable manifest.json"),
        (lambda f: (f / "1.txt").unlink(), r"lacks 1.txt"),
    ],
    ids=["other seed", "no manifest", "cut manifest", "missing file"],
)
def test_folder_that_is_not_what_its_name_says_is_an_error(tmp_path: Path, damage: Any, message: str) -> None:
    """And never silently rewritten."""
    folder = write_phantom(tmp_path, "toy", HEADER, [0, 1], write_number)
    damage(folder)
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(ValueError, match=message):
        write_phantom(tmp_path, "toy", HEADER, [0, 1], write_number)
    assert sorted(p.name for p in folder.iterdir()) == before


def test_process_pool_gives_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = []
    for cpus in (1, 3):
        monkeypatch.setattr(writer, "available_cpus", lambda n=cpus: n)
        folder = write_phantom(tmp_path / str(cpus), "toy", HEADER, list(range(13)), write_number)
        manifests.append((folder / "manifest.json").read_text())
    assert manifests[0] == manifests[1]


def test_name_tells_options_and_hashes_unusual_ones() -> None:
    options = {"seed": 4, "cases": 40, "size": 96, "cine": True}
    assert phantom_name("cardiac", "acdc", 1, options, {"cine": True}, 96) == "cardiac-acdc-r1-s4-n40-p96"
    unusual = phantom_name("cardiac", "acdc", 1, {**options, "cine": False}, {"cine": True}, 96)
    assert unusual.startswith("cardiac-acdc-r1-s4-n40-p96-")
    assert len(unusual) == len("cardiac-acdc-r1-s4-n40-p96-") + 8


def test_hash_sees_values_type_shape_and_affine() -> None:
    array = np.arange(6, dtype=np.int16)
    others = [array + 1, array.astype(np.int32), array.reshape(2, 3)]
    assert (
        len({array_hash(a) for a in [array, *others]} | {array_hash(array, np.eye(4)), array_hash(array, -np.eye(4))})
        == 6
    )
    assert array_hash(array[::2]) == array_hash(array[::2].copy())
