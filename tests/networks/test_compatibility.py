"""Differences between a checkpoint and a network, all in one message."""

import pytest
import torch
from torch import nn

from common.networks.blocks.compatibility import refuse, settings_differences, weight_differences
from common.networks.blocks.recorded_settings import RecordedSettings


def test_settings_are_told_when_called() -> None:
    values = {"kappa": 2.5, "steps": 4, "source": "café", "empty": ""}
    assert RecordedSettings(values)() == values


def test_settings_that_differ_or_are_not_recorded() -> None:
    ours = RecordedSettings({"kappa": 2.0, "steps": 4, "source": "t1n", "window": 8})
    theirs = {"net.settings." + name: value for name, value in ours.state_dict().items()}
    assert settings_differences("Net", ours, theirs, "net.") == []
    theirs["net.settings.kappa"] = torch.tensor(1.5, dtype=torch.float64)
    theirs["net.settings.source"] = torch.tensor(list("café".encode()), dtype=torch.uint8)
    del theirs["net.settings.window"]
    assert settings_differences("Net", ours, theirs, "net.") == [
        "kappa: checkpoint 1.5, this network 2.0",
        "source: checkpoint café, this network t1n",
        "window: checkpoint not recorded, this network 8",
    ]


def test_a_state_dict_without_any_setting_is_another_model_s() -> None:
    ours = RecordedSettings({"kappa": 2.0})
    for state in ({}, {"other.settings.kappa": torch.tensor(2.0)}):
        (line,) = settings_differences("Net", ours, state, "net.")
        assert line.startswith("settings: absent; it was not saved from a Net")


def test_tensors_that_are_absent_on_either_side_or_have_another_shape() -> None:
    module = nn.Linear(3, 2)
    state = {f"net.body.{name}": value for name, value in module.state_dict().items()}
    assert weight_differences(module, state | {"net.head.weight": torch.zeros(1)}, "net.", "body") == []
    changed = {"net.body.weight": torch.zeros(2, 4), "net.body.extra": torch.zeros(5)}
    assert weight_differences(module, changed, "net.", "body") == [
        "body.weight: checkpoint (2, 4), this network (2, 3)",
        "body.bias: checkpoint absent, this network (2,)",
        "body.extra: checkpoint (5,), this network absent",
    ]


@pytest.mark.parametrize(("count", "lines"), [(5, 5), (6, 6), (40, 6)])
def test_a_long_list_is_cut_after_five_lines(count: int, lines: int) -> None:
    module = nn.ParameterList([torch.zeros(1) for _ in range(count)])
    found = weight_differences(module, {}, "", "body")
    assert len(found) == lines
    if count > 5:
        assert found[-1] == f"... and {count - 5} more"


def test_one_error_holds_all_lines_and_none_is_raised_without_any() -> None:
    refuse("Net", [])
    with pytest.raises(ValueError, match=r"^Net: the checkpoint was made for another network:\n  a\n  b\nBuild the"):
        refuse("Net", ["a", "b"])
