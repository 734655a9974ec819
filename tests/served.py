"""Tiny checkpoints with real tokenizers and processors, for tests that start from a folder: one per family."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as T
from families import TinyFamily
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import CONFIGS, TINY, awake, family_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WIDTH, HEADS, KV_HEADS, LAYERS = 128, 4, 2, 3  # 32 channels a head: the least that vLLM's CPU kernels take
SPECIAL = [
    "<pad>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<image>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<video>",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type in ('image', 'image_url') %}PICTURE{% elif c.type == 'text' %}{{ c.text }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def placeholder(name: str) -> str:
    """What stands for a picture in a prompt."""
    return TINY[family_of(name)].placeholder


def video_placeholder(name: str) -> str:
    """What stands for a video in a prompt."""
    return placeholder(name).replace("image", "video")


def tokenizer() -> Any:
    """Bytes, and special tokens."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    found = T.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    found.add_special_tokens(
        {"additional_special_tokens": SPECIAL[3:] + [t for tiny in TINY.values() for t in tiny.special]}
    )
    return found


def _config(name: str, words: Any) -> Any:
    """The tiny config of a name, wide enough for vLLM, with this tokenizer's numbers."""
    config = CONFIGS[name]()
    text, number = config.text_config, words.convert_tokens_to_ids
    text.hidden_size, text.intermediate_size, text.vocab_size = WIDTH, 2 * WIDTH, 320
    text.num_attention_heads, text.num_key_value_heads, text.num_hidden_layers = (
        HEADS,
        KV_HEADS,
        TINY[family_of(name)].depth,
    )
    text.head_dim = WIDTH // HEADS
    text.max_position_embeddings = 4096
    for part in (config, text):
        part.pad_token_id, part.bos_token_id, part.eos_token_id = (number(x) for x in ("<pad>", "<s>", "</s>"))
    TINY[family_of(name)].serve(config, number)
    return config


def write_checkpoint(name: str, folder: Path) -> Path:
    """A random model of that name with tokenizer and processor, as a checkpoint folder."""
    torch.manual_seed(0)
    words = tokenizer()
    config = _config(name, words)
    model = awake(T.AutoModelForImageTextToText.from_config(config).eval())
    for key, value in model.state_dict().items():  # let attention matter, as in trained models
        if "layers." in key and any(part in key for part in ("q_proj.weight", "k_proj.weight")) and "vision" not in key:
            value.mul_(1.5)
    model.save_pretrained(folder, save_original_format=True)
    _as_published(folder / "model.safetensors", TINY[family_of(name)])
    template = TEMPLATE.replace("PICTURE", placeholder(name))
    TINY[family_of(name)].processor(config, words, template).save_pretrained(folder)
    return folder


def _as_published(weights: Path, family: TinyFamily) -> None:
    """Name and turn weights as the published checkpoints do, which is what vLLM reads."""
    if family.published is None and not family.transposed:
        return
    old, new = family.published or ("", "")
    named = {k if new in k else k.replace(old, new): v for k, v in load_file(weights).items()}
    turned = {k: v.mT.contiguous() if k.endswith(family.transposed) else v for k, v in named.items()}
    save_file(turned, weights, metadata={"format": "pt"})


def pictures(count: int, seed: int) -> list[Image.Image]:
    """Blocks of random colours, of several shapes."""
    made, numbers = [], np.random.default_rng(seed)
    shapes = random.Random(seed).sample([(336, 280), (448, 112), (140, 224), (504, 448), (84, 308)], k=5)
    for width, height in (shapes * count)[:count]:
        blocks = numbers.integers(0, 255, (max(height // 28, 1), max(width // 28, 1), 3)).astype("uint8")
        made.append(Image.fromarray(blocks).resize((width, height)))
    return made
