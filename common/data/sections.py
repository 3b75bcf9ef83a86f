"""How the cases of a data set are shared out among training, validation and test: one rule per kind of archive.

Every rule goes by patient, and takes and returns lists in the order of the cases.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from .listing import Case
from .splits import SECTIONS, split_of

Rule = Callable[[Sequence[Case]], list[str]]

# Every ten patients in a row of `stratified`: 7 training, 2 validation, 1 test, evenly spread.
_TURNS = tuple({2: "validation", 4: "test", 7: "validation"}.get(turn, "training") for turn in range(10))

_SYNTHRAD_ID = re.compile(r"1[BP](?P<center>[A-C])\d{3}")


def by_hash(dataset: str) -> Rule:
    """By the hash of the patient id, unless the archive itself fixes the section of a case."""

    def rule(cases: Sequence[Case]) -> list[str]:
        return [case.get("section") or split_of(dataset, case["patient"]) for case in cases]

    return rule


def by_archive(dataset: str, most: int) -> Rule:
    """The archive's training and test parts; the last of its training patients are the validation section.

    A ninth of the training patients, ``most`` at most, is held out: the archives of BraTS 2023 and ISLES 2015 have no
    validation part with all images, and a model must not be chosen by its test scores. Where the two parts are not
    both there, all cases are split by hash.

    Args:
        dataset: name that the hash goes by.
        most: patients of the validation section.
    """

    def rule(cases: Sequence[Case]) -> list[str]:
        if {case.get("section") for case in cases} != {"training", "test"}:
            return [split_of(dataset, case["patient"]) for case in cases]
        training = sorted({case["patient"] for case in cases if case["section"] == "training"})
        held_out = _last(training, most)
        return ["validation" if case["patient"] in held_out else case["section"] for case in cases]

    return rule


def by_center(dataset: str, most: int) -> Rule:
    """SynthRAD2023: of the sorted ids of each center every fifth is for test, the last of the others for validation.

    Of the brain, the archive has 60 patients of each of three centers, hence 36 for test and ``3 most`` for validation;
    of the pelvis, 120 and 60 of two, hence 36 and ``2 most``. The split of the publications is not known. Cases with
    other ids are split by hash.

    Args:
        dataset: name that the hash goes by.
        most: patients per center of the validation section.
    """

    def rule(cases: Sequence[Case]) -> list[str]:
        matches = [_SYNTHRAD_ID.fullmatch(case["patient"]) for case in cases]
        centers: dict[str, set[str]] = defaultdict(set)
        for case, match in zip(cases, matches, strict=True):
            if match is None:
                return by_hash(dataset)(cases)
            centers[match["center"]].add(case["patient"])
        homes = {}
        for patients in centers.values():
            ordered = sorted(patients)
            test = set(ordered[4::5])
            held_out = _last([patient for patient in ordered if patient not in test], most)
            for patient in ordered:
                homes[patient] = "test" if patient in test else "validation" if patient in held_out else "training"
        return [homes[case["patient"]] for case in cases]

    return rule


def stratified(dataset: str) -> Rule:
    """7:2:1 for training, validation and test within every ``group``: of 20 patients 14, 4 and 2.

    The patients of a group come in the order of a hash, one group after the other, and every ten in a row are shared
    out alike; so groups and the whole set are as close to 7:2:1 as whole patients allow. A data set that knows no
    groups is one group. Unlike `by_hash`, another list of patients may give a patient another section.

    Args:
        dataset: name that the hash goes by.
    """

    def place(patient: str) -> str:
        return hashlib.md5(f"{dataset}/{patient}".encode(), usedforsecurity=False).hexdigest()

    def rule(cases: Sequence[Case]) -> list[str]:
        """Raises ValueError where the archive itself has a test part, or one patient is in two groups."""
        if any("section" in case for case in cases):
            raise ValueError(
                f"{dataset} itself says who trains and who tests; leave `split` at 'hash', which keeps its parts."
            )
        groups: dict[str, str] = {}
        for case in cases:
            group = case.get("group", "")
            if groups.setdefault(case["patient"], group) != group:
                raise ValueError(f"{case['patient']} is in the groups {groups[case['patient']]!r} and {group!r}.")
        ordered = sorted(groups, key=lambda patient: (groups[patient], place(patient), patient))
        homes = {patient: _TURNS[turn % len(_TURNS)] for turn, patient in enumerate(ordered)}
        return [homes[case["patient"]] for case in cases]

    return rule


def by_request(cases: Sequence[Case], held_out: Sequence[str]) -> list[list[str]]:
    """Sections of each case where the user holds patients out, for cross-validation: they are validation and test.

    Raises:
        ValueError: a name is not a patient of the list, or nobody is left to train with.
    """
    patients = {case["patient"] for case in cases}
    unknown = sorted(set(held_out) - patients)
    if unknown:
        known = ", ".join(sorted(patients)[:6]) + (", ..." if len(patients) > 6 else "")
        raise ValueError(f"held_out names {', '.join(unknown)}, which are not among the patients: {known}.")
    if patients <= set(held_out):
        raise ValueError(f"held_out names all {len(patients)} patients; leave some to train with.")
    _, *evaluation = SECTIONS
    return [evaluation if case["patient"] in held_out else ["training"] for case in cases]


def _last(patients: list[str], most: int) -> set[str]:
    """The last ninth, at least one and not more than ``most``; nobody if there is only one."""
    return set(patients[len(patients) - min(most, max(1, len(patients) // 9)) :]) if len(patients) > 1 else set()
