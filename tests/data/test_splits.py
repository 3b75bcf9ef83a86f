"""Splits go by patient; a split by slice is shown to leak."""

import json
from pathlib import Path

import pytest

from common.data.splits import (
    SECTIONS,
    check_earlier_stages,
    leaky_section_of,
    require_disjoint,
    require_patient_split,
    require_unseen,
    split_of,
    write_split,
)


def patients(count: int) -> list[str]:
    return [f"patient{number:03d}" for number in range(1, count + 1)]


def test_the_default_phantom_splits_into_30_3_and_7_hearts() -> None:
    """The counts that the phantoms' specification measured with its own code."""
    homes = [split_of("cardiac_phantom", patient) for patient in patients(40)]
    assert [homes.count(section) for section in SECTIONS] == [30, 3, 7]


def test_the_split_never_changes() -> None:
    """Known values of md5("acdc/patientXXX") mod 10: trained models rely on them for ever."""
    homes = [split_of("acdc", patient) for patient in patients(10)]
    expected = "training training training training validation training training training training test"
    assert homes == expected.split()


def test_shares_are_70_10_20_percent() -> None:
    homes = [split_of("acdc", patient) for patient in patients(5000)]
    for section, share in zip(SECTIONS, (0.7, 0.1, 0.2), strict=True):
        assert homes.count(section) / 5000 == pytest.approx(share, abs=0.02)


def slices_of(count: int) -> list[dict]:
    """A list with five slices per patient."""
    return [{"patient": p, "case": f"{p}_{number}", "image": "-"} for p in patients(count) for number in range(5)]


def test_a_split_by_patient_is_disjoint_and_a_split_by_slice_is_not() -> None:
    items = slices_of(40)
    by_patient = {name: [i for i in items if split_of("acdc", i["patient"]) == name] for name in SECTIONS}
    require_disjoint(by_patient)
    by_slice = {name: [i for i in items if split_of("acdc", i["case"]) == name] for name in SECTIONS}
    with pytest.raises(ValueError, match="in more than one section"):
        require_disjoint(by_slice)


def test_the_written_split_lists_patients_and_cases(tmp_path: Path) -> None:
    items = slices_of(3)
    write_split(tmp_path / "new" / "split.json", {"training": items[:10], "test": items[10:]})
    content = json.loads((tmp_path / "new" / "split.json").read_text())
    assert content["training"]["patients"] == ["patient001", "patient002"]
    assert content["test"]["cases"] == [f"patient003_{number}" for number in range(5)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["split.json"]


def test_a_leaking_split_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="patient001"):
        write_split(path, {"training": slices_of(1)[:2], "test": slices_of(1)[2:]})
    assert path.read_text() == "old"


def test_patients_of_the_training_are_not_evaluated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The list that a training leaves is compared; without a list that is said."""
    items = slices_of(4)
    path = tmp_path / "split.json"
    require_unseen(path, items)
    assert "cannot be checked" in caplog.text
    write_split(path, {"training": items[:10], "validation": items[10:15]})
    require_unseen(path, items[10:])
    with pytest.raises(ValueError, match=r"1 patient\(s\) to be evaluated were trained on \(patient002\).*held_out"):
        require_unseen(path, items[5:])


def left_by_a_stage(folder: Path, training: str, dataset: str = "synthrad") -> Path:
    """Weights (an empty file) with the split of their training beside them; a patient is a letter."""
    folder.mkdir()
    write_split(folder / "split.json", {"training": cases(training)}, dataset)
    (folder / "model.pt").touch()
    return folder / "model.pt"


def cases(patients: str) -> list[dict]:
    return [{"patient": name, "case": name} for name in patients]


def test_an_earlier_stage_must_not_have_seen_who_is_held_out(tmp_path: Path) -> None:
    first, second = left_by_a_stage(tmp_path / "first", "abc"), left_by_a_stage(tmp_path / "second", "abd")
    check_earlier_stages(
        [first, None, tmp_path / "pretrained"], {"training": cases("ab"), "validation": cases("d")}, "synthrad"
    )
    with pytest.raises(ValueError, match=r"1 patient\(s\) .* trained on \(d\), says .*second.split\.json"):
        check_earlier_stages([first, second], {"training": cases("ab"), "validation": cases("d")}, "synthrad")
    with pytest.raises(ValueError, match=r"trained on \(c\), says .*first"):
        check_earlier_stages([first], {"evaluated": cases("cx")}, "synthrad")


def test_weights_of_other_data_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = left_by_a_stage(tmp_path / "phantom", "abc")
    check_earlier_stages([weights], {"training": cases("ax"), "validation": cases("y")}, "synthrad")
    assert not caplog.text
    check_earlier_stages([weights], {"training": cases("wx"), "validation": cases("y")}, "synthrad")
    assert f"{weights} was trained on none of this run's patients" in caplog.text
    (tmp_path / "phantom" / "split.json").unlink()
    check_earlier_stages([weights], {"training": cases("ax")}, "synthrad")
    assert "it cannot be checked" in caplog.text


def test_patients_of_another_data_set_may_bear_the_same_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = left_by_a_stage(tmp_path / "phantom", "abc", "brain_phantom_synthrad")
    check_earlier_stages([weights], {"training": cases("a"), "validation": cases("b")}, "synthrad")
    assert f"{weights} was trained on brain_phantom_synthrad, this run is on synthrad" in caplog.text


def test_a_split_by_slice_is_let_through_only_where_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    shared = {"training": cases("ab"), "test": cases("b")}
    with pytest.raises(ValueError, match=r"1 patient\(s\) are in more than one section of the split \(b\)"):
        require_patient_split(shared)
    require_patient_split({"training": cases("a"), "test": cases("b")})
    assert not caplog.text
    require_patient_split(shared, "slice")
    assert "scores measure memory" in caplog.text
    with pytest.raises(ValueError, match="Unknown split_level 'frame'; choose one of patient, slice"):
        require_patient_split(shared, "frame")


def test_the_file_of_a_split_by_slice_is_tagged(tmp_path: Path) -> None:
    shared = {"training": cases("ab"), "test": cases("ab")}
    write_split(tmp_path / "leaky.json", shared, "acdc", "slice")
    assert json.loads((tmp_path / "leaky.json").read_text())["leaky_split"] is True
    write_split(tmp_path / "split.json", {"training": cases("a"), "test": cases("b")}, "acdc")
    assert "leaky_split" not in json.loads((tmp_path / "split.json").read_text())


def test_stages_of_a_split_by_slice_pass_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = left_by_a_stage(tmp_path / "first", "ab")
    leaky = {"training": cases("ab"), "test": cases("ab")}
    check_earlier_stages([weights], leaky, "synthrad", "slice")
    require_unseen(tmp_path / "first" / "split.json", cases("a"), "slice")
    assert caplog.text.count("split_level is 'slice'") == 2
    with pytest.raises(ValueError, match="trained on"):
        check_earlier_stages([weights], leaky, "synthrad")


def test_shares_of_a_split_by_slice_are_70_20_10_percent() -> None:
    homes = [leaky_section_of(f"patient{number // 20:03d}_frame01", 0, number % 20) for number in range(5000)]
    for section, share in zip(SECTIONS, (0.7, 0.2, 0.1), strict=True):
        assert homes.count(section) / 5000 == pytest.approx(share, abs=0.02)
