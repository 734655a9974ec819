"""How long and how much memory patching takes when the weights are large: the answer must not depend on their size."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import Plan
from ..serving.disk import disk_errors

_SHARD = 5 * 10**9  # bytes
# LLaVA-1.5-7B: layers, query heads, hidden size, MLP size, vocabulary.
_LAYERS, _HEADS, _HIDDEN, _MLP, _VOCABULARY = 32, 32, 4096, 11008, 32064
# The package may be a checkout that is not installed: the child finds it where this file lies.
_CHILD = """
import importlib, importlib.util, sys
root = sys.argv[1]
spec = importlib.util.spec_from_file_location("lostattn", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["lostattn"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
importlib.import_module("lostattn.surgery.bench_patch").child(*sys.argv[2:])
"""


def bench_patch(gigabytes: float = 10.0, weights: str = "auto", parent: str | Path | None = None) -> dict[str, Any]:
    """Patch a checkpoint of that size whose tensors are holes, in a fresh process.

    Args:
        gigabytes: size of all weights, in 10^9 bytes.
        weights: as for `write_patched`; `copy` really writes them.
        parent: where to make the temporary folder; the system's default if None.

    Returns:
        `gigabytes`, `files`, `placed`, `seconds` (resolve and write) and `memory_mb` (peak resident memory above what
        the process had with the package imported, in 2^20 bytes).

    Raises:
        LostattnError: no room, or the child failed.
    """
    with disk_errors("cannot make the temporary checkpoint"):
        folder = Path(tempfile.mkdtemp(prefix="lostattn-bench-", dir=parent))
    try:
        files = sparse_checkpoint(folder / "source", gigabytes)
        root = Path(__file__).resolve().parent.parent
        arguments = [str(root), str(folder / "source"), str(folder / "patched"), weights]
        run = subprocess.run([sys.executable, "-c", _CHILD, *arguments], capture_output=True, text=True, check=False)
        if run.returncode:
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise LostattnError(f"the patching process failed: {last}")
        return {"gigabytes": gigabytes, "files": files, **json.loads(run.stdout.splitlines()[-1])}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def child(source: str, out: str, weights: str) -> None:
    """The measured process: prints one line of JSON."""
    from .checkpoint.source import resolve_source
    from .checkpoint.write import write_patched

    heads = dict.fromkeys(range(18, 24), tuple(range(16)))
    plan = Plan("llava", "uniform", "paper", "raw", "all", _LAYERS, _HEADS, _HEADS, heads)
    before, start = _memory("VmRSS"), time.perf_counter()
    written = write_patched(resolve_source(source), plan, out, weights=weights, card="# benchmark\n")
    seconds = time.perf_counter() - start
    memory = (_memory("VmHWM") - before) / 2**20
    print(json.dumps({"placed": dict(written.placed), "seconds": round(seconds, 3), "memory_mb": round(memory, 1)}))


def sparse_checkpoint(folder: Path, gigabytes: float) -> int:
    """Write config, index and shards with true headers and holes for data; returns the number of shards."""
    folder.mkdir(parents=True)
    shards: list[dict[str, Any]] = []
    size = _SHARD
    for name, shape in _tensors(int(gigabytes * 1e9)):
        count = 2 * shape[0] * shape[1]
        if size + count > _SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, size + count]}
        size += count
    weight_map: dict[str, str] = {}
    for index, header in enumerate(shards, 1):
        name = f"model-{index:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, header)
        weight_map |= dict.fromkeys(header, name)
    text = {"model_type": "llama", "num_hidden_layers": _LAYERS, "num_attention_heads": _HEADS, "hidden_size": _HIDDEN}
    config = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": text}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return len(shards)


def _tensors(wanted: int) -> list[tuple[str, list[int]]]:
    """Matrices of a decoder, as many layers as it takes to reach that many bytes of bfloat16."""
    results = [("language_model.model.embed_tokens.weight", [_VOCABULARY, _HIDDEN])]
    total, layer = 2 * _VOCABULARY * _HIDDEN, 0
    square, wide = [_HIDDEN, _HIDDEN], [_MLP, _HIDDEN]
    parts = {f"self_attn.{x}_proj": square for x in "qkvo"} | {f"mlp.{x}_proj": wide for x in ("gate", "up", "down")}
    while total < wanted:
        results += [(f"language_model.model.layers.{layer}.{part}.weight", shape) for part, shape in parts.items()]
        total += sum(2 * shape[0] * shape[1] for shape in parts.values())
        layer += 1
    return results


def _write_shard(path: Path, header: dict[str, Any]) -> None:
    raw = json.dumps(header).encode()
    with disk_errors(f"cannot write {path.name}"), path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + max(row["data_offsets"][1] for row in header.values()))


def _memory(what: str) -> int:
    """Resident memory of this process, in bytes: `VmRSS` now, `VmHWM` at its peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))
    except (OSError, StopIteration):
        import resource  # only the peak is known here, which makes the difference a lower bound

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
