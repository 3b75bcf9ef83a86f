"""A run that fails says why in its last line."""

import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose

from common.engines.failure import is_deliberate, root_cause
from common.transforms.loading import LoadVolume


def failure(config: dict, key: str) -> Exception:
    """What resolving ``key`` raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        ConfigParser(config).get_parsed_content(key)
    return caught.value


def test_the_cause_below_monais_wrappers_is_found() -> None:
    config = {"load": {"_target_": "common.transforms.loading.LoadVolume"}, "run": "$@load('nowhere.png')"}
    error = failure(config, "run")
    assert "nowhere.png does not exist" not in str(error)
    assert str(root_cause(error)) == "nowhere.png does not exist."
    assert is_deliberate(root_cause(error))


def test_an_error_with_a_cause_of_its_own_is_not_unwrapped_further(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadVolume()])(tmp_path / "a.png")
    assert "is truncated or not a picture" in str(root_cause(caught.value))


def test_errors_of_other_code_are_not_deliberate() -> None:
    """Python's own errors inside this library and those of MONAI: their message alone says too little."""
    wrong_argument = failure(
        {"x": {"_target_": "common.engines.sampler.EpochSampler", "dataset": 3, "batch_size": 1}}, "x"
    )
    assert isinstance(root_cause(wrong_argument), TypeError)
    assert not is_deliberate(root_cause(wrong_argument))
    assert not is_deliberate(failure({"x": {"_target_": "no.such.Thing"}}, "x"))


@pytest.mark.parametrize(
    ("statement", "shown", "traceback"),
    [
        ("require_folder(Path('nowhere'), 'pictures')", "error: The data folder nowhere does not exist", False),
        ("require_folder(3, 'pictures')", "error: AttributeError: ", True),
    ],
)
def test_the_message_is_the_last_line(statement: str, shown: str, traceback: bool) -> None:
    program = (
        "from pathlib import Path; from common.engines.failure import report_failures;"
        f"from common.data.listing import require_folder; report_failures(); {statement}"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(shown)
    assert ("Traceback" in run.stderr) == traceback
