"""What a running server tells about its cache: the pool, its blocks, its dtype, its longest request."""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass

from ...patches.errors import LostattnError
from ..cause import cause

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Pool:
    """The KV cache pool of a server.

    `block_bytes` is the pool's size over its number of blocks, down to whole KiB; `max_concurrency` is vLLM's own figure,
    for requests of the longest length.
    """

    blocks: int
    block_bytes: int
    max_concurrency: float


def healthy(root: str) -> bool:
    """Whether the server says that its engine lives."""
    try:
        fetch(root, "health")
    except LostattnError:
        return False
    return True


def fetch(root: str, page: str = "metrics") -> str:
    """The text of /metrics. Raises LostattnError if the server does not answer."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{root}/{page}", timeout=30) as answer:
            return str(answer.read().decode("utf-8", errors="replace"))
    except OSError as error:
        raise LostattnError(f"the server does not answer any more ({cause(error)}): see its log") from error


def read_pool(text: str) -> Pool:
    """The pool from the text of /metrics.

    Raises:
        LostattnError: figures are missing, as with other versions of vLLM, or the pool's size was not set.
    """
    line = next((x for x in text.splitlines() if x.startswith("vllm:cache_config_info{")), "")
    labels = dict(_LABEL.findall(line))
    try:
        blocks, total = int(labels["num_gpu_blocks"]), int(labels["kv_cache_memory_bytes"])
        concurrency = float(labels["kv_cache_max_concurrency"])
    except (KeyError, ValueError) as error:
        raise LostattnError(
            "vLLM's /metrics do not tell the size of the KV cache: leave --disable-log-stats out, use vLLM 0.32 or 0.33"
        ) from error
    return Pool(blocks, total // blocks // 1024 * 1024, concurrency)


def log_dtype(log: str) -> str | None:
    """The dtype in which vLLM says to run the model, such as `bfloat16`."""
    result = re.search(r"\bdtype=torch\.(\w+)", log)
    return result[1] if result else None


def log_longest(log: str) -> int | None:
    """The longest request that vLLM says to take, in tokens; its maximum concurrency is for such requests."""
    result = re.search(r"\bmax_seq_len=(\d+)", log)
    return int(result[1]) if result else None
