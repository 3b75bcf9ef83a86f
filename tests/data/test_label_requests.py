"""Label maps of a synthetic set: seeded, nested, from patients that may be used, and said so."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import DataLoader

from common.data.cases import find_cases
from common.data.label_requests import LabelRequests
from common.data.readers.labelled_folder import LabelInfo, read_label_info
from common.data.slices import SliceDataset
from common.data.synthetic_sets import require_training_sources, write_synthetic_set
from common.transforms.loading import LoadVolumed

VALUES, NAMES = {0: 0, 500: 1, 501: 1, 205: 2}, ("background", "cavity", "wall")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    """Slice z of patient p has 10 z labelled pixels, of value 1 + p mod 2; 3 patients of 5 slices."""
    folder = tmp_path_factory.mktemp("volumes")
    items = []
    for patient in range(3):
        label = np.zeros((8, 9, 5), np.uint8)
        for z in range(5):
            plane = np.zeros(72, np.uint8)
            plane[: 10 * z] = 1 + patient % 2
            label[..., z] = plane.reshape(8, 9)
        image = np.random.default_rng(patient).uniform(0, 255, label.shape).astype(np.float32)
        item = {"patient": f"p{patient}", "case": f"p{patient}_ED"}
        for key, voxels in (("image", image), ("label", label)):
            item[key] = str(folder / f"{key}_{patient}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-2.0, -3.0, 8.0 + patient, 1.0])), item[key])
        items.append(item)
    transform = Compose([LoadVolumed(["image", "label"])])
    return SliceDataset(items, transform, keys=("image", "label"), progress=False)


def shift(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A deformation: rows move by 1 to 7, cyclically."""
    return labels.roll(int(torch.randint(1, 8, (), generator=generator)), dims=2)


def where(item: dict[str, Any]) -> tuple[str, int]:
    return item["source_case"], item["source_slice"]


def test_every_large_enough_map_is_used_once_before_any_is_deformed(slices: SliceDataset) -> None:
    requests = LabelRequests(slices, 20, min_label_pixels=20, deform=shift)
    items = [requests[place] for place in range(20)]
    eligible = {(f"p{patient}_ED", z) for patient in range(3) for z in (2, 3, 4)}
    assert len(requests.eligible) == 9
    assert {where(item) for item in items[:9]} == eligible
    assert {where(item) for item in items[9:18]} == eligible
    assert [item["deformed"] for item in items] == [False] * 9 + [True] * 11
    assert [where(item) for item in items[:9]] != [where(item) for item in items[9:18]]


def test_an_item_is_its_source_with_its_place_in_space(slices: SliceDataset) -> None:
    for place in range(9):
        item = LabelRequests(slices, 9, min_label_pixels=20, seed=4)[place]
        patient = int(item["source_patient"][1])
        expected = slices[[tuple(row) for row in slices.origin.tolist()].index((patient, 0, item["source_slice"]))]
        assert torch.equal(item["label"].as_tensor(), expected["label"])
        assert torch.equal(item["image"], expected["image"])
        assert item["label"].dtype == torch.float32
        assert item["label"].affine[2, 2] == 8 + patient
        assert item["label"].affine[2, 3] == item["source_slice"] * (8 + patient)
        assert item["source_case"] == f"p{patient}_ED"
        assert (item["index"], item["case"]) == (place, f"sample_{place:06d}")


def test_a_smaller_set_is_the_beginning_of_a_larger_one_wherever_it_starts(slices: SliceDataset) -> None:
    options: dict[str, Any] = {"min_label_pixels": 20, "seed": 1, "deform": shift}
    large = LabelRequests(slices, 30, **options)
    small, late = LabelRequests(slices, 12, **options), LabelRequests(slices, 18, start=12, **options)
    for place in (11, 3, 0, 29, 12, 20):  # in any order
        part = small[place] if place < 12 else late[place - 12]
        assert torch.equal(part["label"].as_tensor(), large[place]["label"].as_tensor())
        assert part["index"] == large[place]["index"] == place
        assert where(part) == where(large[place])


def test_another_seed_is_another_order(slices: SliceDataset) -> None:
    orders = [[where(LabelRequests(slices, 9, min_label_pixels=20, seed=seed)[n]) for n in range(9)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert set(orders[0]) == set(orders[1])


def test_deformed_maps_are_new_maps_of_the_same_labels(slices: SliceDataset) -> None:
    requests = LabelRequests(slices, 36, min_label_pixels=20, deform=shift)
    for place in range(9, 36):
        item = requests[place]
        original = slices[requests.source(place)]["label"]
        assert not torch.equal(item["label"].as_tensor(), original)
        assert torch.equal(item["label"].unique(), original.unique())
        assert "image" not in item  # it would not be the map's
    draws = {tuple(requests[place]["label"].flatten().tolist()) for place in range(9, 36)}
    assert len(draws) > 9  # more than one deformation of each


def test_a_deformation_that_loses_the_heart_is_drawn_again(slices: SliceDataset) -> None:
    tries: list[int] = []

    def lose(labels: Tensor, generator: torch.Generator) -> Tensor:
        tries.append(1)
        return labels * (torch.rand((), generator=generator) < 0.4)

    requests = LabelRequests(slices, 18, min_label_pixels=20, deform=lose)
    assert all(torch.count_nonzero(requests[place]["label"]) >= 20 for place in range(9, 18))
    assert len(tries) > 9
    nothing = LabelRequests(slices, 18, min_label_pixels=20, deform=lambda labels, _: labels * 0)
    with pytest.raises(ValueError, match=r"20 deformations of .*slice .* all left fewer than 20 labelled pixels"):
        nothing[9]


@pytest.mark.parametrize("mixing", [lambda labels, _: labels * 0.5, lambda labels, _: labels[..., :4]])
def test_a_deformation_that_mixes_labels_is_refused(slices: SliceDataset, mixing: Any) -> None:
    with pytest.raises(ValueError, match="it must move labels, not mix them"):
        LabelRequests(slices, 18, min_label_pixels=20, deform=mixing)[9]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"number": 10}, r"up to number 10 are asked for, but only 9 label maps have 20 labelled pixels"),
        ({"number": 5, "start": 5}, "up to number 10"),
        ({"number": 0}, "number=0"),
        ({"number": 1, "min_label_pixels": 41}, r"none of the 15 label maps has 41 .*the most has 40"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(slices: SliceDataset, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        LabelRequests(slices, **{"min_label_pixels": 20, **options})


def test_empty_maps_are_never_used(slices: SliceDataset) -> None:
    assert len(LabelRequests(slices, 1, min_label_pixels=0).eligible) == 12


def test_a_loader_makes_batches(slices: SliceDataset) -> None:
    from monai.data import list_data_collate

    requests = LabelRequests(slices, 12, min_label_pixels=20, deform=shift)
    batches = list(DataLoader(requests, batch_size=5, collate_fn=list_data_collate))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(12))
    assert batches[0]["label"].shape == (5, 1, 8, 9)


# -- what a set says about itself --------------------------------------------------------------------------------------


def write(folder: Path, requests: LabelRequests, **settings: Any) -> None:
    write_synthetic_set(
        folder,
        requests,
        label_values=VALUES,
        label_names=NAMES,
        dataset="acdc",
        settings={"weights": "model.pt", "mode": "S", **settings},
    )


def touch_pairs(folder: Path, numbers: range) -> None:
    for part in ("images", "labels"):
        (folder / part).mkdir(exist_ok=True)
        for number in numbers:
            (folder / part / f"sample_{number:06d}.nii.gz").touch()


def test_a_set_is_read_back_with_the_patients_of_its_label_maps(slices: SliceDataset, tmp_path: Path) -> None:
    requests = LabelRequests(slices, 4, min_label_pixels=20)
    write(tmp_path, requests)
    touch_pairs(tmp_path, range(4))
    cases = find_cases("labelled_folder", tmp_path)
    assert [case["patient"] for case in cases] == [requests[place]["source_patient"] for place in range(4)]
    patients = {case["patient"] for case in cases}
    expected = LabelInfo({0: "background", 500: "cavity", 205: "wall"}, True, tuple(sorted(patients)), "acdc")
    assert read_label_info(tmp_path) == expected
    assert requests.source_patients == sorted(patients)


def test_a_set_grows_and_its_patients_with_it(slices: SliceDataset, tmp_path: Path) -> None:
    write(tmp_path, LabelRequests(slices, 2, min_label_pixels=20))
    write(tmp_path, LabelRequests(slices, 7, min_label_pixels=20, start=2))
    with (tmp_path / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole = LabelRequests(slices, 9, min_label_pixels=20)
    assert [row["file"] for row in rows] == [f"sample_{number:06d}.nii.gz" for number in range(9)]
    assert [row["patient"] for row in rows] == [whole.patient(number) for number in range(9)]
    assert json.loads((tmp_path / "labels.json").read_text())["source_patients"] == ["p0", "p1", "p2"]


def test_sets_of_other_settings_are_not_mixed(slices: SliceDataset, tmp_path: Path) -> None:
    write(tmp_path, LabelRequests(slices, 2, min_label_pixels=20))
    before = (tmp_path / "labels.json").read_text()
    with pytest.raises(ValueError, match=r"other settings \(weights model\.pt, here other\.pt; label_seed 0, here 1\)"):
        write(tmp_path, LabelRequests(slices, 2, min_label_pixels=20, seed=1), weights="other.pt")
    with pytest.raises(ValueError, match=r"\(label_maps 9, here 6; min_label_pixels 20, here 30\)"):
        write(tmp_path, LabelRequests(slices, 2, min_label_pixels=30))
    assert (tmp_path / "labels.json").read_text() == before
    (tmp_path / "labels.json").unlink()
    touch_pairs(tmp_path, range(1))
    with pytest.raises(ValueError, match=r"holds images, but no labels\.json"):
        write(tmp_path, LabelRequests(slices, 2, min_label_pixels=20))


def test_a_set_from_label_maps_of_test_patients_cannot_be_trained_with(
    slices: SliceDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, LabelRequests(slices, 9, min_label_pixels=20))

    def sections(test: str) -> dict[str, list[dict[str, str]]]:
        others = [name for name in ("p0", "p1", "p2", "p3") if name != test]
        return {"training": [{"patient": name} for name in others], "test": [{"patient": test}]}

    require_training_sources(tmp_path, "acdc", sections("p3"))
    with pytest.raises(ValueError, match=r"1 patient\(s\) that are not for training here \(p1\)"):
        require_training_sources(tmp_path, "acdc", sections("p1"))
    assert not caplog.records
    require_training_sources(tmp_path, "cardiac_phantom", sections("p1"))
    assert "was made from acdc, this run is on cardiac_phantom" in caplog.text
    (tmp_path / "labels.json").write_text('{"values": {"0": "background"}}')
    require_training_sources(tmp_path, "acdc", sections("p1"))


def test_only_training_patients_may_be_the_sources_of_a_training_set(slices: SliceDataset, tmp_path: Path) -> None:
    """A patient that is in no section of the training, because it is for test, is none of them."""
    write(tmp_path, LabelRequests(slices, 9, min_label_pixels=20))
    training = [{"patient": name} for name in ("p0", "p1", "p2", "p7")]
    require_training_sources(tmp_path, "acdc", {"training": training, "validation": [{"patient": "p8"}]})
    with pytest.raises(ValueError, match=r"1 patient\(s\) that are not for training here \(p2\)"):
        require_training_sources(tmp_path, "acdc", {"training": training[:2], "validation": [{"patient": "p8"}]})


def test_whom_the_generator_was_trained_on_is_in_its_samples(slices: SliceDataset, tmp_path: Path) -> None:
    split = {"dataset": "acdc", "training": {"patients": ["p5"], "cases": []}}
    (tmp_path / "split.json").write_text(json.dumps(split))
    folder = tmp_path / "set"
    requests = LabelRequests(slices, 9, min_label_pixels=20)
    write_synthetic_set(
        folder,
        requests,
        label_values=VALUES,
        label_names=NAMES,
        dataset="acdc",
        settings={"seed": 0},
        weights=[tmp_path / "model.pt", None],
    )
    info = read_label_info(folder)
    assert info is not None
    assert set(info.source_patients) == {"p0", "p1", "p2", "p5"}
    with pytest.raises(ValueError, match=r"\(p5\)"):
        require_training_sources(folder, "acdc", {"evaluated": [{"patient": "p5"}]})
