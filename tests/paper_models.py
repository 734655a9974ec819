"""Published models, shrunken: the paper's 15 and one size of every family, with their decoders, heads, KV groups, rope
sections, towers and feature layers; narrow heads, few layers and experts, random weights; a real tokenizer and the family's
real processor."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from math import gcd
from pathlib import Path
from typing import Any

import torch
import transformers as T
from served import TEMPLATE, placeholder, tokenizer
from tiny import TINY, awake

HEAD, LAYERS, VOCABULARY = 16, 3, 600
TOWER_HEAD, SIDE = 8, 84  # pixels of a picture, six patches, where a tower takes squares
FEW = {  # experts, and whatever else has to be small
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}


def shrunken(published: Mapping[str, Any], words: Any) -> Any:
    """A published config, shrunken, with the numbers of this tokenizer's special tokens."""
    raw = copy.deepcopy(dict(published))
    for key in ("torch_dtype", "dtype"):
        raw.pop(key, None)
    text = raw.get("text_config", raw)
    parsed = getattr(T, _config_name(raw)).from_dict(copy.deepcopy(raw)).get_text_config()
    _shrink_decoder(text, parsed)
    _shrink_tower(raw, text["hidden_size"])
    number = words.convert_tokens_to_ids
    raw |= {"vocab_size": VOCABULARY, "pad_token_id": number("<pad>")}
    for part in (raw, text):
        part |= {"bos_token_id": number("<s>"), "eos_token_id": number("</s>"), "pad_token_id": number("<pad>")}
    config = getattr(T, _config_name(raw)).from_dict(raw)
    _name_tokens(config, number)
    return config


def _config_name(raw: dict[str, Any]) -> str:
    return str(raw["architectures"][0]).replace("ForConditionalGeneration", "Config")


def _shrink_decoder(text: dict[str, Any], parsed: Any) -> None:
    """Heads as narrow as the rope sections allow; every kind of layer that the model has."""
    head, heads = _shrink_rope(text, parsed), parsed.num_attention_heads
    kinds = list(getattr(parsed, "layer_types", None) or ())
    layers = max(LAYERS, *(kinds.index(kind) + 1 for kind in set(kinds))) if len(set(kinds)) > 1 else LAYERS
    text |= {
        "hidden_size": head * heads,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": parsed.num_key_value_heads,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "initializer_range": 0.15,
    }
    if getattr(parsed, "head_dim", None):  # then the width is free
        text |= {"head_dim": head, "hidden_size": heads * max(1, 64 // heads)}
    if len(set(kinds)) > 1:
        text["layer_types"] = kinds[:layers]
    text |= {key: few for key, few in FEW.items() if key in text}
    for key in ("torch_dtype", "dtype"):
        text.pop(key, None)


def _shrink_rope(text: dict[str, Any], parsed: Any) -> int:
    """Numbers of a head after its rope sections, if it has any, were divided by what divides all of them: 16, 24, 24 of 64
    become 2, 3, 3 of 8, in heads of 16."""
    rope = next(
        (text[key] for key in ("rope_parameters", "rope_scaling") if "mrope_section" in (text.get(key) or {})), None
    )
    if rope is None:
        return HEAD
    share = gcd(*rope["mrope_section"])
    rope["mrope_section"] = [n // share for n in rope["mrope_section"]]
    return int(getattr(parsed, "head_dim", None) or parsed.hidden_size // parsed.num_attention_heads) // share


def _shrink_tower(raw: dict[str, Any], width: int) -> None:
    tower = raw["vision_config"]
    heads = tower.get("num_heads") or tower["num_attention_heads"]
    wide = TOWER_HEAD * heads
    tower |= {"initializer_range": 0.15, ("embed_dim" if "embed_dim" in tower else "hidden_size"): wide}
    tower.pop("dtype", None)
    if "depth" in tower:
        _shrink_rows(tower, width)
        return
    tower |= {"intermediate_size": 64, "num_hidden_layers": 3}
    if "projection_dim" in tower:
        tower["projection_dim"] = 32
    if "head_dim" in tower:
        tower["head_dim"] = TOWER_HEAD
    if "image_grid_pinpoints" in raw:
        raw["image_grid_pinpoints"] = [
            [SIDE * h // tower["image_size"], SIDE * w // tower["image_size"]] for h, w in raw["image_grid_pinpoints"]
        ]
    tower["image_size"] = _side(raw, tower)


def _shrink_rows(tower: dict[str, Any], width: int) -> None:
    """A tower whose pixels come as rows of patches."""
    tower["depth"] = 2
    if "embed_dim" in tower:  # Qwen2-VL's: its hidden_size is the decoder's width
        tower["hidden_size"] = width
        return
    tower |= {"intermediate_size": 64, "out_hidden_size": width}
    if "fullatt_block_indexes" in tower:
        tower["fullatt_block_indexes"] = [1]
    if tower.get("deepstack_visual_indexes"):
        tower |= {"depth": 3, "deepstack_visual_indexes": [0, 1, 2]}
    if "num_position_embeddings" in tower:
        tower["num_position_embeddings"] = 16


def _side(raw: dict[str, Any], tower: dict[str, Any]) -> Any:
    """Pixels of a square as the family's processor of the tests makes it, where it asks for more than `SIDE`."""
    if raw["model_type"] == "internvl":
        raw["image_seq_length"] = 16
        return [112, 112]
    if raw["model_type"] == "gemma3":
        raw["mm_tokens_per_image"] = 9
    if raw["model_type"] == "mistral3":
        return 224
    return 2 * raw["scale_factor"] * tower["patch_size"] if "scale_factor" in raw else SIDE


def _name_tokens(config: Any, number: Any) -> None:
    """As the family's tiny model names them; all else that it changes is left alone."""
    named = copy.deepcopy(config)
    TINY[config.model_type].serve(named, number)
    for key in list(vars(named)):
        if key.endswith(("_token_id", "_token_index")):
            setattr(config, key, getattr(named, key))


def write_model(name: str, published: Mapping[str, Any], folder: Path) -> Path:
    """A random model of that shape as a checkpoint folder, float32."""
    torch.manual_seed(zlib.crc32(name.encode()))
    words = tokenizer()
    config = shrunken(published, words)
    model = awake(T.AutoModelForImageTextToText.from_config(config).eval())
    model.save_pretrained(folder, save_original_format=True)
    tiny = TINY[config.model_type]
    template = TEMPLATE.replace("PICTURE", placeholder(config.model_type))
    tiny.processor(config, words, template).save_pretrained(folder)
    return folder
