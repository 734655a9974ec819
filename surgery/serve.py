"""Getting a folder served: checks before the start, and what its owner should read before and after it."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..patches.errors import LostattnError
from ..patches.plan import Plan
from ..serving.disk import read_json
from ..serving.endpoints import open_endpoints
from ..serving.engine.versions import check_served, check_vllm
from ..serving.safety import cpu_defaults, names, safe_defaults
from ..serving.server import Server
from ..serving.shape import model_shape
from ..serving.video_limits import VIDEO_LIMITS, VideoLimits
from .chat import is_patched
from .checkpoint.loadable import quantised_cache
from .checkpoint.write import read_patched
from .describe import describe_plan
from .predict import predict

OURS = {
    "--model": "the folder is the argument DIR",
    "--host": "put --host in front of the two dashes",
    "--port": "put --port in front of the two dashes",
    "--served-model-name": "put --name in front of the two dashes",
    "--api-key": "put --api-key in front of the two dashes, or set LOSTATTN_API_KEY, which other users cannot see",
    "--uds": "lostattn serve waits at a TCP port",
}


@dataclass(frozen=True)
class Prepared:
    """A server that is not started yet, its plan if the folder is patched, and lines to read before the start."""

    server: Server
    plan: Plan | None
    notes: list[str]
    api_key: bool


def prepare(
    folder: Path,
    *,
    name: str | None,
    host: str,
    port: int,
    api_key: str | None,
    max_image_pixels: int,
    max_images: int,
    options: Sequence[str],
    log: Path,
    max_videos: int = 0,
    videos: VideoLimits = VIDEO_LIMITS,
) -> Prepared:
    """Check folder, vLLM, plugin and options; put the safe defaults together.

    Raises:
        LostattnError: what is wrong, with the mend. Nothing is started.
    """
    plan = checked_plan(folder)
    check_vllm()
    if plan is not None:
        check_plugin()
        check_served(plan.family)
        _check_cache(folder, plan, options)
    for option, mend in OURS.items():
        if names(options, option):
            raise LostattnError(f"{option} is not for vLLM's part of the command line: {mend}")
    if api_key is not None and not re.fullmatch(r"[!-~]+", api_key):
        raise LostattnError("the API key must be printable ASCII without spaces: choose another")
    safe = safe_defaults(host, api_key is not None, max_image_pixels, max_images, options, max_videos, videos)
    memory = cpu_defaults(folder, options)
    server = Server(
        folder,
        name=name,
        host=host,
        port=port,
        api_key=api_key,
        options=[*safe.options, *memory.options, *options],
        log=log,
        env={**safe.env, **memory.env},
    )
    notes = [f"note: {w}" for w in safe.warnings]
    if plan is None:
        notes.insert(0, f"{folder} is not patched: it is served as it is")
    return Prepared(server, plan, notes, api_key is not None)


def checked_plan(folder: Path) -> Plan | None:
    """The plan of a patched folder, None for a plain one. LostattnError for anything else."""
    if not folder.is_dir():
        raise LostattnError(f"{folder} is not a folder: give a checkpoint's folder, patched or plain")
    return read_patched(folder).plan if is_patched(folder) else None


def _check_cache(folder: Path, plan: Plan, options: Sequence[str]) -> None:
    """Refuse the quantised KV cache that a checkpoint asks for, unless the options choose another."""
    asks = quantised_cache(read_json(folder / "config.json", "config.json"))
    if asks and not plan.inert and not names(options, "--kv-cache-dtype"):
        raise LostattnError(
            "the checkpoint asks for a quantised KV cache, which patched layers cannot read: add -- --kv-cache-dtype bfloat16"
        )


def check_plugin() -> None:
    """LostattnError unless vLLM will find lostattn's plugin."""
    result = importlib.metadata.entry_points(group="vllm.general_plugins")
    if not any(e.name == "lostattn" for e in result):
        raise LostattnError(
            "vLLM does not see lostattn's plugin: install lostattn where vLLM is (pip install lostattn, or pip install . in "
            "its source), a source folder on the path is not enough"
        )
    chosen = os.environ.get("VLLM_PLUGINS")
    if chosen is not None and "lostattn" not in chosen.split(","):
        raise LostattnError(f"VLLM_PLUGINS={chosen} keeps lostattn's plugin out: add lostattn to it, or unset it")


def plan_lines(plan: Plan) -> list[str]:
    """The plan in short: all of it but the heads of single layers."""
    return [line for line in describe_plan(plan) if not line.startswith("  ")]


def savings_rows(folder: Path, plan: Plan) -> list[list[str]]:
    """Predicted savings by image size: visual tokens, share of the attention's FLOPs, of the KV cache."""
    result = predict(plan, model_shape(read_json(folder / "config.json", "config.json")))
    rows = [p.as_row() for p in result]
    return [
        [str(r["visual_tokens"]), f"{r['attention_flops_saved_share']:.0%}", f"{r['kv_bytes_saved_share']:.0%}"]
        for r in rows
    ]


def key_lines(prepared: Prepared) -> list[str]:
    """What the API key covers, asked of the running server."""
    if not prepared.api_key:
        return ["no API key: whoever reaches the port may use everything (LOSTATTN_API_KEY or --api-key asks for one)"]
    result = open_endpoints(prepared.server)
    if result is None:
        return ["the API key covers everything but /health, /ping, /version, /load and /metrics"]
    return [f"without the API key: {', '.join(result)}; everything else asks for it"]


def curl_line(server: Server, api_key: bool) -> str:
    """A command that works as it stands: a question about a small picture."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((56, 56)).quantize(4).save(file, "PNG", optimize=True)
    picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "text", "text": "What is in the image?"},
    ]
    body = {"model": server.name, "max_tokens": 64, "messages": [{"role": "user", "content": content}]}
    key = '-H "Authorization: Bearer $LOSTATTN_API_KEY" ' if api_key else ""
    url = shlex.quote(f"{server.url}/chat/completions")
    return f"curl {url} -H 'Content-Type: application/json' {key}-d {shlex.quote(json.dumps(body))}"
