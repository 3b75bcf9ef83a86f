"""SliceDataset: every slice once, from the right place, whole or not at all on disk."""

import logging
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandFlipd
from torch.utils.data import DataLoader

from common.data.cases import find_cases
from common.data.slices import SliceDataset, ready_batch
from common.data.splits import SECTIONS, leaky_section_of
from common.transforms.intensity import FixedWindowd, ModalityWindowd, PercentileWindowd
from common.transforms.loading import LoadVolumed
from common.transforms.slicing import CropOrErrord

MakeACDC = Callable[..., Path]


def preprocessing(size: int = 10) -> Compose:
    return Compose([LoadVolumed("image"), PercentileWindowd("image"), CropOrErrord("image", (size, size))])


def numbered(folder: Path, frames: int = 2, depth: int = 3) -> list[dict[str, str]]:
    """Three files whose voxels say where they are: 100 file + 10 frame + slice, plus a ramp along x."""
    folder.mkdir(exist_ok=True)
    items = []
    for number in range(3):
        place = 100 * number + 10 * np.arange(frames) + np.arange(depth)[:, None]  # (depth, frames)
        voxels = np.broadcast_to(place, (4, 5, depth, frames)) + np.linspace(0, 4, 4)[:, None, None, None]
        nibabel.save(
            nibabel.Nifti1Image(voxels.astype(np.float32), np.diag([1, 2, 3 + number, 1])), folder / f"{number}.nii.gz"
        )
        items.append({"image": str(folder / f"{number}.nii.gz")})
    return items


def plain() -> Compose:
    return Compose([LoadVolumed("image")])


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "memory"])
def test_every_slice_is_there_once_with_its_place(tmp_path: Path, cached: bool) -> None:
    cache_dir = tmp_path / "cache" if cached else None
    slices = SliceDataset(numbered(tmp_path / "data"), plain(), cache_dir, progress=False)
    assert len(slices) == 3 * 2 * 3
    for index in range(len(slices)):
        item, frame, position = slices.origin[index]
        image = slices[index]["image"]
        assert image.shape == (1, 4, 5)
        assert image.dtype == torch.float32
        assert image[0, 0, 0] == 100 * item + 10 * frame + position
        assert slices.describe(index) == f"{item}.nii.gz, slice {position}, frame {frame}"
        expected = torch.diag(torch.tensor([1.0, 2.0, 3.0 + item, 1.0], dtype=torch.float64))
        expected[2, 3] = position * (3.0 + item)
        torch.testing.assert_close(slices.affine(index), expected)
    assert len({tuple(row) for row in slices.origin.tolist()}) == len(slices)


def test_a_batch_is_the_stack_of_its_items(acdc: MakeACDC, tmp_path: Path) -> None:
    slices = SliceDataset(find_cases("acdc", acdc(3)), preprocessing(), tmp_path / "cache", progress=False)
    indices = [7, 0, 7, 12]
    batch = slices.__getitems__(indices)
    assert batch["index"].tolist() == indices
    assert torch.equal(batch["image"], torch.stack([slices[index]["image"] for index in indices]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_delivers_every_slice_once(acdc: MakeACDC, tmp_path: Path, workers: int) -> None:
    slices = SliceDataset(find_cases("acdc", acdc(3)), preprocessing(), tmp_path / "cache", progress=False)
    loader = DataLoader(slices, batch_size=5, shuffle=True, collate_fn=ready_batch, num_workers=workers)
    seen = torch.cat([batch["index"] for batch in loader])
    assert sorted(seen.tolist()) == list(range(18))


@pytest.mark.parametrize(("storage", "step"), [("float16", 1 / 16), ("uint8", 1 / 2)])
def test_storage_keeps_grey_levels_to_half_a_step(acdc: MakeACDC, storage: str, step: float) -> None:
    items = find_cases("acdc", acdc(2))
    slices = SliceDataset(items, preprocessing(), storage=storage, progress=False)
    exact = torch.cat([preprocessing()(item)["image"].permute(3, 0, 1, 2).as_tensor() for item in items])
    error = (slices.__getitems__(range(len(slices)))["image"] - exact).abs().max().item()
    assert 0 < error <= step + 1e-4
    assert slices.images.dtype == storage


def test_items_of_other_programs_need_only_an_image(acdc: MakeACDC) -> None:
    """MONAI Label passes image and label, no patient and no case."""
    items = [{"image": case["image"], "label": case["label"]} for case in find_cases("acdc", acdc(1))]
    slices = SliceDataset(items, preprocessing(), progress=False)
    assert len(slices) == 6
    assert slices.data == items


def count_calls(transform: Compose) -> tuple[Callable, list[int]]:
    calls: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self.inner = transform

        def __call__(self, item: Any) -> Any:
            calls.append(1)
            return self.inner(item)

    return Counting(), calls


def test_a_cache_is_written_once_and_then_used(acdc: MakeACDC, tmp_path: Path) -> None:
    items = find_cases("acdc", acdc(2))
    transform, calls = count_calls(preprocessing())
    first = SliceDataset(items, transform, tmp_path / "cache", progress=False)
    second = SliceDataset(items, transform, tmp_path / "cache", progress=False)
    assert len(calls) == 4
    np.testing.assert_array_equal(first.images, second.images)
    assert isinstance(second.images, np.memmap)


def test_many_writers_at_once_decode_once(acdc: MakeACDC, tmp_path: Path) -> None:
    items = find_cases("acdc", acdc(2))
    transform, calls = count_calls(preprocessing())
    lengths: list[int] = []

    def build() -> None:
        lengths.append(len(SliceDataset(items, transform, tmp_path / "cache", progress=False)))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [12] * 4
    assert len(calls) == 4


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def test_changed_files_or_settings_get_a_cache_of_their_own(acdc: MakeACDC, tmp_path: Path) -> None:
    items, cache = find_cases("acdc", acdc(2)), tmp_path / "cache"

    def build(size: int = 10, **options: Any) -> SliceDataset:
        return SliceDataset(options.pop("items", items), preprocessing(size), cache, progress=False, **options)

    build()
    for number, options in enumerate(
        ({"size": 8}, {"storage": "uint8"}, {"min_foreground": 0.5}, {"items": items[:3]}), start=2
    ):
        build(**options)
        assert len(folders(cache)) == number
    build()
    assert len(folders(cache)) == 5
    os.utime(items[0]["image"], ns=(1, 1))
    build()
    assert len(folders(cache)) == 6


def test_a_failing_volume_leaves_nothing_behind_and_is_named(acdc: MakeACDC, tmp_path: Path) -> None:
    items, cache = find_cases("acdc", acdc(3)), tmp_path / "cache"
    good = SliceDataset(items[:2], preprocessing(), cache, progress=False)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    bad = Path(items[3]["image"])
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{bad.name} cannot be read"):
        SliceDataset(items, preprocessing(), cache, progress=False)
    assert folders(cache) == [good.folder]
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == before


def test_the_rest_of_a_killed_run_is_cleared_away(acdc: MakeACDC, tmp_path: Path) -> None:
    items, cache = find_cases("acdc", acdc(1)), tmp_path / "cache"
    folder = SliceDataset(items, preprocessing(), cache, progress=False).folder
    assert folder is not None
    folder.rename(cache / f".{folder.name}-4711")  # as if it had been killed before the rename
    (cache / f".{folder.name}-4711" / "origin.npy").unlink()
    assert len(SliceDataset(items, preprocessing(), cache, progress=False)) == 6
    assert folders(cache) == [folder]


BUILD_AND_HANG = """
import sys, time
from pathlib import Path
from common.data.slices import SliceDataset
from common.transforms.loading import LoadVolumed

class Hanging:
    def __call__(self, item):
        if "2.nii.gz" in item["image"]:
            print("decoding", flush=True)
            time.sleep(600)
        return LoadVolumed("image")(item)

folder = Path(sys.argv[1])
items = [{"image": str(folder / f"{number}.nii.gz")} for number in range(3)]
Hanging.__module__, Hanging.__qualname__ = "tests", "Transform"
SliceDataset(items, Hanging(), folder / "cache", progress=False)
"""


@pytest.mark.slow
def test_a_process_killed_while_writing_blocks_nobody(tmp_path: Path) -> None:
    """SIGKILL in the middle: the lock is free, the next process clears the rest and writes the cache."""
    items = numbered(tmp_path)
    command = [sys.executable, "-c", BUILD_AND_HANG, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("decoding" in line for line in process.stdout)
        process.kill()
    assert len(folders(tmp_path / "cache")) == 1  # the unfinished one

    class Transform:
        """The same cache key as the killed one's."""

        def __call__(self, item: Any) -> Any:
            return plain()(item)

    Transform.__module__, Transform.__qualname__ = "tests", "Transform"
    slices = SliceDataset(items, Transform(), tmp_path / "cache", progress=False)
    assert len(slices) == 18
    assert folders(tmp_path / "cache") == [slices.folder]


def test_slices_without_foreground_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    voxels = np.zeros((8, 8, 4), dtype=np.float32)
    voxels[..., 0] = 77.0  # constant
    voxels[0, 0, 1] = 200.0  # one pixel of 64
    voxels[:4, :, 2] = 200.0  # half of the pixels
    voxels[..., 3] += np.linspace(0, 0.9, 8)  # constant up to less than one level
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    transform = Compose([LoadVolumed("image"), FixedWindowd("image")])
    items = [{"image": str(tmp_path / "a.nii.gz")}]
    with caplog.at_level(logging.INFO):
        assert SliceDataset(items, transform, progress=False).origin[:, 2].tolist() == [1, 2]
    assert "2 slices of 1 images; dropped 2 where" in caplog.text
    assert SliceDataset(items, transform, min_foreground=1 / 64, progress=False).origin[:, 2].tolist() == [2]
    with pytest.raises(ValueError, match=r"None of the 4 slices .*a\.nii\.gz.*Lower min_foreground"):
        SliceDataset(items, transform, min_foreground=0.6, progress=False)


def test_random_transforms_are_refused(acdc: MakeACDC) -> None:
    transform = Compose([*preprocessing().transforms, RandFlipd("image", prob=0.5)])
    with pytest.raises(ValueError, match="RandFlipd would be frozen"):
        SliceDataset(find_cases("acdc", acdc(1)), transform)


def test_slices_of_two_sizes_are_refused_by_name(tmp_path: Path) -> None:
    items = numbered(tmp_path / "data")
    nibabel.save(nibabel.Nifti1Image(np.random.rand(6, 5, 2), np.eye(4)), tmp_path / "wide.nii.gz")
    with pytest.raises(ValueError, match=r"wide\.nii\.gz has slices of 6 x 5 pixels, .*0\.nii\.gz of 4 x 5.*crop"):
        SliceDataset([*items, {"image": str(tmp_path / "wide.nii.gz")}], plain(), progress=False)


def test_values_that_the_storage_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2\.nii\.gz has values from 200 .* uint8 cannot hold"):
        SliceDataset(numbered(tmp_path / "data", frames=8), plain(), storage="uint8", progress=False)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    items = numbered(tmp_path / "data")
    with pytest.raises(ValueError, match="must be 'float16' or 'uint8'"):
        SliceDataset(items, plain(), storage="float32")
    with pytest.raises(ValueError, match="min_foreground=1"):
        SliceDataset(items, plain(), min_foreground=1.0)
    with pytest.raises(ValueError, match="list of images is empty"):
        SliceDataset([], plain())


def test_a_pickled_cache_travels_without_its_images(tmp_path: Path) -> None:
    """What spawned loader workers get: the folder's name, not the slices."""
    slices = SliceDataset(numbered(tmp_path / "data"), plain(), tmp_path / "cache", progress=False)
    slices.transform = len  # a picklable stand-in
    copy = pickle.loads(pickle.dumps(slices))
    np.testing.assert_array_equal(copy.images, slices.images)
    assert isinstance(copy.images, np.memmap)
    assert b"images.npy" not in pickle.dumps(slices)


class FakeVolume:
    """Makes 400 kB volumes out of nothing, so that only the data set itself uses memory."""

    def __call__(self, item: Any) -> dict[str, np.ndarray]:
        return {"image": np.random.default_rng(0).random((1, 100, 100, 10), dtype=np.float32) * 255}


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    peaks = []
    for count in (10, 60):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.nii").touch()
        items = [{"image": str(path)} for path in sorted(folder.iterdir())]
        tracemalloc.start()
        slices = SliceDataset(items, FakeVolume(), tmp_path / "cache", progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(slices) == 10 * count
    assert peaks[1] < peaks[0] + 500_000  # 50 more volumes are 10 MB in float16


def pairs(folder: Path) -> list[dict[str, str]]:
    """Three pairs of 3, 6 and 9 slices; target voxels are source voxels plus 1000, whole numbers that float16 holds."""
    sources, targets = (numbered(folder / name, frames=1) for name in ("source", "target"))
    items = []
    for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
        image: Any = nibabel.load(source["image"])
        voxels = np.concatenate([np.rint(image.get_fdata()[..., 0])] * (number + 1), axis=2).astype(np.float32)
        for offset, path in ((0, source["image"]), (1000, target["image"])):
            nibabel.save(nibabel.Nifti1Image(voxels + offset, image.affine), path)
        items.append({"source": source["image"], "target": target["image"]})
    return items


def load_pair() -> Compose:
    return Compose([LoadVolumed(["source", "target"])])


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "memory"])
def test_registered_slices_stay_registered(tmp_path: Path, cached: bool) -> None:
    """Item, batch and loader give the two images of one and the same place."""
    cache_dir = tmp_path / "cache" if cached else None
    slices = SliceDataset(pairs(tmp_path), load_pair(), cache_dir, keys=["source", "target"], progress=False)
    assert len(slices) == 3 + 6 + 9
    for index in range(len(slices)):
        item = slices[index]
        assert item["source"].shape == item["target"].shape == (1, 4, 5)
        assert torch.equal(item["target"], item["source"] + 1000)
        number, _, position = slices.origin[index]
        assert item["source"][0, 0, 0] == 100 * number + position % 3
        assert slices.describe(index) == f"{number}.nii.gz, slice {position}, frame 0"
    loader = DataLoader(slices, batch_size=7, shuffle=True, collate_fn=ready_batch)
    batches = list(loader)
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(18))
    for batch in batches:
        assert torch.equal(batch["target"], batch["source"] + 1000)
        assert torch.equal(batch["source"], torch.stack([slices[int(index)]["source"] for index in batch["index"]]))


def test_the_order_of_the_keys_is_that_of_the_images(tmp_path: Path) -> None:
    items, cache = pairs(tmp_path), tmp_path / "cache"
    there, back = (
        SliceDataset(items, load_pair(), cache, keys=keys, progress=False)
        for keys in (("source", "target"), ("target", "source"))
    )
    assert len(folders(cache)) == 2
    assert torch.equal(there[4]["target"], back[4]["target"])
    np.testing.assert_array_equal(there.images[:, ::-1], back.images)


def test_pairs_on_two_grids_are_refused_by_name(tmp_path: Path) -> None:
    items = pairs(tmp_path)
    image: Any = nibabel.load(items[1]["target"])
    nibabel.save(nibabel.Nifti1Image(image.get_fdata()[..., :5], image.affine), items[1]["target"])
    with pytest.raises(ValueError, match=r"target/1.nii.gz becomes .*4, 5, 5\), .*source/1.nii.gz one of .*6\)"):
        SliceDataset(items, load_pair(), keys=["source", "target"], progress=False)


def test_every_slice_is_kept_if_none_is_to_be_left_out(tmp_path: Path) -> None:
    """Translation's images, whose background is -1 and whose contrast is far below one grey level, stay whole."""
    voxels = np.full((4, 4, 3), -1.0, dtype=np.float32)
    voxels[1, 1, 1] = -0.5
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    items = [{"image": str(tmp_path / "a.nii.gz")}]
    slices = SliceDataset(items, plain(), min_foreground=None, progress=False)
    assert slices.origin[:, 2].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(slices.images[:, 0].transpose(1, 2, 0), voxels)


def test_the_share_of_foreground_is_that_of_the_first_key(tmp_path: Path) -> None:
    first, second = (np.zeros((4, 4, 3), dtype=np.float32) for _ in range(2))
    first[:2, :, 1], second[:2, :, 2] = 200, 200
    for name, voxels in (("source", first), ("target", second)):
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii.gz")
    items = [{name: str(tmp_path / f"{name}.nii.gz") for name in ("source", "target")}]
    slices = SliceDataset(items, load_pair(), keys=["source", "target"], progress=False)
    assert slices.origin[:, 2].tolist() == [1]


def scaled_pair() -> Compose:
    window = ModalityWindowd(["source", "target"], ["t1", "ct"], percentile=100)
    return Compose([*load_pair().transforms, ShiftTarget(), window])


class ShiftTarget:
    """1000..1400 -> -1000..-600, so that targets look like CT."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "target": item["target"] - 2000}


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "memory"])
def test_the_white_level_of_every_volume_is_kept(tmp_path: Path, cached: bool) -> None:
    cache_dir = tmp_path / "cache" if cached else None
    items = pairs(tmp_path)
    last: Any = nibabel.load(items[2]["source"])
    nibabel.save(nibabel.Nifti1Image(3 * last.get_fdata(), last.affine), items[2]["source"])  # so that mean != median
    peaks = [nibabel.load(item["source"]).get_fdata().max() for item in items]
    for _ in range(2):  # written and read again
        slices = SliceDataset(
            items, scaled_pair(), cache_dir, keys=["source", "target"], min_foreground=None, progress=False
        )
        np.testing.assert_allclose(slices.levels, [[peak, 3000] for peak in peaks])
        assert slices.median_level("source") == peaks[1]
        assert slices.median_level("target") == 3000


def test_a_white_level_that_was_not_noted_is_an_error(tmp_path: Path) -> None:
    slices = SliceDataset(pairs(tmp_path), load_pair(), keys=["source", "target"], progress=False)
    assert np.isnan(slices.levels).all()
    with pytest.raises(ValueError, match=r"intensity of 'source' is white; scale it by ModalityWindowd"):
        slices.median_level("source")


def test_further_files_reach_the_transform_and_decide_about_the_cache(tmp_path: Path) -> None:
    """An item may lack them; what else an item holds is of no influence."""
    items = pairs(tmp_path)
    seen: list[set[str]] = []

    class Looking:
        def __call__(self, item: dict[str, Any]) -> Any:
            seen.append(set(item))
            return load_pair()(item)

    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(b"1")
    items[1]["mask"] = str(mask)
    items[2]["patient"] = "p2"

    def build() -> SliceDataset:
        return SliceDataset(
            items, Looking(), tmp_path / "cache", keys=["source", "target"], inputs=["mask"], progress=False
        )

    build()
    assert sorted(seen, key=len) == [{"source", "target"}, {"source", "target"}, {"source", "target", "mask"}]
    items[2]["patient"] = "p3"
    build()
    assert len(seen) == 3
    mask.write_bytes(b"other")
    build()
    assert len(seen) == 6


def test_a_split_by_slice_shares_out_every_slice_once_and_every_image_among_all(tmp_path: Path) -> None:
    """The parts are disjoint and complete as slices, and show the same patients: that is the leak."""
    items = [
        {**item, "patient": name, "case": name} for item, name in zip(numbered(tmp_path, 1, 30), "abc", strict=True)
    ]
    parts = [
        SliceDataset(items, plain(), tmp_path / "cache", leaky_section=section, progress=False) for section in SECTIONS
    ]
    places = [tuple(place) for part in parts for place in part.origin.tolist()]
    assert sorted(places) == [(item, 0, position) for item in range(3) for position in range(30)]
    assert len(parts[0]) > len(parts[1]) > len(parts[2])
    assert all(set(part.patients) == set("abc") for part in parts)
    for part in parts:
        for index, (item, _, position) in enumerate(part.origin.tolist()):
            assert part[index]["image"][0, 0, 0] == 100 * item + position  # the image goes with its place


def test_the_part_of_a_split_by_slice_has_a_cache_of_its_own(tmp_path: Path) -> None:
    items = numbered(tmp_path, 1, 30)
    keys = {
        SliceDataset(items, plain(), leaky_section=section, progress=False).cache_key() for section in (None, *SECTIONS)
    }
    assert len(keys) == 4
    renamed = [{**item, "case": f"x{number}"} for number, item in enumerate(items)]
    assert SliceDataset(renamed, plain(), leaky_section="training", progress=False).cache_key() not in keys


def test_an_unknown_or_empty_part_of_a_split_by_slice_is_refused(tmp_path: Path) -> None:
    items = numbered(tmp_path, 1, 1)[:1]
    with pytest.raises(ValueError, match="leaky_section='train' must be one of training, validation, test"):
        SliceDataset(items, plain(), leaky_section="train", progress=False)
    empty = next(section for section in SECTIONS if section != leaky_section_of("0.nii.gz", 0, 0))
    with pytest.raises(ValueError, match=f"None of the 1 slices .*falls into the {empty} part"):
        SliceDataset(items, plain(), leaky_section=empty, progress=False)
