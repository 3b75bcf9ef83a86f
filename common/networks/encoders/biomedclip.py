"""BiomedCLIP's text tower as a source of token sequences; real weights or an error.

The model lives in two repositories of the Hugging Face hub: BiomedCLIP itself, with the weights of both towers, and
BiomedBERT, of which only the configuration and the vocabulary are used. A folder given by the user holds both::

    <folder>/open_clip_config.json
    <folder>/open_clip_model.safetensors       or open_clip_pytorch_model.bin
    <folder>/text/config.json                  of BiomedBERT
    <folder>/text/vocab.txt                    or tokenizer.json

Source: Zhang et al. 2023 (arXiv 2303.00915); MIT license, the model card restricts the intended use to research.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .hub import FoundFiles, HubFiles, find_files, reading

MODEL = HubFiles(
    "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
    needed=(("open_clip_config.json",), ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")),
)
TEXT = HubFiles(
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    needed=(("config.json",), ("vocab.txt", "tokenizer.json")),
    optional=("tokenizer_config.json",),
    subfolder="text",
)


@dataclass(frozen=True)
class PromptTokens:
    """A prompt as its encoder sees it: last hidden states ``(L, C)`` float32, vocabulary numbers ``(L,)`` int64."""

    tokens: Tensor
    ids: Tensor


class BiomedCLIPText:
    """BiomedCLIP's text tower (BERT, C = 768), in evaluation mode on the CPU.

    Args:
        folder: folder with the files named above; without it the Hugging Face cache is searched.
        allow_download: consent to a download of about 800 MB into that cache.

    Raises:
        FileNotFoundError: the files are not there; says how to provide them.
        RuntimeError: they are there but broken, incomplete or not BiomedCLIP's.
        ImportError: open_clip or transformers is not installed.
    """

    def __init__(self, folder: str | os.PathLike | None = None, *, allow_download: bool = False) -> None:
        model, text = find_files(MODEL, TEXT, folder=folder, allow_download=allow_download)
        self.revision = model.revision()
        with reading("BiomedCLIP", "open_clip_torch timm transformers", model, text):
            config = _text_config(model)
            self._transformer, self._tokenizer = _load(model, text, config)
        self._context_length = int(config["context_length"])

    def encode_tokens(self, prompts: Sequence[str]) -> list[PromptTokens]:
        """Token sequence of each prompt: [CLS], its word pieces, [SEP]; no padding.

        Raises:
            ValueError: a prompt is longer than the tower's context or has characters outside the vocabulary.
        """
        return [self._encode(prompt) for prompt in prompts]

    @torch.no_grad()
    def _encode(self, prompt: str) -> PromptTokens:
        length = len(self._tokenizer.tokenizer(prompt)["input_ids"])
        if length > self._context_length:
            raise ValueError(
                f"encode_tokens: a prompt of {length} tokens exceeds BiomedCLIP's {self._context_length}; shorten it: "
                f"{prompt[:60]!r}..."
            )
        padded = self._tokenizer([prompt])[0]  # (context_length,), cleaned as in BiomedCLIP's training
        ids = padded[padded != self._tokenizer.tokenizer.pad_token_id]  # (L,)
        if (ids == self._tokenizer.tokenizer.unk_token_id).any():
            raise ValueError(
                f"encode_tokens: a word of the prompt is not in the vocabulary: {prompt[:60]!r}...; plain English "
                "always is, so check the prompt's characters and the vocabulary's file."
            )
        states = self._transformer(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).last_hidden_state
        return PromptTokens(states[0].float(), ids)  # (L, C), (L,)


def _text_config(model: FoundFiles) -> dict[str, Any]:
    """``model_cfg.text_cfg`` of ``open_clip_config.json``."""
    config = json.loads(model.paths[0].read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    if "hf_model_name" not in config or "context_length" not in config:
        raise ValueError(f"{model.paths[0]} describes no text tower of the hub (hf_model_name, context_length)")
    return config


def _load(model: FoundFiles, text: FoundFiles, config: dict[str, Any]) -> tuple[torch.nn.Module, Any]:
    """BERT with BiomedCLIP's weights, and the tokenizer; both from local files alone."""
    import open_clip
    import transformers  # noqa: F401  open_clip does without until a text tower is built, and then says less
    from open_clip.factory import load_state_dict
    from open_clip.tokenizer import HFTokenizer

    # open_clip would ask the hub for the text tower's configuration even for a local model
    local = {**config, "hf_model_name": str(text.folder), "hf_model_pretrained": False}
    clip = open_clip.create_model(f"local-dir:{model.folder}", text_cfg=local, require_pretrained=True)
    transformer = clip.text.transformer.eval().requires_grad_(False)
    prefix, weights = "text.transformer.", load_state_dict(str(model.paths[1]))
    for name, value in transformer.named_parameters():
        if prefix + name not in weights or not torch.equal(value, weights[prefix + name].to(value)):
            raise ValueError(f"{prefix}{name} was not loaded from {model.paths[1]}")
        if not value.isfinite().all():
            raise ValueError(f"{prefix}{name} in {model.paths[1]} is not finite")
    tokenizer = HFTokenizer(str(text.folder), context_length=int(config["context_length"]))
    return transformer, tokenizer
