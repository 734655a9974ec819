"""The paper's 15 models, shrunken: their families, decoders, heads, KV groups, rope sections, towers and feature layers;
narrow heads, three layers, random weights; a real tokenizer and the family's real processor."""

from __future__ import annotations

import copy
import zlib
from pathlib import Path
from typing import Any

import torch
import transformers as T
from hub_configs import PAPER
from served import TEMPLATE, placeholder, tokenizer
from tiny import TINY

HEAD, LAYERS, VOCABULARY = 16, 3, 400
TOWER_HEAD, SIDE = 8, 84  # pixels of a picture, six patches, where a tower takes squares


def shrunken(name: str, words: Any) -> Any:
    """The config of one of `PAPER`, shrunken, with the numbers of this tokenizer's special tokens."""
    raw = copy.deepcopy(PAPER[name])
    raw.pop("torch_dtype")
    text = raw.get("text_config", raw)
    parsed = getattr(T, _config_name(raw)).from_dict(copy.deepcopy(raw)).get_text_config()
    text |= {
        "hidden_size": HEAD * parsed.num_attention_heads, "intermediate_size": 64, "num_hidden_layers": LAYERS,
        "num_attention_heads": parsed.num_attention_heads, "num_key_value_heads": parsed.num_key_value_heads,
        "vocab_size": VOCABULARY, "max_position_embeddings": 4096, "initializer_range": 0.15,
    }  # fmt: skip
    text.pop("torch_dtype", None)
    if "rope_scaling" in text:  # 16, 24, 24 of 64 become 2, 3, 3 of 8
        text["rope_scaling"]["mrope_section"] = [n // 8 for n in text["rope_scaling"]["mrope_section"]]
    _shrink_tower(raw)
    number = words.convert_tokens_to_ids
    raw |= {"vocab_size": VOCABULARY, "pad_token_id": number("<pad>")}
    for part in (raw, text):
        part |= {"bos_token_id": number("<s>"), "eos_token_id": number("</s>")}
    config = getattr(T, _config_name(raw)).from_dict(raw)
    _name_tokens(config, number)
    return config


def _config_name(raw: dict[str, Any]) -> str:
    return str(raw["architectures"][0]).replace("ForConditionalGeneration", "Config")


def _shrink_tower(raw: dict[str, Any]) -> None:
    tower = raw["vision_config"]
    heads = tower.get("num_heads") or tower["num_attention_heads"]
    tower |= {"hidden_size": TOWER_HEAD * heads, "intermediate_size": 64, "initializer_range": 0.15}
    if "depth" in tower:
        tower |= {"depth": 2, "fullatt_block_indexes": [1], "out_hidden_size": raw["hidden_size"]}
        return
    tower |= {"num_hidden_layers": 3, "projection_dim": 32}
    if "image_grid_pinpoints" in raw:
        raw["image_grid_pinpoints"] = [
            [SIDE * h // tower["image_size"], SIDE * w // tower["image_size"]] for h, w in raw["image_grid_pinpoints"]
        ]
    tower["image_size"] = SIDE


def _name_tokens(config: Any, number: Any) -> None:
    names = {
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }  # fmt: skip
    if not config.model_type.startswith("qwen"):
        names = {"image_token_index": "<image>", "image_token_id": "<image>", "video_token_id": "<video>"}
    for key, token in names.items():
        if hasattr(config, key):
            setattr(config, key, number(token))


def write_paper_model(name: str, folder: Path) -> Path:
    """A random model of that shape as a checkpoint folder, float32."""
    torch.manual_seed(zlib.crc32(name.encode()))
    words = tokenizer()
    config = shrunken(name, words)
    model = T.AutoModelForImageTextToText.from_config(config).eval()
    model.save_pretrained(folder, save_original_format=True)
    tiny = TINY[config.model_type]
    template = TEMPLATE.replace("PICTURE", placeholder(config.model_type))
    tiny.processor(config, words, template).save_pretrained(folder)
    return folder
