"""scripts/make_text_embeddings.py from prompts to the file that trainings read, with a small BiomedCLIP."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from common.data.text_embeddings import read_text_cache, text_tokens

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from biomedclip_files import WIDTH, WORDS, make_biomedclip

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_text_embeddings.py"
TEXTS = {"t1_t2": "Axial brain MRI.", "mr_ct": "Fluid is dark."}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_text_embeddings", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("model") / "biomedclip"
    return folder, make_biomedclip(folder)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(TEXTS))
    return path


def test_training_reads_what_the_text_tower_says(
    script: ModuleType, model: tuple[Path, Any], prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, bert = model
    out = tmp_path / "models" / "embeddings.pt"
    script.make_text_embeddings(str(folder), out=str(out), prompts=str(prompts))
    text = text_tokens("biomedclip", task="mr_ct", dataset="synthrad", cache=out, prompts=prompts)
    ids = torch.tensor([[WORDS.index(piece) for piece in ("[CLS]", "flu", "##id", "is", "dark", ".", "[SEP]")]])
    with torch.no_grad():
        expected = bert(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(text.tokens, expected, atol=2e-6, rtol=0)

    header, entries = read_text_cache(out)
    assert header.provenance == "biomedclip"
    assert header.model == "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
    assert header.revision.startswith("sha256:")
    assert header.open_clip
    assert header.transformers
    assert list(entries) == list(TEXTS)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out}: biomedclip, ")
    assert f"mr_ct          7 tokens of {WIDTH} channels" in printed


def test_without_weights_nothing_is_written(script: ModuleType, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "embeddings.pt"
    with pytest.raises(SystemExit, match=r"error: Pretrained weights are missing\. Needed: open_clip_config\.json"):
        script.make_text_embeddings(str(tmp_path / "nowhere"), out=str(out), prompts=str(prompts))
    assert not out.exists()


def test_missing_prompts_end_with_one_sentence(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: read_prompts: no prompts file at"):
        script.make_text_embeddings(prompts=str(tmp_path / "none.json"))


@pytest.mark.slow
def test_the_command_runs_from_any_folder(model: tuple[Path, Any], prompts: Path, tmp_path: Path) -> None:
    options = ["--model_path", str(model[0]), "--out", str(tmp_path / "x.pt"), "--prompts", str(prompts)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert list(read_text_cache(tmp_path / "x.pt")[1]) == list(TEXTS)
