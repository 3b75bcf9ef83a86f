"""Who trains, validates and tests: the rule of each archive, in the numbers of the publications."""

from collections import Counter
from collections.abc import Sequence

import pytest

from common.data.cases import DATASETS
from common.data.listing import Case
from common.data.sections import Rule, by_archive, by_center, by_hash, by_request, stratified
from common.data.splits import SECTIONS, require_disjoint, split_of


def cases(patients: Sequence[str], section: str | None = None) -> list[Case]:
    """One case of each patient."""
    part = {} if section is None else {"section": section}
    return [{"patient": patient, "case": f"{patient}-000", **part} for patient in patients]


def brats(start: int, stop: int) -> list[str]:
    return [f"BraTS-GLI-{number:05d}" for number in range(start, stop)]


def counts(sections: Sequence[str]) -> tuple[int, ...]:
    """Cases in training, validation and test."""
    return tuple(Counter(sections)[name] for name in SECTIONS)


def test_brats_has_the_publication_s_patients_less_those_held_out_for_validation() -> None:
    training, test = cases(brats(0, 1251), "training"), cases(brats(1251, 1470), "test")
    sections = DATASETS["brats"].sections(training + test)
    assert counts(sections) == (1251 - 60, 60, 219)
    assert sections[-219:] == ["test"] * 219
    assert sections[1191:1251] == ["validation"] * 60  # the last of the sorted names


def test_isles_has_the_publication_s_patients_less_those_held_out_for_validation() -> None:
    names = [f"training_{number}" for number in range(1, 29)] + [f"testing_{number}" for number in range(1, 37)]
    found = cases(names[:28], "training") + cases(names[28:], "test")
    sections = DATASETS["isles"].sections(found)
    assert counts(sections) == (28 - 3, 3, 36)
    held_out = [name for name, section in zip(names, sections, strict=True) if section == "validation"]
    assert held_out == sorted(names[:28])[-3:]


def synthrad() -> list[str]:
    """60 ids of each center, not consecutive, as in the archive."""
    return [f"1B{center}{3 * number + number // 7:03d}" for center in "ABC" for number in range(60)]


def test_synthrad_has_the_publication_s_numbers_of_patients_in_every_center() -> None:
    names = synthrad()
    sections = DATASETS["synthrad"].sections(cases(names))
    assert counts(sections) == (144 - 9, 9, 36)
    for center in range(3):
        own = sections[60 * center : 60 * (center + 1)]
        assert counts(own) == (45, 3, 12)
        assert [place for place, section in enumerate(own) if section == "test"] == list(range(4, 60, 5))
        assert [place for place, section in enumerate(own) if section == "validation"] == [56, 57, 58]


def test_the_pelvis_is_split_within_each_of_its_two_centers() -> None:
    """120 patients of center A and 60 of C, none of B: every fifth for test, three of each center for validation."""
    names = [f"1PA{number:03d}" for number in range(120)] + [f"1PC{2 * number:03d}" for number in range(60)]
    sections = DATASETS["synthrad_pelvis"].sections(cases(names))
    assert counts(sections[:120]) == (93, 3, 24)
    assert counts(sections[120:]) == (45, 3, 12)
    parts = {
        part: [{"patient": n, "case": n} for n, home in zip(names, sections, strict=True) if home == part]
        for part in SECTIONS
    }
    require_disjoint(parts)


@pytest.mark.parametrize("dataset", ["brats", "isles", "synthrad"])
def test_the_order_of_the_cases_is_of_no_influence(dataset: str) -> None:
    names = synthrad()
    found = cases(names) if dataset == "synthrad" else cases(names[:90], "training") + cases(names[90:], "test")
    rule = DATASETS[dataset].sections
    assert rule(found[::-1]) == rule(found)[::-1]


@pytest.mark.parametrize("rule", [by_archive("brats", 60), by_center("synthrad", 3), by_hash("brats")])
def test_second_visits_stay_with_their_patient(rule: Rule) -> None:
    """Of every third patient, on both sides of every border."""
    names = [f"1BA{number:03d}" for number in range(60)]
    first = cases(names[:50], "training") + cases(names[50:], "test")
    both = first + [{**case, "case": f"{case['patient']}-001"} for case in first[::3]]
    sections: dict[str, list[Case]] = {}
    for case, home in zip(both, rule(both), strict=True):
        sections.setdefault(home, []).append(case)
    assert sections.keys() <= set(SECTIONS)
    assert len(sections) > 1
    require_disjoint(sections)


def test_a_second_visit_counts_once_among_the_held_out() -> None:
    names = brats(0, 18)
    twice = [case for case in cases(names, "training") for _ in (0, 1)]
    sections = by_archive("brats", 60)(twice + cases(["x"], "test"))
    assert counts(sections) == (2 * 16, 2 * 2, 1)


@pytest.mark.parametrize(("patients", "held_out"), [(1, 0), (2, 1), (17, 1), (18, 2), (900, 60)])
def test_a_ninth_is_held_out_unless_that_is_more_than_asked_for(patients: int, held_out: int) -> None:
    found = cases(brats(0, patients), "training") + cases(["x"], "test")
    assert counts(by_archive("brats", 60)(found)) == (patients - held_out, held_out, 1)


@pytest.mark.parametrize("parts", [("training",), ("test",), ()], ids=str)
def test_without_both_parts_of_the_archive_the_hash_decides(parts: tuple[str, ...]) -> None:
    names = brats(0, 50)
    found = [case for part in parts for case in cases(names, part)] or cases(names)
    sections = by_archive("brats", 60)(found)
    assert sections == [split_of("brats", name) for name in names]
    assert set(sections) == set(SECTIONS)


def test_ids_of_another_form_are_split_by_hash() -> None:
    names = [*synthrad(), "TPL001"]
    assert by_center("synthrad", 3)(cases(names)) == [split_of("synthrad", name) for name in names]


def test_the_hash_gives_way_to_a_section_of_the_archive() -> None:
    names = brats(0, 30)
    found = cases(names[:10], "test") + cases(names[10:])
    expected = ["test"] * 10 + [split_of("brain", name) for name in names[10:]]
    assert by_hash("brain")(found) == expected


def test_patients_held_out_by_name_validate_and_test_and_all_others_train() -> None:
    found = cases(["a", "b", "c", "a"])
    homes = by_request(found, ["a"])
    assert homes == [["validation", "test"], ["training"], ["training"], ["validation", "test"]]


def test_names_to_hold_out_must_be_patients_and_leave_some() -> None:
    found = cases([f"p{number}" for number in range(8)])
    with pytest.raises(ValueError, match=r"held_out names p8, x, which are not among the patients: p0, .*p5, \.\.\."):
        by_request(found, ["x", "p1", "p8"])
    with pytest.raises(ValueError, match="held_out names all 8 patients; leave some to train with"):
        by_request(found, [case["patient"] for case in found])


GROUPS = ("NOR", "DCM", "HCM", "MINF", "RV")


def hearts(per_group: int) -> list[Case]:
    """Two frames of every patient, the groups in turn."""
    return [
        {"patient": f"patient{number:03d}", "case": f"patient{number:03d}_frame{frame}", "group": GROUPS[number % 5]}
        for number in range(5 * per_group)
        for frame in ("01", "09")
    ]


def test_of_twenty_patients_of_a_group_14_train_4_validate_and_2_test() -> None:
    found = hearts(20)
    sections = stratified("acdc")(found)
    for group in GROUPS:
        own = [home for case, home in zip(found, sections, strict=True) if case["group"] == group]
        assert counts(own) == (28, 8, 4)  # two frames each
    parts = {part: [c for c, home in zip(found, sections, strict=True) if home == part] for part in SECTIONS}
    require_disjoint(parts)


@pytest.mark.parametrize("patients", [10, 20, 60, 100])
def test_without_groups_the_shares_are_those_of_the_whole(patients: int) -> None:
    shares = counts(stratified("mmwhs_ct")(cases([f"ct_train_{1001 + number}" for number in range(patients)])))
    assert shares == (patients * 7 // 10, patients * 2 // 10, patients // 10)


def test_small_groups_are_shared_out_to_within_one_patient() -> None:
    found = hearts(8)[::2]  # one frame each
    sections = stratified("cardiac_phantom")(found)
    assert counts(sections) == (28, 8, 4)
    for group in GROUPS:
        own = counts([home for case, home in zip(found, sections, strict=True) if case["group"] == group])
        assert all(abs(have - 8 * share) <= 1 for have, share in zip(own, (0.7, 0.2, 0.1), strict=True)), own


def test_the_stratified_split_is_shuffled_and_does_not_hang_on_the_order_of_the_cases() -> None:
    found = hearts(20)
    sections = stratified("acdc")(found)
    assert stratified("acdc")(found[::-1]) == sections[::-1]
    assert stratified("other")(found) != sections
    test = [case["patient"] for case, home in zip(found, sections, strict=True) if home == "test"]
    assert len({int(patient[-3:]) // 25 for patient in test}) > 2  # from all over the list of names


def test_what_cannot_be_stratified_is_said() -> None:
    with pytest.raises(ValueError, match="brats itself says who trains and who tests; leave `split` at 'hash'"):
        stratified("brats")(cases(["a", "b"], "test"))
    twice = [{"patient": "a", "case": "1", "group": "NOR"}, {"patient": "a", "case": "2", "group": "RV"}]
    with pytest.raises(ValueError, match="a is in the groups 'NOR' and 'RV'"):
        stratified("acdc")(twice)
