"""What label values mean: indices without gaps, names to go with them."""

import json
from pathlib import Path

import pytest

from common.data.cases import DATASETS
from common.data.label_sets import LABEL_SETS, label_names, label_values


def test_mmwhs_values_in_the_order_of_all_bundles() -> None:
    """The table of the method: index by index, and the published slip 421 read as the left atrium."""
    for dataset in ("mmwhs_ct", "mmwhs_mr", "whole_heart_phantom_ct", "whole_heart_phantom_mr"):
        expected = {0: 0, 500: 1, 600: 2, 420: 3, 550: 4, 205: 5, 820: 6, 850: 7, 421: 3}
        assert label_values(dataset) == expected
    names = label_names("mmwhs_ct")
    assert names[label_values("mmwhs_ct")[421]] == "left atrium"
    assert len(names) == 8


def test_acdc_values_are_indices_already() -> None:
    assert label_values("acdc") == {0: 0, 1: 1, 2: 2, 3: 3}
    assert label_names("cardiac_phantom") == ("background", "right ventricle", "myocardium", "left ventricle")


@pytest.mark.parametrize("dataset", sorted(LABEL_SETS))
def test_every_index_has_a_name_and_every_value_is_one_the_reader_allows(dataset: str) -> None:
    values, names = label_values(dataset), label_names(dataset)
    assert sorted(set(values.values())) == list(range(len(names)))
    assert names[values[0]] == "background"
    assert set(values) == set(DATASETS[dataset].labels)


def test_a_labelled_folder_says_itself_what_its_values_mean(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no labels\.json.*Write one"):
        label_values("labelled_folder", tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps({"values": {"0": "background", "7": "tumor", "3": "liver"}}))
    assert label_values("labelled_folder", tmp_path) == {0: 0, 7: 1, 3: 2}
    assert label_names("labelled_folder", tmp_path) == ("background", "tumor", "liver")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"No label set of 'mmwhs'.* Did you mean mmwhs_"):
        label_values("mmwhs")
    with pytest.raises(ValueError, match=r"No label set of 'echonet' is known\. Known are those of acdc, "):
        label_names("echonet")


def test_the_table_cannot_be_changed_by_who_asks() -> None:
    label_values("acdc")[9] = 9
    assert 9 not in label_values("acdc")
