"""Cache keys: equal settings give equal keys in any object, any change gives another."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from common.data.fingerprint import file_state, fingerprint
from common.transforms.intensity import FixedWindowd, PercentileWindowd
from common.transforms.slicing import CropOrErrord, RespaceInPlaned


def chain(size: int = 96, spacing_mm: float | None = None, upper: float = 99.5) -> Compose:
    return Compose(
        [
            PercentileWindowd("image", upper=upper),
            RespaceInPlaned("image", spacing_mm),
            CropOrErrord("image", (size, size)),
        ]
    )


def test_equal_settings_have_equal_keys() -> None:
    assert fingerprint(chain()) == fingerprint(chain())
    assert fingerprint({"b": 1, "a": {2, 1}}) == fingerprint({"a": {1, 2}, "b": 1})


def test_use_does_not_change_the_key() -> None:
    transform = chain(8)
    before = fingerprint(transform)
    transform({"image": torch.rand(1, 10, 10, 2)})
    assert fingerprint(transform) == before


@pytest.mark.parametrize(
    "other",
    [chain(size=80), chain(spacing_mm=1.5), chain(upper=99.0), Compose([FixedWindowd("image")]), chain().transforms[0]],
    ids=["crop", "spacing", "percentile", "window", "fewer steps"],
)
def test_every_setting_counts(other: Compose) -> None:
    assert fingerprint(other) != fingerprint(chain())


def test_values_of_arrays_and_bodies_of_functions_count() -> None:
    assert fingerprint(np.arange(3)) != fingerprint(np.arange(3) + 1)
    assert fingerprint(torch.zeros(2)) != fingerprint(torch.zeros(2, 1))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)


def scaled(image: float, factor: float, offset: float = 0.0) -> float:
    return factor * image + offset


def test_bound_arguments_count() -> None:
    """A ``functools.partial`` keeps them outside of its ``__dict__``."""
    first = fingerprint(partial(scaled, 1.0, factor=2.0))
    assert fingerprint(partial(scaled, 1.0, factor=2.0)) == first
    others = [partial(scaled, 1.0, factor=3.0), partial(scaled, 2.0, factor=2.0), partial(chain, 1.0, factor=2.0)]
    assert len({first, *map(fingerprint, others)}) == 4


def test_files_count_with_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("1")
    (tmp_path / "a").write_text("22")
    before = file_state(tmp_path)
    assert [Path(str(name)).name for name, _, _ in before] == ["a", "b"]
    (tmp_path / "a").write_text("33")
    assert file_state(tmp_path) != before


def test_what_cannot_be_described_is_refused() -> None:
    with pytest.raises(TypeError, match="no stable description"):
        fingerprint(iter([1]))


@pytest.mark.slow
def test_other_processes_find_the_same_key() -> None:
    """Hash seeds and object addresses differ between processes; keys must not."""
    code = (
        "from monai.transforms import Compose; from common.transforms.intensity import PercentileWindowd;"
        "from common.data.fingerprint import fingerprint;"
        "print(fingerprint(Compose([PercentileWindowd('image')]), {'x', 'y'}))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split()[-1] == fingerprint(Compose([PercentileWindowd("image")]), {"x", "y"})
