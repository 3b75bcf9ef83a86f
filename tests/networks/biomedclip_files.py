"""Files in BiomedCLIP's format: a BERT of two layers, a small vision tower, a vocabulary of a few words."""

import json
from pathlib import Path
from typing import Any

import torch

REPOSITORY = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "axial", "brain", "mri", "flu", "##id", "is", "dark", ".", "-"]
CONTEXT = 32
WIDTH = 32
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_pytorch_model.bin"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VISION = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}


def make_biomedclip(folder: Path) -> Any:
    """Write the files, weights as a pickle; returns the BERT, built by transformers alone, that the text tower is."""
    from open_clip.model import CustomTextCLIP
    from transformers import BertConfig, BertModel

    (folder / "text").mkdir(parents=True)
    (folder / "text" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=CONTEXT,
    )
    config.save_pretrained(folder / "text")
    text = {
        "hf_model_name": REPOSITORY,
        "hf_tokenizer_name": REPOSITORY,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": CONTEXT,
    }
    model = {"embed_dim": 16, "vision_cfg": {**VISION, "image_size": 160}, "text_cfg": text}
    preprocessing = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocessing}))

    torch.manual_seed(0)
    local = {**text, "hf_model_name": str(folder / "text"), "hf_model_pretrained": False}
    weights = CustomTextCLIP(embed_dim=16, vision_cfg=model["vision_cfg"], text_cfg=local).state_dict()
    torch.save(weights, folder / WEIGHTS)
    prefix = "text.transformer."
    bert = BertModel(config, add_pooling_layer=False).eval()
    bert.load_state_dict(
        {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    )
    return bert


def make_tower(folder: Path, architecture: str, width: int) -> Any:
    """Write weights and configuration as BiomedCLIP's; returns open_clip's own vision tower."""
    from open_clip.model import _build_vision_tower

    folder.mkdir()
    vision = {**VISION, "timm_model_name": architecture}
    model = {"embed_dim": width, "vision_cfg": vision, "text_cfg": {}}
    preprocessing = {"mean": MEAN, "std": STD}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocessing}))
    torch.manual_seed(0)
    tower = _build_vision_tower(width, vision).eval()
    weights = {f"visual.{name}": value for name, value in tower.state_dict().items()}
    torch.save({**weights, "logit_scale": torch.ones(()), "text.proj.weight": torch.zeros(2, 2)}, folder / WEIGHTS)
    return tower
