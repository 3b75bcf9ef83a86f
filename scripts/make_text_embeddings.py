"""Encode the prompts of the translation tasks with BiomedCLIP's text tower, once, into the file that trainings read.

python scripts/make_text_embeddings.py --model_path /models/biomedclip
python scripts/make_text_embeddings.py --allow_download
"""

import importlib.metadata
import sys
from pathlib import Path

import fire

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data.text_embeddings import CachedText, CacheHeader, read_prompts, write_text_cache
from common.networks.encoders.biomedclip import MODEL, BiomedCLIPText

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "dfbk"


def make_text_embeddings(
    model_path: str | None = None,
    allow_download: bool = False,
    out: str = str(BUNDLE / "models" / "text" / "embeddings.pt"),
    prompts: str = str(BUNDLE / "configs" / "prompts.json"),
) -> None:
    """Write the text embeddings of all prompts.

    Args:
        model_path: folder with BiomedCLIP's files and, in its folder text/, BiomedBERT's configuration and vocabulary;
            without it they are taken from the Hugging Face cache.
        allow_download: download them into that cache if they are not there (about 800 MB).
        out: the file to write.
        prompts: JSON file of task names and texts.
    """
    try:
        texts = read_prompts(prompts)
        encoder = BiomedCLIPText(None if model_path is None else str(model_path), allow_download=allow_download)
        encoded = zip(texts.items(), encoder.encode_tokens(list(texts.values())), strict=True)
        cached = {task: CachedText(result.tokens, result.ids, text) for (task, text), result in encoded}
        header = CacheHeader(
            model=MODEL.repository,
            revision=encoder.revision,
            open_clip=importlib.metadata.version("open_clip_torch"),
            transformers=importlib.metadata.version("transformers"),
            provenance="biomedclip",
        )
        write_text_cache(out, cached, header)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(f"{out}: {header.provenance}, {header.model} at {header.revision}")
    for task, entry in cached.items():
        print(f"  {task:12} {len(entry.ids):3} tokens of {entry.tokens.shape[1]} channels")


if __name__ == "__main__":
    fire.Fire(make_text_embeddings)
