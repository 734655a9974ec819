"""Tiny random models of every family and hand-made inputs, no downloads, no processors.

A new family adds a builder here; the tests run over all registered families and fail for one that has none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import transformers as T
from lostattn.patches.family import get_family
from lostattn.patches.mode import get_mode
from lostattn.patches.plan import Pixels, Plan
from lostattn.patches.supplied_regions import use_regions

IMAGE, VIDEO = 150, 151
LAYERS, HEADS, KV_HEADS = 3, 4, 2
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "vocab_size": 200, "max_position_embeddings": 2048,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
TOWER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
    "patch_size": 14, "initializer_range": 0.2,
}  # fmt: skip
CLIP = {**TOWER, "model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = {**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False}
PINPOINTS = [[56, 112], [112, 56], [112, 112]]
PIXELS = Pixels((0.5, 0.4, 0.3), (0.3, 0.25, 0.2))
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}


def _qwen2_5_vl() -> Any:
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "in_channels": 3, "out_hidden_size": 64, "window_size": 56,
        "fullatt_block_indexes": [1], "initializer_range": 0.2,
    }  # fmt: skip
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 152, "vision_end_token_id": 153}
    return T.Qwen2_5_VLConfig(text_config={**TEXT, "rope_parameters": ROPE}, vision_config=vision, **ids)


def _llava(text: str) -> Any:
    return T.LlavaConfig(
        text_config={**TEXT, "model_type": text}, vision_config=CLIP, image_token_index=IMAGE, vision_feature_layer=-2
    )


def _llava_next(text: str) -> Any:
    return T.LlavaNextConfig(
        text_config={**TEXT, "model_type": text}, vision_config=CLIP, image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
    )  # fmt: skip


def _llava_onevision() -> Any:
    return T.LlavaOnevisionConfig(
        text_config={**TEXT, "model_type": "qwen2"}, vision_config=SIGLIP, image_token_index=IMAGE, video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS, vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip


CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen2_5_vl": _qwen2_5_vl,
    "llava-llama": lambda: _llava("llama"),
    "llava-mistral": lambda: _llava("mistral"),
    "llava-qwen2": lambda: _llava("qwen2"),
    "llava_next-mistral": lambda: _llava_next("mistral"),
    "llava_next-llama": lambda: _llava_next("llama"),
    "llava_onevision": _llava_onevision,
}
ONE_PER_FAMILY = ["qwen2_5_vl", "llava-llama", "llava_next-mistral", "llava_onevision"]


def family_of(name: str) -> str:
    """Family of a tiny model's name."""
    return name.split("-")[0]


def make_plain(name: str, seed: int = 0) -> Any:
    """A random plain model in eval mode, float32."""
    torch.manual_seed(seed)
    config = CONFIGS[name]()
    model = get_family(config.model_type).plain_class(config).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def make_plan(name: str, mode: str = "patch_complexity", heads: Any = None, **changes: Any) -> Plan:
    """A plan: by default all heads of layer 0, two scattered ones in layer 1, one whole KV group in layer 2."""
    preset = changes.pop("preset", "paper")
    options = get_mode(mode).settle(preset, changes.pop("options", None))
    settings: dict[str, Any] = {"scores": "raw", "queries": "all", **changes}
    return Plan(
        family=family_of(name), mode=mode, preset=preset, num_layers=LAYERS, num_heads=HEADS, num_kv_heads=KV_HEADS,
        heads={0: (0, 1, 2, 3), 1: (0, 3), 2: (2, 3)} if heads is None else heads, options=options, pixels=PIXELS,
        **settings,
    )  # fmt: skip


def make_patched(plain: Any, plan: Plan, **kwargs: Any) -> Any:
    """The same weights with a plan."""
    family = get_family(plan.family)
    values = {k: v for k, v in plain.config.to_dict().items() if k != "model_type"}
    config = family.config_class(**values, sap=plan.to_json())
    for key, value in kwargs.items():
        setattr(config, key, value)
    model = family.model_class(config).eval()
    model.load_state_dict(plain.state_dict())
    model.generation_config = plain.generation_config
    return model.to(plain.dtype)


def image_tokens(name: str) -> int:
    """Visual tokens of the hand-made image."""
    return {"qwen2_5_vl": 12, "llava": 16}.get(family_of(name), 16 + 4 * 9)


def make_inputs(name: str, images: int = 1, before: int = 3, after: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """One prompt: text, then each image followed by two words, then text. No images: text alone."""
    g = torch.Generator().manual_seed(seed)

    def words(n: int) -> list[int]:
        return torch.randint(3, 140, (n,), generator=g).tolist()

    ids = words(before)
    for _ in range(images):
        ids += [IMAGE] * image_tokens(name) + words(2)
    input_ids = torch.tensor([ids + words(after)])
    out = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    if not images:
        return out
    if family_of(name) == "qwen2_5_vl":
        out["pixel_values"] = torch.randn(images * 48, 3 * 2 * 14 * 14, generator=g)
        out["image_grid_thw"] = torch.tensor([[1, 8, 6]] * images)
        out["mm_token_type_ids"] = (input_ids == IMAGE).int()
    elif family_of(name) == "llava":
        out["pixel_values"] = torch.randn(images, 3, 56, 56, generator=g)
    else:
        out["pixel_values"] = torch.randn(images, 3, 3, 56, 56, generator=g)
        out["image_sizes"] = torch.tensor([[56, 112]] * images)
    return out


def needed(model: Any, images: int = 1) -> AbstractContextManager[None]:
    """What a model's mode needs beside the inputs of `make_inputs`: nothing, or boxes for every image."""
    if not get_mode(model.sap_plan.mode).needs:
        return nullcontext()
    size = {"qwen2_5_vl": (84, 112), "llava": (56, 56)}.get(model.sap_plan.family, (112, 56))
    return use_regions(model, [[(10, 5, 30 + 9 * i, 40)] for i in range(images)], [size] * images)


def left_pad(prompts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Several prompts as one batch, padded on the left."""
    longest = max(p["input_ids"].shape[1] for p in prompts)
    out = {}
    for key in {k for p in prompts for k in p}:
        parts = [p[key] for p in prompts if key in p]
        if key in ("input_ids", "attention_mask", "mm_token_type_ids"):
            parts = [
                torch.nn.functional.pad(
                    p.get(key, torch.zeros_like(p["input_ids"])), (longest - p["input_ids"].shape[1], 0)
                )
                for p in prompts
            ]
        out[key] = torch.cat(parts)
    return out
