"""Gemma 4: image tokens see all of their image within windows; the last layers may read keys and values of earlier ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers as T

from . import IMAGE, TEXT, VIDEO, Inputs, TinyFamily
from .shared_squares import name_tokens, square_mean

NAMES = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "image_token": "<|image|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "audio_token": "<|audio|>",
}
GRIDS = [(4, 6), (6, 4), (2, 12)]  # rows and columns of patches, 6 tokens each
ROOM = 32  # patches of a picture with padding
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "patch_size": 14,
    "pooling_kernel_size": 2,
    "position_embedding_size": 64,
    "initializer_range": 0.2,
}


def config(window: int, **changes: Any) -> Any:
    """Heads of full layers are twice as wide."""
    text = {
        **TEXT,
        "head_dim": 16,
        "global_head_dim": 32,
        "sliding_window": window,
        "use_bidirectional_attention": "vision",
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 200,
        **changes,
    }
    return T.Gemma4Config(
        text_config=text,
        vision_config=dict(VISION),
        audio_config=None,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        audio_token_id=154,
        boi_token_id=152,
        eoi_token_id=153,
        boa_token_id=155,
        eoa_token_index=156,
    )


def small() -> Any:
    """As E2B and E4B: causal, embeddings for every layer, and a last layer that reads the keys and values of the second."""
    return config(
        512,
        use_bidirectional_attention=None,
        num_kv_shared_layers=1,
        hidden_size_per_layer_input=8,
        use_double_wide_mlp=True,
    )


def fewer() -> Any:
    """As 31B: full layers have fewer KV heads, whose keys are their values too."""
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    return config(12, attention_k_eq_v=True, num_global_key_value_heads=1, layer_types=kinds)


def inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
    """Pictures of three shapes."""
    places = torch.full((images, ROOM, 2), -1)
    for i in range(images):
        rows, columns = GRIDS[i % 3]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        places[i, : rows * columns] = torch.stack([x, y], -1).flatten(0, 1)
    pixels = torch.rand(images, ROOM, 3 * 14**2, generator=g)
    return {
        "pixel_values": pixels * (places >= 0).all(-1, keepdim=True),
        "image_position_ids": places,
        "mm_token_type_ids": (input_ids == IMAGE).int(),
    }


def received(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
    """Every picture its own attention, padding left out."""
    found = []
    for w, (x, y) in zip(weights[-1], inputs["image_position_ids"].amax(1).tolist(), strict=True):
        n = (x + 1) * (y + 1)
        found.append(square_mean(w[:, :n, :n], y + 1, x + 1, 2, pool))
    return found


def serve(config: Any, number: Any) -> None:
    """The special tokens' numbers."""
    config.image_token_id, config.video_token_id = number("<|image|>"), number("<|video|>")
    config.audio_token_id, config.boi_token_id = number("<|audio|>"), number("<|image>")
    config.eoi_token_id = number("<image|>")


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures of up to 70 tokens that keep their shape."""
    pictures = T.Gemma4ImageProcessor(patch_size=14, pooling_kernel_size=2, max_soft_tokens=70)
    return T.Gemma4Processor(
        T.Gemma4AudioFeatureExtractor(),
        pictures,
        name_tokens(words, NAMES),
        T.Gemma4VideoProcessor(),
        chat_template=template,
    )


TINY = TinyFamily(
    configs={
        "gemma4": partial(config, 512),
        "gemma4-window": partial(config, 12),
        "gemma4-small": small,
        "gemma4-fewer": fewer,
    },
    tokens=6,
    size=(84, 56),
    inputs=inputs,
    placeholder="<|image|>",
    serve=serve,
    processor=processor,
    received=received,
    special=("<|image>", "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>", "<|video|>"),
)
