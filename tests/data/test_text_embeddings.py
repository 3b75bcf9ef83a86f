"""The cache of text tokens and the text-free table: what is accepted and, above all, what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.text_embeddings import (
    CachedText,
    CacheHeader,
    TextSource,
    TextTokens,
    prompt_hash,
    read_prompts,
    read_text_cache,
    table_tokens,
    text_tokens,
    write_text_cache,
)

SHIPPED = Path(__file__).parents[2] / "bundles" / "dfbk" / "configs" / "prompts.json"
TEXTS = {"t1_t2": "Source T1, target T2.", "mr_ct": "Source MR, target CT: Hounsfield units."}


def entry(prompt: str, length: int) -> CachedText:
    generator = torch.Generator().manual_seed(length)
    return CachedText(torch.randn(length, 768, generator=generator), torch.arange(length), prompt)


def header(provenance: TextSource = "biomedclip") -> CacheHeader:
    return CacheHeader("microsoft/some-model", "0123abcd", "3.3.0", "5.23.0", provenance)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(TEXTS))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "text" / "embeddings.pt"
    write_text_cache(path, {"t1_t2": entry(TEXTS["t1_t2"], 7), "mr_ct": entry(TEXTS["mr_ct"], 9)}, header())
    return path


def from_cache(cache: Path, prompts: Path, task: str = "mr_ct") -> TextTokens:
    return text_tokens("biomedclip", task=task, dataset="synthrad", cache=cache, prompts=prompts)


def test_what_was_written_is_read_again(cache: Path) -> None:
    found, entries = read_text_cache(cache)
    assert found == header()
    assert list(entries) == ["t1_t2", "mr_ct"]
    for length, (task, text) in zip((7, 9), entries.items(), strict=True):
        expected = entry(TEXTS[task], length)
        assert torch.equal(text.tokens, expected.tokens)
        assert torch.equal(text.ids, expected.ids)
        assert text.prompt == TEXTS[task]


def test_the_cache_gives_a_task_its_own_tokens(cache: Path, prompts: Path) -> None:
    text = from_cache(cache, prompts)
    assert torch.equal(text.tokens, entry(TEXTS["mr_ct"], 9).tokens)
    assert (text.provenance, text.task) == ("biomedclip", "mr_ct")
    assert text.prompt_hash == hashlib.sha256(TEXTS["mr_ct"].encode()).hexdigest()


def test_the_file_holds_the_tokens_alone(tmp_path: Path) -> None:
    """A view into a large tensor must not carry that tensor into the file."""
    batch = torch.randn(100, 256, 768)
    path = tmp_path / "embeddings.pt"
    write_text_cache(path, {"mr_ct": CachedText(batch[3, :9], torch.arange(9), "text")}, header())
    assert path.stat().st_size < 9 * 768 * 4 + 8000


def test_missing_cache_names_the_command_and_the_ways_without_it(tmp_path: Path, prompts: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        from_cache(tmp_path / "none.pt", prompts)
    for part in ("none.pt", "python scripts/make_text_embeddings.py", "--text_source table", "--guidance none"):
        assert part in str(error.value)


def test_unknown_task_is_refused_with_the_known_ones(cache: Path, prompts: Path) -> None:
    with pytest.raises(ValueError, match=r"no prompt for task 'mr_pet'; it has t1_t2, mr_ct\."):
        from_cache(cache, prompts, "mr_pet")
    prompts.write_text(json.dumps({**TEXTS, "mr_pet": "text"}))
    with pytest.raises(ValueError, match=r"no tokens for task 'mr_pet'; it has t1_t2, mr_ct\. Write it again"):
        from_cache(cache, prompts, "mr_pet")


def test_an_edited_prompt_is_refused(cache: Path, prompts: Path) -> None:
    prompts.write_text(json.dumps({**TEXTS, "mr_ct": TEXTS["mr_ct"] + " "}))
    with pytest.raises(ValueError, match=f"hash {prompt_hash(TEXTS['mr_ct'])[:12]}") as error:
        from_cache(cache, prompts)
    assert "make_text_embeddings" in str(error.value)


def test_other_prompts_may_change(cache: Path, prompts: Path) -> None:
    before = from_cache(cache, prompts)
    prompts.write_text(json.dumps({**TEXTS, "t1_t2": "new", "mr_pet": "added"}))
    assert torch.equal(from_cache(cache, prompts).tokens, before.tokens)


def test_a_table_in_a_file_does_not_pass_as_biomedclip(tmp_path: Path, prompts: Path) -> None:
    path = tmp_path / "table.pt"
    write_text_cache(path, {"mr_ct": entry(TEXTS["mr_ct"], 4)}, header("table"))
    for dataset in ("synthrad", "brain_phantom"):
        with pytest.raises(ValueError, match="holds tokens of provenance 'table', not 'biomedclip'"):
            text_tokens("biomedclip", task="mr_ct", dataset=dataset, cache=path, prompts=prompts, allow_table=True)


@pytest.mark.parametrize("dataset", ["synthrad", "brats", "phantom", ""])
def test_the_table_is_refused_for_real_data_unless_asked_for_twice(dataset: str) -> None:
    with pytest.raises(ValueError, match="the text-free table was asked for, but"):
        text_tokens("table", task="mr_ct", dataset=dataset)
    assert text_tokens("table", task="mr_ct", dataset=dataset, allow_table=True).provenance == "table"


@pytest.mark.parametrize("dataset", ["brain_phantom", "brain_phantom_isles"])
def test_the_table_serves_embedded_phantoms_without_any_file(dataset: str) -> None:
    text = text_tokens("table", task="t1_flair", dataset=dataset)
    assert text.tokens.shape == (40, 768)
    assert text.tokens.dtype == torch.float32
    assert (text.provenance, text.prompt_hash, text.task) == ("table", "", "t1_flair")
    assert torch.equal(text.tokens, table_tokens("t1_flair"))


def test_the_table_needs_no_prompt(prompts: Path) -> None:
    """Any pair of the phantom's contrasts can be tried."""
    found = text_tokens("table", task="glioma_t1_t1c", dataset="brain_phantom", prompts=prompts)
    assert torch.equal(found.tokens, table_tokens("glioma_t1_t1c"))


def test_rows_of_the_table_are_orthogonal_with_mean_0_and_variance_1() -> None:
    table = table_tokens("t1_flair").double()
    torch.testing.assert_close(table @ table.mT / 768, torch.eye(40).double(), atol=1e-6, rtol=0)
    assert table.mean(1).abs().max() < 1e-6


def test_the_table_is_its_formula() -> None:
    row, channel = 5, 123
    digest = hashlib.sha256(b"mr_ct/5").digest()
    phase = 2 * np.pi * (digest[0] * 2**24 + digest[1] * 2**16 + digest[2] * 2**8 + digest[3]) / 2**32
    expected = np.sqrt(2) * np.sin(2 * np.pi * (row + 1) * channel / 768 + phase)
    assert table_tokens("mr_ct")[row, channel].item() == pytest.approx(expected, abs=1e-6)


def test_tables_of_different_tasks_differ() -> None:
    tasks = list(read_prompts(SHIPPED))
    tables = torch.stack([table_tokens(task).flatten() for task in tasks]).double()
    similarity = tables @ tables.mT / tables.shape[1]
    assert (similarity - torch.eye(len(tasks))).abs().max() < 0.5


@pytest.mark.parametrize("length", [0, 384])
def test_a_table_whose_rows_could_not_be_orthogonal_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"must lie in 1\.\.383 for 768 channels"):
        table_tokens("mr_ct", length)


def test_unknown_source_and_missing_arguments_are_refused(prompts: Path) -> None:
    with pytest.raises(ValueError, match="source 'random' is unknown; choose one of biomedclip, table"):
        text_tokens("random", task="mr_ct", dataset="brain_phantom")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the cache file and the prompts"):
        text_tokens("biomedclip", task="mr_ct", dataset="synthrad", prompts=prompts)


def test_broken_cache_is_refused(cache: Path, prompts: Path) -> None:
    content = cache.read_bytes()
    cache.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is not a whole file of text embeddings"):
        from_cache(cache, prompts)
    torch.save({"tokens": torch.zeros(3, 768)}, cache)
    with pytest.raises(ValueError, match="is not a whole file of text embeddings"):
        from_cache(cache, prompts)


def test_a_cache_that_runs_code_is_refused(cache: Path, prompts: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"header": {}, "tasks": Payload()}, cache)
    with pytest.raises(ValueError, match="is not a whole file of text embeddings"):
        from_cache(cache, prompts)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("tokens", "ids"),
    [
        (torch.zeros(768), torch.arange(1)),
        (torch.zeros(4, 768), torch.arange(5)),
        (torch.zeros(4, 768).half(), torch.arange(4)),
        (torch.zeros(4, 768), torch.zeros(4)),
        (torch.zeros(0, 768), torch.arange(0)),
        (torch.full((4, 768), torch.nan), torch.arange(4)),
    ],
)
def test_tokens_that_are_no_sequence_are_refused(tokens: torch.Tensor, ids: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="CachedText: "):
        CachedText(tokens, ids, "text")


def test_a_cache_without_tasks_or_of_unknown_provenance_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 tasks of provenance 'biomedclip'"):
        write_text_cache(tmp_path / "x.pt", {}, header())
    with pytest.raises(ValueError, match="1 tasks of provenance 'guess'"):
        write_text_cache(tmp_path / "x.pt", {"mr_ct": entry("text", 3)}, header("guess"))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_failed_writing_leaves_the_earlier_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    before = cache.read_bytes()
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text_cache(cache, {"mr_ct": entry("text", 3)}, header())
    assert cache.read_bytes() == before
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_prompts_file_must_map_names_to_texts(prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no prompts file at"):
        read_prompts(tmp_path / "none.json")
    for content in ("[]", "{}", '{"mr_ct": 3}', '{"mr_ct": " "}'):
        prompts.write_text(content)
        with pytest.raises(ValueError, match="must be one JSON object"):
            read_prompts(prompts)
    prompts.write_text('{"mr_ct": ')
    with pytest.raises(ValueError, match="is not a JSON file"):
        read_prompts(prompts)


def test_shipped_prompts_say_source_and_target_in_plain_english() -> None:
    texts = read_prompts(SHIPPED)
    glioma = {f"glioma_{pair}" for pair in ("t1_t2", "t1_flair", "flair_t1c", "t1c_flair")}
    assert set(texts) >= glioma | {"stroke_flair_dwi", "stroke_flair_t1", "head_mr_ct", "head_ct_mr"}
    for task, text in texts.items():
        family, source, target = task.split("_")
        assert {"glioma": "with glioma", "stroke": "with sub-acute ischemic stroke", "head": "radiotherapy"}[
            family
        ] in text
        assert source != target
        assert text.isascii(), task
        assert text.startswith("Axial "), task
        assert 0 < text.index("The source is ") < text.index("The target is "), task
        assert len(text.split()) < 100, task  # with its word pieces far below the encoder's 256 tokens
