"""Tiny checkpoints with real tokenizers and processors, for tests that start from a folder: one per family."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as T
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import CONFIGS, family_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WIDTH, HEADS, KV_HEADS, LAYERS = 128, 4, 2, 3  # 32 channels a head: the least that vLLM's CPU kernels take
SIDE, TILE = 336, 168  # of the square pictures of LLaVA and of the families that show tiles
SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<image>", "<|vision_start|>", "<|vision_end|>",
           "<|image_pad|>", "<|video_pad|>", "<video>"]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type in ('image', 'image_url') %}PICTURE{% elif c.type == 'text' %}{{ c.text }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def placeholder(name: str) -> str:
    """What stands for a picture in a prompt."""
    return "<|vision_start|><|image_pad|><|vision_end|>" if family_of(name) == "qwen2_5_vl" else "<image>"


def side_of(name: str) -> int:
    """Pixels of one square picture."""
    return SIDE if family_of(name) == "llava" else TILE


def tokenizer() -> Any:
    """Bytes, and special tokens."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    found = T.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    found.add_special_tokens({"additional_special_tokens": SPECIAL[3:]})
    return found


def _config(name: str, words: Any) -> Any:
    """The tiny config of a name, wide enough for vLLM, with this tokenizer's numbers."""
    config = CONFIGS[name]()
    text, number = config.text_config, words.convert_tokens_to_ids
    text.hidden_size, text.intermediate_size, text.vocab_size = WIDTH, 2 * WIDTH, 320
    text.num_attention_heads, text.num_key_value_heads, text.num_hidden_layers = HEADS, KV_HEADS, LAYERS
    text.head_dim = WIDTH // HEADS
    text.max_position_embeddings = 4096
    for part in (config, text):
        part.pad_token_id, part.bos_token_id, part.eos_token_id = (number(x) for x in ("<pad>", "<s>", "</s>"))
    if family_of(name) == "qwen2_5_vl":
        text.rope_parameters = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
        config.vision_config.out_hidden_size, config.vision_config.window_size = WIDTH, 112
        config.image_token_id, config.video_token_id = number("<|image_pad|>"), number("<|video_pad|>")
        config.vision_start_token_id, config.vision_end_token_id = number("<|vision_start|>"), number("<|vision_end|>")
        return config
    config.vision_config.image_size = side = side_of(name)
    if hasattr(text, "sliding_window"):
        text.sliding_window = None  # as in the published checkpoints
    config.image_token_index = config.image_token_id = number("<image>")
    if hasattr(config, "video_token_index"):
        config.video_token_index = config.video_token_id = number("<video>")
    if hasattr(config, "image_grid_pinpoints"):
        config.image_grid_pinpoints = [[side, 2 * side], [2 * side, side]]
    return config


def _processor(name: str, words: Any, config: Any) -> Any:
    family, clip = family_of(name), {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    template = TEMPLATE.replace("PICTURE", placeholder(name))
    if family == "qwen2_5_vl":
        pictures = T.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=700 * 700)
        return T.Qwen2_5_VLProcessor(pictures, words, T.Qwen2VLVideoProcessor(), chat_template=template)
    side = side_of(name)
    square = {"height": side, "width": side}
    shared = {"patch_size": 14, "vision_feature_select_strategy": config.vision_feature_select_strategy}
    if family == "llava":
        pictures = T.CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size=square, image_mean=clip["mean"], image_std=clip["std"]
        )
        return T.LlavaProcessor(pictures, words, chat_template=template, num_additional_image_tokens=1, **shared)
    points = config.image_grid_pinpoints
    if family == "llava_next":
        pictures = T.LlavaNextImageProcessor(
            size={"shortest_edge": side}, crop_size=square, image_grid_pinpoints=points, image_mean=clip["mean"],
            image_std=clip["std"],
        )  # fmt: skip
        return T.LlavaNextProcessor(pictures, words, chat_template=template, num_additional_image_tokens=1, **shared)
    pictures = T.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=points)
    video = T.LlavaOnevisionVideoProcessor(size=square)
    return T.LlavaOnevisionProcessor(
        pictures, words, video, num_image_tokens=(side // 14) ** 2, chat_template=template,
        vision_feature_select_strategy="full",
    )  # fmt: skip


def write_checkpoint(name: str, folder: Path) -> Path:
    """A random model of that name with tokenizer and processor, as a checkpoint folder."""
    torch.manual_seed(0)
    words = tokenizer()
    config = _config(name, words)
    model = T.AutoModelForImageTextToText.from_config(config).eval()
    for key, value in model.state_dict().items():  # let attention matter, as in trained models
        if "layers." in key and any(part in key for part in ("q_proj.weight", "k_proj.weight")) and "vision" not in key:
            value.mul_(1.5)
    model.save_pretrained(folder, save_original_format=True)
    _as_published(folder / "model.safetensors")
    _processor(name, words, config).save_pretrained(folder)
    return folder


def _as_published(weights: Path) -> None:
    """Name the vision tower's weights as the published LLaVA checkpoints do, which is what vLLM reads."""
    old, new = "vision_tower.", "vision_tower.vision_model."
    tensors = {k.replace(old, new) if new not in k else k: v for k, v in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})


def pictures(count: int, seed: int) -> list[Image.Image]:
    """Blocks of random colours, of several shapes."""
    made, numbers = [], np.random.default_rng(seed)
    shapes = random.Random(seed).sample([(336, 280), (448, 112), (140, 224), (504, 448), (84, 308)], k=5)
    for width, height in (shapes * count)[:count]:
        blocks = numbers.integers(0, 255, (max(height // 28, 1), max(width // 28, 1), 3)).astype("uint8")
        made.append(Image.fromarray(blocks).resize((width, height)))
    return made
