"""Tiny checkpoints in quantised forms, by the arithmetic of the formats; no quantiser is needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

GROUP = 32  # inputs that share a scale in four-bit forms
Tensors = dict[str, torch.Tensor]


def _rows(weight: torch.Tensor, most: float) -> torch.Tensor:
    """One scale per row, (out, 1)."""
    return (weight.abs().amax(1, keepdim=True) / most).clamp_min(1e-8)


def int8(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """compressed-tensors, eight-bit integers: stored tensors, and the weight (out, in) that they stand for."""
    scale = _rows(weight, 127)
    numbers = (weight / scale).round().clamp(-128, 127)
    return {"weight": numbers.to(torch.int8), "weight_scale": scale}, numbers * scale


def fp8(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """compressed-tensors, eight-bit floats."""
    scale = _rows(weight, 448)
    numbers = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": numbers, "weight_scale": scale}, numbers.float() * scale


def _fours(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers from 0 to 15 (out, in), scales (out, in / GROUP), and the weight; 8 is zero."""
    groups = weight.unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(-1) / 7).clamp_min(1e-8).half().float()
    numbers = ((groups / scale[..., None]).round().clamp(-8, 7) + 8).int()
    return numbers.flatten(1), scale, ((numbers - 8) * scale[..., None]).flatten(1)


def _pack(numbers: torch.Tensor, order: tuple[int, ...] = tuple(range(8))) -> torch.Tensor:
    """Eight numbers of four bits along the last dimension in one int32."""
    eights = numbers.unflatten(-1, (-1, 8)).long()
    packed = sum(eights[..., place] << (4 * i) for i, place in enumerate(order))
    assert isinstance(packed, torch.Tensor)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def int4(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """compressed-tensors, packed four-bit integers."""
    numbers, scale, value = _fours(weight)
    packed = {"weight_packed": _pack(numbers), "weight_scale": scale}
    return packed | {"weight_shape": torch.tensor(weight.shape)}, value


def gptq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Packed along inputs; zeros are stored less one."""
    numbers, scale, value = _fours(weight)
    zeros = torch.full_like(scale, 7).int().T.contiguous()
    stored = {"qweight": _pack(numbers).T.contiguous(), "qzeros": _pack(zeros), "scales": scale.T.half().contiguous()}
    return stored | {"g_idx": (torch.arange(weight.shape[1]) // GROUP).int()}, value


def awq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Packed along outputs, in an order of its own."""
    numbers, scale, value = _fours(weight)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    zeros = torch.full_like(scale, 8).int().T.contiguous()
    packed = _pack(numbers.T.contiguous(), order)
    return {"qweight": packed, "qzeros": _pack(zeros, order), "scales": scale.T.half().contiguous()}, value


IGNORE = ["lm_head", "re:.*visual.*", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"]


def _compressed(format: str, weights: dict[str, Any], inputs: dict[str, Any] | None) -> dict[str, Any]:
    kind = {"symmetric": True, "dynamic": False}
    group = {
        "targets": ["Linear"],
        "weights": {**kind, **weights},
        "input_activations": inputs,
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "ignore": IGNORE,
        "config_groups": {"group_0": group},
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _each_token(kind: str) -> dict[str, Any]:
    return {"num_bits": 8, "type": kind, "strategy": "token", "symmetric": True, "dynamic": True}


PLAIN_PARTS = ["visual", "vision_tower", "multi_modal_projector", "lm_head"]
SCHEMES: dict[str, tuple[Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]], dict[str, Any]]] = {
    "int8": (
        int8,
        _compressed("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}, _each_token("int")),
    ),
    "fp8": (
        fp8,
        _compressed("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}, _each_token("float")),
    ),
    "int4": (
        int4,
        _compressed("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}, None),
    ),
    "gptq": (
        gptq,
        {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GROUP,
            "desc_act": False,
            "sym": True,
            "lm_head": False,
            "checkpoint_format": "gptq",
            "dynamic": {f"-:.*{part}.*": {} for part in PLAIN_PARTS},
        },
    ),
    "awq": (
        awq,
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": PLAIN_PARTS,
        },
    ),
}


def is_quantised(name: str) -> bool:
    """Whether a scheme stores this weight its own way: the matrices of the decoder's layers."""
    return name.endswith("_proj.weight") and "layers." in name and not any(part in name for part in PLAIN_PARTS)


def quantise(base: Path, out: Path, scheme: str) -> tuple[Path, Path]:
    """The quantised checkpoint and, beside it, a plain one with the very weights that it stands for."""
    form, config = SCHEMES[scheme]
    twin = out.with_name(f"{out.name}-twin")
    stored: Tensors = {}
    values: Tensors = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if not is_quantised(name):
            stored[name] = values[name] = tensor
            continue
        parts, values[name] = form(tensor.float())
        stored |= {f"{name.removesuffix('weight')}{part}": t.contiguous() for part, t in parts.items()}
    for folder, tensors in ((out, stored), (twin, values)):
        shutil.copytree(base, folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(raw | {"quantization_config": config}))
    return out, twin
