"""The echo phantom: apical four-chamber clips with known ejection fraction, in the layout of EchoNet-Dynamic."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..splits import split_of
from .cycle import contraction
from .echo_anatomy import HIGH, LOW, Motion, draw_parameters, profile, valve_opening
from .echo_scanner import SIZE, EchoScanner, lattice_shape, to_pixels
from .random_field import SmoothField
from .streams import ANATOMY, NOISE, SCANNER, Stream
from .writer import array_hash, phantom_name, write_phantom

RECIPE_VERSION = 1
NUM_CHORDS = 20
_SPLIT_NAMES = {"training": "TRAIN", "validation": "VAL", "test": "TEST"}
_FILE_LIST = "FileList.csv"
_TRACINGS = "VolumeTracings.csv"


@dataclass(frozen=True)
class EchoJob:
    """One clip to be written."""

    case: int
    seed: int


class EchoCase:
    """One clip before it is written: its parameters, phases and frames."""

    def __init__(self, seed: int, case: int) -> None:
        self.seed, self.case = seed, case
        anatomy = Stream(seed, "echo", case, ANATOMY)
        self.parameters = p = draw_parameters(anatomy)
        self._texture = SmoothField.draw(anatomy, 0.035, LOW, HIGH)
        self._scatterers = anatomy.normals(2, *lattice_shape())
        scanner = Stream(seed, "echo", case, SCANNER)
        self._clutter = SmoothField.draw(scanner, 0.12, (0, -1), (1, 1))
        self._window = SmoothField.draw(scanner, 0.3, (0, -1), (1, 1))
        self.phases = np.mod(np.arange(p.num_frames) * (p.heart_rate / 60 / p.frame_rate), 1.0)
        self.contraction = contraction(self.phases, p.es_phase)
        self.opening = valve_opening(self.phases, p.es_phase)
        self.es_frame = int(self.contraction.argmax())

    def frames(self) -> NDArray[np.uint8]:
        """Pictures (T, X, Y)."""
        scanner = EchoScanner(self.parameters, self._texture, self._clutter, self._window, self._scatterers)
        return np.stack(
            [
                scanner.frame(float(s), float(o), Stream(self.seed, "echo", self.case, NOISE, k))
                for k, (s, o) in enumerate(zip(self.contraction, self.opening, strict=True))
            ]
        )

    def tracing(self, frame: int) -> NDArray[np.float64]:
        """Lines (1 + NUM_CHORDS, 4) as (x1, y1, x2, y2) in pixels: the long axis, then chords at the discs' middles."""
        motion = Motion(self.parameters, float(self.contraction[frame]))
        q = (np.arange(NUM_CHORDS) + 0.5) / NUM_CHORDS
        half = motion.width * profile(q)
        a = np.concatenate([[0.0], q * motion.length])
        start = np.concatenate([[0.0], -half])
        end = np.concatenate([[0.0], half])
        x1, y1 = to_pixels(*motion.picture(a, start))
        a[0] = motion.length
        x2, y2 = to_pixels(*motion.picture(a, end))
        return np.stack([x1, y1, x2, y2], axis=1)


def write_echo_phantom(root: str | Path, *, cases: int = 24, seed: int = 0) -> Path:
    """Write the phantom below ``root`` unless it is there, and return its folder.

    ``Videos/<id>.avi`` (MJPEG, 112 x 112, 50 frames/s), ``FileList.csv`` with ejection fraction (percent), volumes (mL)
    and split, and ``VolumeTracings.csv`` with the long axis and 20 chords of the end-diastolic and end-systolic frame.

    Args:
        cases: number of clips, one patient each.
    """
    if cases < 1:
        raise ValueError(f"write_echo_phantom: cases={cases} must be at least 1.")
    options = {"cases": cases, "seed": seed}
    name = phantom_name("echo", "echonet", RECIPE_VERSION, options, {}, SIZE)
    header = {"kind": "echo", "layout": "echonet", "recipe": RECIPE_VERSION, "options": options}
    return write_phantom(root, name, header, [EchoJob(k, seed) for k in range(cases)], write_case, write_tables)


def write_case(folder: Path, job: EchoJob) -> dict[str, Any]:
    """Write one clip below ``folder`` and return its entry of the manifest."""
    case = EchoCase(job.seed, job.case)
    p = case.parameters
    patient = f"echo{job.case + 1:03d}"
    frames = case.frames()
    path = folder / "Videos" / f"{patient}.avi"
    path.parent.mkdir(exist_ok=True)
    save_avi(path, frames.transpose(0, 2, 1), round(p.frame_rate))
    return {
        "patient": patient,
        "case": job.case,
        "parameters": asdict(p),
        "edv_ml": p.edv_ml,
        "esv_ml": p.edv_ml * (1 - p.ef),
        "tracings": {str(k): case.tracing(k).tolist() for k in (0, case.es_frame)},
        "files": [f"Videos/{patient}.avi"],
        "hashes": {"frames": array_hash(frames)},
    }


def save_avi(path: Path, frames: NDArray[np.uint8], frame_rate: int) -> None:
    """Write grey frames (T, rows, columns) as MJPEG with three equal channels."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=frame_rate, options={"qmin": "2", "qmax": "2"})
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuvj420p"
        for frame in frames:
            rgb = np.repeat(np.ascontiguousarray(frame)[..., None], 3, axis=-1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))


def write_tables(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Write FileList.csv and VolumeTracings.csv."""
    with open(folder / _FILE_LIST, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames", "Split"])
        for entry in entries:
            p = entry["parameters"]
            split = _SPLIT_NAMES[split_of("echo", entry["patient"])]
            volumes = [100 * p["ef"], entry["esv_ml"], entry["edv_ml"]]
            table.writerow([entry["patient"], *volumes, SIZE, SIZE, round(p["frame_rate"]), p["num_frames"], split])
    with open(folder / _TRACINGS, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["FileName", "X1", "Y1", "X2", "Y2", "Frame"])
        for entry in entries:
            for frame, lines in entry["tracings"].items():
                table.writerows([f"{entry['patient']}.avi", *line, frame] for line in lines)
