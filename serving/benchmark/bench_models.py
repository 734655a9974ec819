"""A model of realistic shape without real weights, to measure speed with `bench serve --load-format dummy`.

Run as a module: `python -m lostattn.serving.benchmark.bench_models SOURCE OUT`. SOURCE gives tokenizer, processor and vision
tower's shape (the demo's model will do), OUT becomes a Qwen2.5-VL whose decoder has heads of 128 numbers and 4 query heads for
each KV head. Its weights are a sparse file of zeros, which takes no room and is good for headers and for `lostattn patch`;
vLLM fills in random ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..disk import disk_errors, read_json, write_json

DECODER = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16384,
}
PIXELS = 16384 * 28 * 28


def make_bench_model(source: Path, out: Path, **decoder: int) -> Path:
    """Write the folder; `decoder` replaces entries of `DECODER`.

    Raises:
        LostattnError: SOURCE is no plain Qwen2.5-VL, or OUT exists.
    """
    config = read_json(source / "config.json", "config.json")
    if config.get("model_type") != "qwen2_5_vl":
        raise LostattnError(f"{source} is not a plain Qwen2.5-VL: its processor would not fit the model")
    if out.exists():
        raise LostattnError(f"{out} exists: choose another destination")
    shape = DECODER | decoder
    head = shape["hidden_size"] // shape["num_attention_heads"]
    if head != 128:
        raise LostattnError(f"hidden size {shape['hidden_size']} gives heads of {head} numbers: 128 each are wanted")
    config["text_config"] |= shape | {"layer_types": ["full_attention"] * shape["num_hidden_layers"]}
    config["text_config"]["rope_parameters"]["mrope_section"] = [head // 8, head * 3 // 16, head * 3 // 16]
    config["vision_config"]["out_hidden_size"] = shape["hidden_size"]
    config |= {"dtype": "bfloat16"}
    with disk_errors(f"cannot write {out}"):
        shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors", "README.md", "*.jsonl"))
        write_json(out / "config.json", config)
        _widen_processor(out / "processor_config.json")
        _write_zeros(config, out / "model.safetensors")
    return out


def _widen_processor(path: Path) -> None:
    processor = read_json(path, path.name)
    for part in ("image_processor", "video_processor"):
        processor[part]["size"]["longest_edge"] = PIXELS
    write_json(path, processor)


def _write_zeros(config: dict[str, Any], path: Path) -> None:
    """A safetensors file with the model's tensors, all zero, as a hole on the disk."""
    header, end = {}, 0
    for name, shape in _tensors(config).items():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)


def _tensors(config: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes as transformers would save them, without making the tensors."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(config))
    return {_saved_name(name): list(p.shape) for name, p in model.named_parameters()}


def _saved_name(name: str) -> str:
    """Checkpoints on the Hub have kept the names of the first release."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    for name, value in DECODER.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    given = vars(parser.parse_args())
    make_bench_model(given.pop("source"), given.pop("out"), **given)


if __name__ == "__main__":
    _main()
