"""BiomedCLIP's text tower from small files of its format."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.networks.encoders.biomedclip import MODEL, TEXT, BiomedCLIPText
from common.networks.encoders.hub import HubFiles, find_files

sys.path.insert(0, str(Path(__file__).parent))
from biomedclip_files import CONTEXT, REPOSITORY, WIDTH, WORDS, make_biomedclip
from hub_cache import as_cache

pytestmark = pytest.mark.usefixtures("network")

PROMPT = "Axial brain MRI. Fluid is dark."
PIECES = ["[CLS]", "axial", "brain", "mri", ".", "flu", "##id", "is", "dark", ".", "[SEP]"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder laid out as BiomedCLIP's, and the BERT that its text tower is."""
    folder = tmp_path_factory.mktemp("model") / "biomedclip"
    return folder, make_biomedclip(folder)


@pytest.fixture
def folder(original: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original[0], tmp_path / "biomedclip"))


def direct(bert: Any, pieces: list[str]) -> torch.Tensor:
    """The BERT itself on the padded sequence with its mask, padding cut off afterwards."""
    ids = torch.tensor([[WORDS.index(piece) for piece in pieces] + [0] * (CONTEXT - len(pieces))])
    with torch.no_grad():
        return bert(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state[0, : len(pieces)]


def test_tokens_are_the_states_of_the_same_bert_without_padding(original: tuple[Path, Any]) -> None:
    folder, bert = original
    text, short = BiomedCLIPText(folder).encode_tokens([PROMPT, "dark"])
    assert text.ids.tolist() == [WORDS.index(piece) for piece in PIECES]
    assert short.ids.tolist() == [WORDS.index(piece) for piece in ("[CLS]", "dark", "[SEP]")]
    assert text.tokens.dtype == torch.float32
    assert text.tokens.shape == (len(PIECES), WIDTH)
    assert not text.tokens.requires_grad
    torch.testing.assert_close(text.tokens, direct(bert, PIECES), atol=2e-6, rtol=0)
    torch.testing.assert_close(short.tokens, direct(bert, ["[CLS]", "dark", "[SEP]"]), atol=2e-6, rtol=0)


def test_local_files_need_no_network(folder: Path, network: list[Any]) -> None:
    BiomedCLIPText(folder).encode_tokens([PROMPT])
    assert network == []


def test_safetensors_pickle_and_cache_give_the_same_tokens(folder: Path, tmp_path: Path, network: list[Any]) -> None:
    from safetensors.torch import save_file

    pickled = BiomedCLIPText(folder)
    as_cache(folder, tmp_path / "cache", MODEL, TEXT)
    cached = BiomedCLIPText()
    weights = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_pytorch_model.bin").unlink()
    safe = BiomedCLIPText(folder)
    expected = pickled.encode_tokens([PROMPT])[0].tokens
    assert torch.equal(cached.encode_tokens([PROMPT])[0].tokens, expected)
    assert torch.equal(safe.encode_tokens([PROMPT])[0].tokens, expected)
    assert network == []
    assert cached.revision == "a" * 40
    assert pickled.revision.startswith("sha256:")
    assert pickled.revision != safe.revision


def test_prompt_beyond_the_context_is_refused_not_cut(original: tuple[Path, Any]) -> None:
    encoder = BiomedCLIPText(original[0])
    assert len(encoder.encode_tokens(["dark " * (CONTEXT - 2)])[0].ids) == CONTEXT
    with pytest.raises(ValueError, match=f"a prompt of {CONTEXT + 1} tokens exceeds BiomedCLIP's {CONTEXT}; shorten"):
        encoder.encode_tokens(["dark " * (CONTEXT - 1)])


def test_words_outside_the_vocabulary_are_refused(original: tuple[Path, Any]) -> None:
    with pytest.raises(ValueError, match="a word of the prompt is not in the vocabulary: 'axial kidney'"):
        BiomedCLIPText(original[0]).encode_tokens(["axial kidney"])


def without_text_tower(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith("text.")}


def without_one_layer(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if ".layer.1.output.dense" not in name}


def without_numbers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = "text.transformer.encoder.layer.0.output.dense.weight"
    return {**weights, name: torch.full_like(weights[name], torch.nan)}


def of_another_width(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([value, value], -1) if value.ndim else value for name, value in weights.items()}


@pytest.mark.parametrize("change", [without_text_tower, without_one_layer, without_numbers, of_another_width])
def test_incomplete_weights_are_refused(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], folder: Path
) -> None:
    path = folder / "open_clip_pytorch_model.bin"
    torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(RuntimeError, match="BiomedCLIP's files cannot be used") as error:
        BiomedCLIPText(folder)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_config.json", "text/config.json"])
def test_truncated_files_are_refused(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(RuntimeError, match="cut short, or a git-lfs pointer"):
        BiomedCLIPText(folder)


def test_truncated_safetensors_are_refused(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True), folder / "whole")
    content = (folder / "whole").read_bytes()
    (folder / "open_clip_model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(RuntimeError, match="cut short, or a git-lfs pointer"):
        BiomedCLIPText(folder)  # although a whole pickle lies beside it


def test_weights_that_open_clip_left_random_are_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader that silently did nothing, as open_clip did before ``require_pretrained``."""
    monkeypatch.setattr("open_clip.factory.load_checkpoint", lambda *_, **__: {})
    with pytest.raises(RuntimeError, match=r"text\.transformer\.\S+ was not loaded from"):
        BiomedCLIPText(folder)


def test_model_without_a_text_tower_of_the_hub_is_refused(folder: Path) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    del config["model_cfg"]["text_cfg"]["hf_model_name"]
    path.write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="describes no text tower of the hub"):
        BiomedCLIPText(folder)


@pytest.mark.parametrize("lacking", ["open_clip_config.json", "open_clip_pytorch_model.bin", "text/vocab.txt"])
def test_missing_file_is_named_with_its_folder_and_three_ways_out(lacking: str, folder: Path) -> None:
    (folder / lacking).unlink()
    with pytest.raises(FileNotFoundError) as error:
        BiomedCLIPText(folder)
    text = str(error.value)
    assert f"folder {(folder / lacking).parent}: no " in text
    assert Path(lacking).name in text
    for way in (f"hf download {REPOSITORY} --local-dir {folder / 'text'}", "HF_HOME", "allow_download=True"):
        assert way in text


def test_nothing_is_asked_of_the_network_without_consent(network: list[Any]) -> None:
    with pytest.raises(FileNotFoundError, match="not asked for, allow_download is False"):
        BiomedCLIPText()
    assert network == []


def test_half_of_a_cache_is_not_enough(folder: Path, tmp_path: Path) -> None:
    as_cache(folder, tmp_path / "cache", MODEL, TEXT)
    shutil.rmtree(tmp_path / "cache" / f"models--{REPOSITORY.replace('/', '--')}")
    with pytest.raises(FileNotFoundError, match=f"cache: no config.json of {REPOSITORY}"):
        BiomedCLIPText()


def test_a_given_folder_is_the_only_place(folder: Path, tmp_path: Path) -> None:
    """Weights from elsewhere would not be those that were asked for."""
    as_cache(folder, tmp_path / "cache", MODEL, TEXT)
    with pytest.raises(FileNotFoundError, match=r"folder .*elsewhere: no open_clip_config\.json"):
        BiomedCLIPText(tmp_path / "elsewhere", allow_download=True)


def test_consented_download_fetches_the_first_name_that_the_repository_has(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    as_cache(folder, tmp_path / "hub", MODEL, TEXT)
    asked = []

    def look_up(url: str) -> str:
        repository, name = url.removeprefix("https://huggingface.co/").split("/resolve/main/")
        asked.append((repository, name))
        return download(repository, name)

    def download(repository: str, name: str) -> str:
        (found,) = (tmp_path / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots").iterdir()
        if not (found / name).is_file():
            raise EntryNotFoundError(name)
        return str(found / name)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", look_up)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    model, text = find_files(MODEL, TEXT, allow_download=True)
    assert [path.name for path in model.paths] == ["open_clip_config.json", "open_clip_pytorch_model.bin"]
    assert [path.name for path in text.paths] == ["config.json", "vocab.txt"]
    assert (MODEL.repository, "open_clip_model.safetensors") in asked
    assert (TEXT.repository, "tokenizer_config.json") in asked


def test_failed_download_is_reported_with_its_cause() -> None:
    """At once: the hub's own download would try again for half a minute."""
    with pytest.raises(FileNotFoundError, match=r"huggingface\.co: a/b: .*: no network in tests"):
        find_files(HubFiles("a/b", needed=(("x.bin",),)), allow_download=True)


def test_offline_mode_of_the_hub_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"huggingface\.co: a/b: OfflineModeIsEnabled"):
        find_files(HubFiles("a/b", needed=(("x.bin",),)), allow_download=True)


def test_the_way_without_the_files_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder\.\nOr do without them: paint it\.$"):
        find_files(HubFiles("a/b", needed=(("x.bin",),)), instead="paint it")
