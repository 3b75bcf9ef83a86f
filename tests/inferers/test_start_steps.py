"""One channel per start step, each from its own inferer."""

from typing import Any

import pytest
import torch
from monai.inferers import Inferer
from torch import Tensor

from common.inferers.start_steps import StartSteps


class AddStart(Inferer):
    """The network's answer plus the start step."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        return network(inputs) + self.start + kwargs["index"].reshape(-1, 1, 1, 1)


def test_channel_s_is_what_the_inferer_of_start_s_makes() -> None:
    inputs = torch.rand(2, 1, 4, 4)
    index = torch.tensor([100, 200])
    found = StartSteps(AddStart, [0, 5, 50])(inputs, lambda x: 2 * x, index=index)
    assert found.shape == (2, 3, 4, 4)
    expected = 2 * inputs + torch.tensor([0, 5, 50]).reshape(1, 3, 1, 1) + index.reshape(2, 1, 1, 1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("starts", [[], [5, 0], [5, 5]])
def test_steps_that_do_not_rise_are_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match="each larger than the last"):
        StartSteps(AddStart, starts)
