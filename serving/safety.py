"""vLLM options and environment that keep a server's users from harming it, and words about options that undo them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .engine.versions import installed_vllm
from .middleware import DOOR_VARIABLE, MAX_BYTES_VARIABLE
from .video_limits import VIDEO_LIMITS, VideoLimits

MAX_IMAGE_PIXELS = 50_000_000  # 150 MB decoded
MAX_IMAGES = 8
NOWHERE = "media.invalid"  # a name that RFC 2606 keeps from ever existing; serving/media.py knows it
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIDDLEWARE = f"{__package__}.middleware"
GIB = 2**30

UNSAFE = {
    "--trust-remote-code": "runs Python code that lies in the model's folder",
    "--allowed-local-media-path": "lets requests read picture files of this machine",
    "--allowed-media-domains": "lets requests make this machine fetch pictures from the domains named",
    "--trust-request-mm-kwargs": "lets requests change the image processor, and with it the size of pictures in memory",
    "--trust-request-chat-template": "lets requests bring chat templates of their own",
    "--enable-mm-embeds": "lets requests hand in embeddings, which vLLM does not check against bad shapes",
    "--enable-prompt-embeds": "lets requests hand in embeddings, which vLLM does not check against bad shapes",
    "--enable-scale-out": "lets requests end those of others, and hand in token ids in place of text",
    "--limit-mm-per-prompt": "replaces the limits of --max-images and --max-videos, also that on audio",
    "--config": "brings options that are not checked here",
    "--allowed-origins": "lets web pages of these origins use the server",
}
NOT_HANDED_ON = {  # environment of the owner that lets users harm each other
    "VLLM_SERVER_DEV_MODE": "its endpoints let anybody control the server",
    "VLLM_ENABLE_RESPONSES_API_STORE": "requests may choose the names of stored answers, and put theirs in the place of others",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "its endpoints let anybody change the model",
}


@dataclass(frozen=True)
class Safety:
    """Options and environment of the server's process, and lines that its owner should read."""

    options: list[str]
    env: dict[str, str]
    warnings: list[str] = field(default_factory=list)


def safe_defaults(
    host: str,
    key: bool,
    max_image_pixels: int,
    max_images: int,
    given: Sequence[str],
    max_videos: int = 0,
    videos: VideoLimits = VIDEO_LIMITS,
) -> Safety:
    """What to add to the vLLM options `given`; an option that is given wins, with a line that says what it undoes.

    Pixels are counted in the header of a picture or video, before it is decoded. No URL is fetched, no file read, no audio
    taken, and no video unless `max_videos` allows it. A request body may be as large as `max_images` uncompressed pictures of
    common size, 32 MiB each, and `max_videos` videos of 128 MiB.
    """
    options = ["--middleware", f"{MIDDLEWARE}.LimitRequests", "--middleware", f"{MIDDLEWARE}.RequireKey"]
    if not names(given, "--limit-mm-per-prompt"):
        options += ["--limit-mm-per-prompt", json.dumps({"image": max_images, "video": max_videos, "audio": 0})]
    if not names(given, "--allowed-media-domains"):
        options += ["--allowed-media-domains", NOWHERE]
    env = {
        "VLLM_MEDIA_CONNECTOR": os.environ.get("VLLM_MEDIA_CONNECTOR") or "lostattn",
        "VLLM_MAX_IMAGE_PIXELS": str(max_image_pixels),
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MAX_N_SEQUENCES": "64",
        **dict.fromkeys(NOT_HANDED_ON, "0"),
        DOOR_VARIABLE: "1",
        MAX_BYTES_VARIABLE: str((max_images + 1 + 4 * max_videos) * 32 * 2**20),
        **videos.to_env(),
    }
    warnings = [f"{option} {what}" for option, what in UNSAFE.items() if names(given, option)]
    if host not in LOOPBACK:
        warnings.insert(
            0,
            f"--host {host} opens the server to other machines "
            + ("(without encryption: put a TLS proxy in front)" if key else "without a key: set --api-key"),
        )
    warnings += [f"VLLM_MEDIA_CONNECTOR={env['VLLM_MEDIA_CONNECTOR']} decides where pictures may come from"] * (
        env["VLLM_MEDIA_CONNECTOR"] != "lostattn"
    )
    asked = [name for name in NOT_HANDED_ON if os.environ.get(name, "0") not in ("", "0")]
    warnings += [f"{name} is not handed on: {NOT_HANDED_ON[name]}" for name in asked]
    return Safety(options, env, warnings)


def cpu_defaults(folder: Path, given: Sequence[str]) -> Safety:
    """Memory of the KV cache on a CPU build of vLLM, which would ask for nearly the whole machine; nothing on a GPU.

    A quarter of what is free beside the weights, 1 to 16 GiB, with the longest context that fits into it.
    """
    if not on_cpu():
        return Safety([], {})
    options = [] if names(given, "--max-model-len") else ["--max-model-len", "auto"]
    own = os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    if own or names(given, "--gpu-memory-utilization") or names(given, "--kv-cache-memory-bytes"):
        return Safety(options, {})
    import psutil

    weights = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    gib = max(1, min(16, (psutil.virtual_memory().available - 2 * weights) // (4 * GIB)))
    return Safety(options, {"VLLM_CPU_KVCACHE_SPACE": str(gib)})


def on_cpu() -> bool:
    """Whether the vLLM that is installed is a CPU build."""
    result = installed_vllm()
    return result is not None and (result[0] == "vllm-cpu" or "cpu" in result[1])


def names(given: Sequence[str], option: str) -> bool:
    """Whether an option is among vLLM's arguments: `--a-b c`, `--a_b=c`, `--no-a-b`, `--a-b.key c`, or shortened."""
    heads = (g.split("=", 1)[0].split(".", 1)[0].replace("_", "-") for g in given if g.startswith("--"))
    return any((len(h) > 4 and option.startswith(h)) or h in (option, f"--no-{option[2:]}") for h in heads)
