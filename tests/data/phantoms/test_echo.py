"""The echo phantom: ejection fraction from tracings, moving speckle, files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate

from common.data.phantoms.echo import NUM_CHORDS, EchoCase, write_echo_phantom
from common.data.phantoms.echo_anatomy import VOLUME_FACTOR, Motion, profile, valve_opening
from common.data.phantoms.echo_scanner import PIXEL, SIZE, to_pixels
from common.data.splits import split_of

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echo_phantom(tmp_path_factory.mktemp("phantoms"), cases=3)


@pytest.fixture(scope="module")
def clip() -> tuple[EchoCase, np.ndarray]:
    case = EchoCase(0, 0)
    return case, case.frames().astype(float)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def disc_volume(lines: np.ndarray) -> float:
    """Method of discs: ``sum pi/4 d_i^2 L / n``."""
    lengths = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
    return float(np.pi / 4 * (lengths[1:] ** 2).sum() * lengths[0] / NUM_CHORDS)


def area_length_volume(lines: np.ndarray) -> float:
    """``8 A^2 / (3 pi L)`` from the area that the chords span."""
    lengths = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
    area = lengths[1:].sum() * lengths[0] / NUM_CHORDS
    return float(8 * area**2 / (3 * np.pi * lengths[0]))


def test_ejection_fraction_from_the_tracings_is_the_drawn_one(phantom: Path) -> None:
    """By discs and by area-length, within 2 points; volumes by discs within 2 % of FileList's."""
    tracings: dict[str, dict[int, list[list[float]]]] = {}
    for row in rows(phantom / "VolumeTracings.csv"):
        line = [float(row[key]) for key in ("X1", "Y1", "X2", "Y2")]
        tracings.setdefault(row["FileName"], {}).setdefault(int(row["Frame"]), []).append(line)
    drawn = {e["patient"]: e for e in json.loads((phantom / "manifest.json").read_text())["cases"]}
    for row in rows(phantom / "FileList.csv"):
        frames = tracings[row["FileName"] + ".avi"]
        assert len(frames) == 2
        assert all(len(lines) == 1 + NUM_CHORDS for lines in frames.values())
        ed, es = (np.array(frames[k]) for k in sorted(frames))
        for volume in (disc_volume, area_length_volume):
            assert 100 * (1 - volume(es) / volume(ed)) == pytest.approx(float(row["EF"]), abs=2)
        scale = (PIXEL * drawn[row["FileName"]]["parameters"]["depth_cm"]) ** 3
        assert disc_volume(ed) * scale == pytest.approx(float(row["EDV"]), rel=0.02)
        assert disc_volume(es) * scale == pytest.approx(float(row["ESV"]), rel=0.02)
        assert float(row["EF"]) == pytest.approx(100 * (1 - float(row["ESV"]) / float(row["EDV"])), abs=1e-9)


def test_volume_of_the_bullet() -> None:
    """``pi int w^2 = pi W^2 L (1 - 1/3.2)``, by quadrature."""
    value = integrate.quad(lambda q: np.pi * profile(np.array(q)) ** 2, 0, 1)[0]
    assert pytest.approx(value, rel=1e-9) == VOLUME_FACTOR


@pytest.mark.parametrize("case", range(8))
def test_factors_of_length_and_width_give_the_ejection_fraction(case: int) -> None:
    p = EchoCase(0, case).parameters
    assert p.width_factor**2 * p.length_factor == pytest.approx(1 - p.ef, rel=1e-12)
    assert p.length_factor < 1
    end_systole = Motion(p, 1.0)
    assert end_systole.width / p.width == pytest.approx(p.width_factor)
    assert end_systole.length / p.length == pytest.approx(p.length_factor)


@pytest.mark.parametrize("s", [0.0, 0.5, 1.0])
def test_motion_maps_the_cavity_onto_itself_and_moves_tissue_one_to_one(s: float) -> None:
    """The wall lands on the wall, far tissue stays, nothing folds, and picture coordinates invert."""
    motion = Motion(EchoCase(0, 1).parameters, s)
    p = motion.parameters
    q = np.linspace(0.02, 0.98, 25)
    a0, b0 = motion.material(q * motion.length, motion.width * profile(q))
    np.testing.assert_allclose(a0, q * p.length, atol=1e-12)
    np.testing.assert_allclose(b0, p.width * profile(q), atol=1e-12)
    across = np.linspace(-0.6, 0.6, 201)
    moved = motion.material(np.full_like(across, 0.3 * motion.length), across)[1]
    assert (np.diff(moved) > 0).all()
    np.testing.assert_allclose(moved[[0, -1]], across[[0, -1]], atol=0.01)
    along = np.linspace(-0.1, 1.2, 201)
    assert (np.diff(motion.material(along, np.zeros_like(along))[0]) > 0).all()
    np.testing.assert_allclose(motion.local(*motion.picture(along, across)), (along, across), atol=1e-12)


def test_valve_opens_twice_in_diastole_and_is_closed_in_systole() -> None:
    phases = np.linspace(0, 0.999, 500)
    opening = valve_opening(phases, 0.36)
    assert opening[phases < 0.36].max() == 0
    peaks = np.flatnonzero((opening[1:-1] > opening[:-2]) & (opening[1:-1] >= opening[2:]) & (opening[1:-1] > 0.5)) + 1
    assert len(peaks) == 2
    assert opening[peaks[0]] > opening[peaks[1]]  # E before A


def test_cavity_is_dark_and_its_wall_bright_where_the_tracing_says(clip: tuple[EchoCase, np.ndarray]) -> None:
    case, frames = clip
    for k in (0, case.es_frame):
        chords = case.tracing(k)[4:16]
        inside, wall = [], []
        for x1, y1, x2, y2 in chords:
            for t in np.linspace(0.25, 0.75, 9):
                inside.append(frames[k, round(x1 + t * (x2 - x1)), round(y1 + t * (y2 - y1))])
            wall += [frames[k, round(x1 - 2), round(y1)], frames[k, round(x2 + 2), round(y2)]]
        assert np.mean(wall) > 2 * np.mean(inside)


def test_speckle_moves_with_the_wall(clip: tuple[EchoCase, np.ndarray]) -> None:
    """The next frame's lateral wall matches this one better at the displacement of the tissue than at rest."""
    case, frames = clip
    k = case.es_frame // 2  # fastest contraction
    now, later = (Motion(case.parameters, float(case.contraction[n])) for n in (k - 1, k + 1))
    q = np.linspace(0.3, 0.8, 25)[:, None]
    depth = np.linspace(0.01, 0.05, 6)
    a = q * now.length + 0 * depth
    b = now.width * profile(q) + depth
    material = now.material(a, b)
    grid_a, grid_b = np.meshgrid(np.linspace(0, 0.6, 241), np.linspace(0, 0.35, 141), indexing="ij")
    target = np.stack(later.material(grid_a, grid_b))
    flat = [
        np.argmin((target[0] - u) ** 2 + (target[1] - v) ** 2) for u, v in zip(*map(np.ravel, material), strict=True)
    ]
    moved = grid_a.ravel()[flat], grid_b.ravel()[flat]

    def look(frame: int, motion: Motion, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        x, y = to_pixels(*motion.picture(u, v))
        return frames[frame, np.rint(x).astype(int), np.rint(y).astype(int)]

    before = look(k - 1, now, a.ravel(), b.ravel())
    followed = look(k + 1, later, *moved)
    at_rest = look(k + 1, now, a.ravel(), b.ravel())
    assert np.corrcoef(before, followed)[0, 1] > np.corrcoef(before, at_rest)[0, 1] + 0.05


def test_files_are_those_of_echonet(phantom: Path) -> None:
    """Columns, sizes, split by the hash of the patient, and every clip decodes to the stated frames."""
    assert phantom.name == "echo-echonet-r1-s0-n3-p112"
    table = rows(phantom / "FileList.csv")
    sizes = ["FrameHeight", "FrameWidth", "FPS", "NumberOfFrames"]
    assert list(table[0]) == ["FileName", "EF", "ESV", "EDV", *sizes, "Split"]
    names = {"training": "TRAIN", "validation": "VAL", "test": "TEST"}
    for k, row in enumerate(table):
        assert row["Split"] == names[split_of("echo_phantom", row["FileName"])]
        assert (row["FrameHeight"], row["FrameWidth"], row["FPS"]) == ("112", "112", "50")
        with av.open(str(phantom / "Videos" / f"{row['FileName']}.avi")) as container:
            assert container.streams.video[0].codec_context.name == "mjpeg"
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert frames.shape == (int(row["NumberOfFrames"]), SIZE, SIZE, 3)
        assert np.abs(frames.astype(int) - frames[..., :1]).max() <= 2  # three equal channels
        if k == 0:
            original = EchoCase(0, 0).frames().transpose(0, 2, 1).astype(int)  # (T, rows, columns)
            assert np.abs(frames[..., 0] - original).mean() < 3


def test_default_split_has_patients_in_every_part() -> None:
    parts = [split_of("echo_phantom", f"echo{k:03d}") for k in range(1, 25)]
    assert min(parts.count(part) for part in ("training", "validation", "test")) >= 3


def test_a_clip_is_the_same_in_any_set(phantom: Path, tmp_path: Path) -> None:
    other = write_echo_phantom(tmp_path, cases=2)
    first, second = (json.loads((f / "manifest.json").read_text())["cases"][1] for f in (phantom, other))
    assert first == second


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cases=0"):
        write_echo_phantom(tmp_path, cases=0)
    assert list(tmp_path.iterdir()) == []
