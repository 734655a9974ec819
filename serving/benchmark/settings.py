"""What a benchmark measures, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...patches.errors import LostattnError
from .load import Load
from .sizes import Size

TEMPLATE = 128  # tokens that the chat template and a second tokenisation may add to a request
LEAST_POOL = 64 * 2**20


@dataclass(frozen=True)
class BenchSettings:
    """Settings of `lostattn bench serve`.

    Attributes:
        visual_tokens: wanted sizes of the one picture of a request; empty takes those of 256, 1024, 4096 that fit.
        videos: a request has a video in place of a picture.
        concurrency: requests at once.
        text_tokens, output_tokens: of each request.
        repeats: how often every load is put on every server, at least 2 for a spread.
        requests: per load; None is twice the concurrency, at least 4.
        warmups: requests in front of every load that do not count; None is the concurrency.
        kv_budget: bytes of each server's KV pool; None is what the original needs at the largest load.
        options: further options of `vllm serve`, the same for all servers.
        together: all servers alive at once; None decides by memory.
        seed: of pictures and texts.
    """

    visual_tokens: tuple[int, ...] = ()
    concurrency: tuple[int, ...] = (1, 8, 32)
    text_tokens: int = 96
    output_tokens: int = 64
    repeats: int = 3
    requests: int | None = None
    warmups: int | None = None
    kv_budget: int | None = None
    options: tuple[str, ...] = ()
    together: bool | None = None
    seed: int = 0
    videos: bool = False

    def __post_init__(self) -> None:
        numbers = {
            "visual tokens": self.visual_tokens,
            "concurrency": self.concurrency,
            "text tokens": (self.text_tokens,),
            "repeats": (self.repeats,),
            "requests": (self.requests or 1,),
        }
        for what, values in numbers.items():
            if any(v < 1 for v in values):
                raise LostattnError(f"{what} must be 1 or more, not {min(values)}")
        if not self.concurrency:
            raise LostattnError("give at least one concurrency, such as 1,8")
        if self.output_tokens < 2:
            raise LostattnError("decoding is timed between tokens: --output-tokens must be 2 or more")
        if self.kv_budget is not None and self.kv_budget < 2**20:
            raise LostattnError("a KV budget below 1 MiB serves no request: give more GiB with --kv-budget")

    def to_json(self) -> dict[str, Any]:
        """Settings as they were asked for."""
        return asdict(self)


@dataclass(frozen=True)
class LoadRun:
    """One load on one server. `repeat` 0, 1, ...: jobs that share size, concurrency and repeat get the same load."""

    side: str
    size: Size
    concurrency: int
    repeat: int

    @property
    def key(self) -> str:
        """Names the job in the file of finished ones."""
        return f"{self.side} {self.size.visual} {self.concurrency} {self.repeat}"


def schedule(
    names: Sequence[str], sizes: Sequence[Size], concurrency: Sequence[int], repeats: int, together: bool
) -> Iterator[LoadRun]:
    """All jobs, the order of the models reversed in every other repeat (A B, B A, ...) so that drift hits all.

    With all servers alive the models take turns within every load, else within every repeat of all loads.
    """
    points = [(size, c) for size in sizes for c in sorted(set(concurrency))]
    if together:
        turns = [(point, repeat) for point in points for repeat in range(repeats)]
        for (size, c), repeat in turns:
            yield from (LoadRun(name, size, c, repeat) for name in _order(names, repeat))
        return
    for repeat in range(repeats):
        for name in _order(names, repeat):
            yield from (LoadRun(name, size, c, repeat) for size, c in points)


def _order(names: Sequence[str], repeat: int) -> list[str]:
    return list(names) if repeat % 2 == 0 else list(names)[::-1]


def make_load(job: LoadRun, settings: BenchSettings) -> Load:
    """The load of a job; its seed differs from those of other loads, so that no cache knows its pictures."""
    requests = settings.requests or max(4, 2 * job.concurrency)
    warmups = job.concurrency if settings.warmups is None else settings.warmups
    seed = settings.seed + 7919 * job.repeat + 104729 * job.concurrency + 1299709 * job.size.visual
    return Load(
        job.size, job.concurrency, requests, settings.text_tokens, settings.output_tokens, seed % 2**31, warmups
    )


def longest_request(sizes: Sequence[Size], settings: BenchSettings) -> int:
    """Tokens that the servers have to take, up to a multiple of 256."""
    need = max(s.visual for s in sizes) + settings.text_tokens + settings.output_tokens + TEMPLATE
    return -(-need // 256) * 256


def cache_scale(extra: Sequence[str], dtype_bytes: int) -> float:
    """How many times larger a cache of the dtype in vLLM's options is than one of `dtype_bytes` a number."""
    wanted = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
    words = [part for option in extra for part in option.split("=", 1)]
    chosen = [wanted[b] for a, b in zip(words, words[1:], strict=False) if a == "--dtype" and b in wanted]
    return chosen[-1] / dtype_bytes if chosen else 1.0


def server_options(kv_budget: int, longest: int, extra: Sequence[str], videos: bool = False) -> list[str]:
    """Of `vllm serve`: the same pool for all, no prefix cache, lengths as long as needed; later ones win."""
    own = ["--kv-cache-memory-bytes", str(kv_budget), "--no-enable-prefix-caching"]
    own += ["--limit-mm-per-prompt", '{"image": 0, "video": 1}'] * videos
    if not any(x.split("=")[0] in ("--max-model-len", "--max_model_len") for x in extra):
        own += ["--max-model-len", str(longest)]
    return [*own, *extra]
