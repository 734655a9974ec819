"""Tiny random models of every family and hand-made inputs, no downloads, no processors; see `families`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import HEADS, IMAGE, KV_HEADS, LAYERS, PINPOINTS, TOWER, VIDEO, find_families
from lostattn.patches.decoder import decoder_layers, other_kv_heads
from lostattn.patches.family import get_family
from lostattn.patches.mode import get_mode
from lostattn.patches.plan import Pixels, Plan
from lostattn.patches.supplied_regions import use_regions

__all__ = ["HEADS", "IMAGE", "KV_HEADS", "LAYERS", "PINPOINTS", "TOWER", "VIDEO"]
PIXELS = Pixels((0.5, 0.4, 0.3), (0.3, 0.25, 0.2))
TINY = find_families()
CONFIGS = {name: make for tiny in TINY.values() for name, make in tiny.configs.items()}
PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
ONE_PER_FAMILY = [next(iter(tiny.configs)) for tiny in TINY.values()]


def family_of(name: str) -> str:
    """Family of a tiny model's name."""
    return name.split("-")[0]


def make_plain(name: str, seed: int = 0) -> Any:
    """A random plain model in eval mode, float32."""
    torch.manual_seed(seed)
    config = CONFIGS[name]()
    model = awake(get_family(config.model_type).plain_class(config).eval())
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def rounding(name: str) -> float:
    """Largest difference of logits between two ways to compute the same in float32."""
    return TINY[family_of(name)].rounding


def awake(model: Any) -> Any:
    """The model with random numbers in matrices that transformers leaves at zero, as Gemma 3's projector."""
    for weight in model.parameters():
        if weight.dim() == 2 and not weight.any():
            torch.nn.init.normal_(weight, std=0.2)
    return model


def exact(model: Any) -> Any:
    """A copy in float64, for what is compared with it."""
    found = copy.deepcopy(model).double()
    if hasattr(found, "set_experts_implementation"):
        found.set_experts_implementation("eager")  # torch's grouped products know no float64
    return found


@cache
def _other_kv_heads(name: str) -> dict[int, int]:
    return other_kv_heads(decoder_layers(CONFIGS[name]().get_text_config()))


def own_layers(name: str, by_layer: Mapping[int, Any]) -> dict[int, Any]:
    """Values of the n-th layer that can be patched, by the numbers that the model gives its layers."""
    layers = TINY[family_of(name)].layers
    return {layers[n] if 0 <= n < len(layers) else n: value for n, value in by_layer.items()}


def make_plan(name: str, mode: str = "patch_complexity", heads: Any = None, **changes: Any) -> Plan:
    """A plan: by default all heads of layer 0, two scattered ones in layer 1, one whole KV group in layer 2; layers are counted
    among those that can be patched.
    """
    preset = changes.pop("preset", "paper")
    options = get_mode(mode).settle(preset, changes.pop("options", None))
    settings: dict[str, Any] = {"scores": "raw", "queries": "all", **changes}
    if "levels" in settings:
        settings["levels"] = own_layers(name, settings["levels"])
    return Plan(
        family=family_of(name),
        mode=mode,
        preset=preset,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        num_layers=TINY[family_of(name)].depth,
        heads=own_layers(name, {0: (0, 1, 2, 3), 1: (0, 3), 2: (2, 3)} if heads is None else heads),
        options=options,
        pixels=PIXELS,
        layer_kv_heads=_other_kv_heads(name),
        **settings,
    )


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
    return TINY[family_of(name)].tokens


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
    out |= TINY[family_of(name)].inputs(input_ids, images, g)
    return out


VIDEO_MODELS = [name for name in CONFIGS if TINY[family_of(name)].videos is not None]
VIDEO_FAMILIES = [name for name in ONE_PER_FAMILY if name in VIDEO_MODELS]


def takes_both(name: str) -> bool:
    """Whether a prompt may hold images and videos: not where one token stands for both."""
    found = TINY[family_of(name)].videos
    return found is not None and found.token != IMAGE


def make_video_inputs(
    name: str, parts: tuple[str, ...] = ("video",), before: int = 3, after: int = 5, seed: int = 0
) -> dict[str, torch.Tensor]:
    """One prompt: text, then each part (`image`, `video`), then text; two words behind every part and every run of a video."""
    g = torch.Generator().manual_seed(seed)
    videos = TINY[family_of(name)].videos
    assert videos is not None

    def words(n: int) -> list[tuple[int, int]]:
        return [(token, 0) for token in torch.randint(3, 140, (n,), generator=g).tolist()]

    tokens = words(before)
    counts = {"image": 0, "video": 0}
    for part in parts:
        runs = (image_tokens(name),) if part == "image" else videos.runs[counts[part] % len(videos.runs)]
        for n in runs:
            tokens += [(IMAGE, 1) if part == "image" else (videos.token, 2)] * n + words(2)
        counts[part] += 1
    tokens += words(after)
    input_ids, kinds = (torch.tensor([x]) for x in zip(*tokens, strict=True))
    out = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    if counts["image"]:
        out |= TINY[family_of(name)].inputs(input_ids, counts["image"], g)
    out |= videos.inputs(counts["video"], g) if counts["video"] else {}
    if "video_grid_thw" in out:
        out["mm_token_type_ids"] = kinds.int()
    return out


def tower_of(model: Any) -> Any:
    """The vision tower of a model with head."""
    return next(
        t for n in ("visual", "vision_tower", "vision_model") if (t := getattr(model.model, n, None)) is not None
    )


def needed(model: Any, images: int = 1) -> AbstractContextManager[None]:
    """What a model's mode needs beside the inputs of `make_inputs`: nothing, or boxes for every image."""
    if not get_mode(model.sap_plan.mode).needs:
        return nullcontext()
    size = TINY[model.sap_plan.family].size
    return use_regions(model, [[(10, 5, 30 + 9 * i, 40)] for i in range(images)], [size] * images)


def left_pad(prompts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Several prompts as one batch, padded on the left."""
    longest = max(p["input_ids"].shape[1] for p in prompts)
    out = {}
    for key in {k for p in prompts for k in p}:
        parts = [p[key] for p in prompts if key in p]
        if key in PER_TOKEN:
            parts = [
                torch.nn.functional.pad(
                    p.get(key, torch.zeros_like(p["input_ids"])), (longest - p["input_ids"].shape[1], 0)
                )
                for p in prompts
            ]
        out[key] = torch.cat(parts)
    return out


def tower_weights(run: Callable[[], Any]) -> list[torch.Tensor]:
    """Attention weights (B, heads, N, N) of every call of the vision tower while `run` runs, from what enters torch's SDPA."""
    seen, real = [], F.scaled_dot_product_attention

    def watch(q: Any, k: Any, v: Any, attn_mask: Any = None, *args: Any, scale: Any = None, **kwargs: Any) -> Any:
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores + (attn_mask.float().log() if attn_mask.dtype == torch.bool else attn_mask)
        seen.append(torch.softmax(scores, -1))
        return real(q, k, v, attn_mask, *args, scale=scale, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", watch)
        run()
    return seen


def by_steps(model: Any, inputs: dict[str, torch.Tensor], first: int) -> torch.Tensor:
    """Logits of the last tokens, read one by one on a cache."""
    prompt = {k: v[:, :first] if k in PER_TOKEN else v for k, v in inputs.items()}
    with torch.no_grad():
        cache = model(**prompt, use_cache=True).past_key_values
        rest = range(first, inputs["input_ids"].shape[1])
        return torch.cat(
            [model(input_ids=inputs["input_ids"][:, i : i + 1], past_key_values=cache).logits for i in rest], 1
        )


def still(plain: Any, name: str, mode: str = "patch_complexity") -> Any:
    """A patched model whose vision layers do nothing: a feature depends on the pixels of its own token alone."""
    model = make_patched(plain(name), make_plan(name, mode))
    tower = tower_of(model)
    layers = next(m for n, m in tower.named_modules() if n.split(".")[-1] in ("blocks", "layers", "layer"))
    for layer in layers:
        layer.forward = lambda hidden_states, *args, **kwargs: hidden_states
    return model
