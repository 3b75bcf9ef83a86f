"""Token sequences of the prompts that guide a translation: a cache file written once, or the text-free table.

No text encoder is needed here. ``scripts/make_text_embeddings.py`` runs it and writes the cache; training reads that.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ..atomic import atomic_path

TextSource = Literal["biomedclip", "table"]
COMMAND = "python scripts/make_text_embeddings.py --model_path <folder of BiomedCLIP>   (or --allow_download)"


@dataclass(frozen=True)
class TextTokens:
    """What the network attends to, and where it comes from.

    Attributes:
        tokens: ``(L, C)`` float32, one row per token; C is 768 for BiomedCLIP and for the text-free table.
        provenance: "biomedclip" or "table".
        prompt_hash: SHA-256 of the prompt; empty for the text-free table, which knows no text.
        task: name of the translation, such as ``t1_flair``.
    """

    tokens: Tensor
    provenance: str
    prompt_hash: str
    task: str


@dataclass(frozen=True)
class CachedText:
    """One prompt in the cache: tokens ``(L, C)`` float32, their vocabulary numbers ``(L,)`` int64, and the text."""

    tokens: Tensor
    ids: Tensor
    prompt: str

    def __post_init__(self) -> None:
        tokens, ids = self.tokens, self.ids
        if (
            tokens.ndim != 2
            or tokens.dtype != torch.float32
            or ids.dtype != torch.int64
            or ids.shape != tokens.shape[:1]
        ):
            raise ValueError(
                f"CachedText: tokens {tuple(tokens.shape)} of {tokens.dtype}, ids {tuple(ids.shape)} of {ids.dtype}; "
                "give tokens (L, C) of float32 and ids (L,) of int64."
            )
        if not len(ids) or not tokens.isfinite().all():
            raise ValueError("CachedText: the tokens are empty or not finite; they cannot guide anything.")


@dataclass(frozen=True)
class CacheHeader:
    """Where the tokens of a cache file come from: model and its exact files, versions, and the kind of source."""

    model: str
    revision: str
    open_clip: str
    transformers: str
    provenance: TextSource


def text_tokens(
    source: TextSource,
    *,
    task: str,
    dataset: str,
    cache: str | os.PathLike | None = None,
    prompts: str | os.PathLike | None = None,
    allow_table: bool = False,
) -> TextTokens:
    """Token sequence of a task.

    Args:
        source: "biomedclip" reads ``cache``; "table" makes the text-free table, a stand-in that holds no knowledge.
        task: name of the translation; for BiomedCLIP one of those in ``prompts``.
        dataset: name of the data set; the table is for embedded phantoms (``..._phantom``).
        cache: file of :func:`write_text_cache`.
        prompts: JSON file of the prompts, which must be those of the cache.
        allow_table: accept the text-free table for real data, too.

    Raises:
        FileNotFoundError: no cache file; says how to write it.
        ValueError: unknown source or task, a prompt edited since the cache was written, a cache of another source,
            or the text-free table for real data.
    """
    if source not in get_args(TextSource):
        raise ValueError(f"text_tokens: source {source!r} is unknown; choose one of {', '.join(get_args(TextSource))}.")
    if source == "table":
        if "_phantom" not in dataset and not allow_table:
            raise ValueError(
                f"text_tokens: the text-free table was asked for, but {dataset!r} is not an embedded phantom. It holds "
                f"no knowledge. For BiomedCLIP's tokens: --text_source biomedclip, after\n    {COMMAND}\n"
                "To use the table all the same: --allow_text_table True; to do without text: --guidance none."
            )
        return TextTokens(table_tokens(task), "table", "", task)
    texts = None if prompts is None else read_prompts(prompts)
    if cache is None or texts is None:
        raise ValueError("text_tokens: source='biomedclip' needs the cache file and the prompts it was made from.")
    if task not in texts:
        raise ValueError(
            f"text_tokens: {prompts} has no prompt for task {task!r}; it has {', '.join(texts)}. Add a sentence "
            f"for it, then\n    {COMMAND}"
        )
    header, entries = read_text_cache(cache)
    if header.provenance != source:
        raise ValueError(
            f"text_tokens: {cache} holds tokens of provenance {header.provenance!r}, not {source!r}; write it again:\n"
            f"    {COMMAND}"
        )
    if task not in entries:
        raise ValueError(
            f"text_tokens: {cache} has no tokens for task {task!r}; it has {', '.join(entries)}. Write it again:\n"
            f"    {COMMAND}"
        )
    wanted, found = prompt_hash(texts[task]), prompt_hash(entries[task].prompt)
    if wanted != found:
        raise ValueError(
            f"text_tokens: the prompt of {task!r} in {prompts} (hash {wanted[:12]}) is not the one that {cache} was "
            f"made from (hash {found[:12]}). Take the edit back, or write the cache again:\n    {COMMAND}"
        )
    return TextTokens(entries[task].tokens, header.provenance, found, task)


def table_tokens(task: str, length: int = 40, channels: int = 768) -> Tensor:
    """The text-free table ``(length, channels)``: a fixed stand-in for text tokens that needs no file.

    ``sqrt(2) sin(2 pi (l + 1) c / channels + phase(task, l))``: every row has mean 0 and variance 1, rows are mutually
    orthogonal, and another task has other phases. It says nothing about anatomy or contrast.
    """
    if not 1 <= length < channels / 2:
        raise ValueError(
            f"table_tokens: length={length} must lie in 1..{math.ceil(channels / 2) - 1} for {channels} channels."
        )
    digests = [hashlib.sha256(f"{task}/{row}".encode()).digest() for row in range(length)]
    phase = torch.tensor([int.from_bytes(digest[:4], "big") / 2**32 for digest in digests], dtype=torch.float64)  # (L,)
    cycles = torch.outer(torch.arange(1, length + 1), torch.arange(channels)).double() / channels  # (L, C)
    return (math.sqrt(2) * torch.sin(2 * math.pi * (cycles + phase[:, None]))).float()


def read_prompts(path: str | os.PathLike) -> dict[str, str]:
    """The prompts file: a JSON object of task names and texts."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_prompts: no prompts file at {path}; bundles/dfbk/configs/prompts.json is one.")
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"read_prompts: {path} is not a JSON file: {error}") from error
    if (
        not isinstance(texts, dict)
        or not texts
        or not all(isinstance(text, str) and text.strip() for text in texts.values())
    ):
        raise ValueError(f'read_prompts: {path} must be one JSON object {{"task": "text", ...}} without empty texts.')
    return texts


def prompt_hash(prompt: str) -> str:
    """SHA-256 of a prompt's text (UTF-8), in hexadecimal digits."""
    return hashlib.sha256(prompt.encode("utf-8")).hexdigest()


def write_text_cache(path: str | os.PathLike, texts: Mapping[str, CachedText], header: CacheHeader) -> None:
    """Write the tokens of all tasks to one file of plain tensors and strings, atomically."""
    if not texts or header.provenance not in get_args(TextSource):
        raise ValueError(
            f"write_text_cache: {len(texts)} tasks of provenance {header.provenance!r}; give at least one task and one "
            f"of the provenances {', '.join(get_args(TextSource))}."
        )
    # a copy, since a slice would drag the whole tensor it was cut from into the file
    tasks = {name: {"tokens": t.tokens.clone(), "ids": t.ids.clone(), "prompt": t.prompt} for name, t in texts.items()}
    with atomic_path(path) as temporary:
        torch.save({"header": asdict(header), "tasks": tasks}, temporary)


def read_text_cache(path: str | os.PathLike) -> tuple[CacheHeader, dict[str, CachedText]]:
    """Header and texts of a file of :func:`write_text_cache`; nothing but tensors and strings is unpickled."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"read_text_cache: no text embeddings at {path}. Write them once with\n    {COMMAND}\n"
            "or do without text: --text_source table (the text-free table, for embedded phantoms), "
            "--text_source learned, or --guidance none."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        texts = {str(name): CachedText(**entry) for name, entry in content["tasks"].items()}
        return CacheHeader(**content["header"]), texts
    except Exception as error:  # pickle, zip and torch raise what they like about a broken file
        raise ValueError(
            f"read_text_cache: {path} is not a whole file of text embeddings ({type(error).__name__}: {error}). "
            f"Write it again:\n    {COMMAND}"
        ) from error
