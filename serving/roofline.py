"""What serving a model on a GPU takes at the least, by arithmetic: time of prefill and decode steps, requests that fit.

A roofline: each part of a step takes as long as the slower of its bytes and its FLOPs, at a share of the GPU's peak figures;
kernels add a fixed cost each. Nothing here is measured. `docs/gpu.md` explains the terms; `Assumptions` holds every number that
is neither the GPU's, the model's nor the plan's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..patches.errors import LostattnError
from ..patches.family import get_family
from ..patches.plan import Plan
from .attention_flops import attention_flops, flops_of_visual_keys
from .byte_model import kv_bytes, layer_bytes, owning, saves, whole_groups
from .gpus import Gpu
from .model_size import ModelSize
from .shape import Shape


@dataclass(frozen=True)
class Assumptions:
    """What a prediction takes for granted.

    Attributes:
        bandwidth_share, matmul_share, attention_share: of the GPU's peak bandwidth, and of its peak FLOPs in matrix products
            and in attention.
        kernel: seconds that a kernel takes beside its work. layer_kernels: kernels of a decoder layer.
        scattered_kernels: further ones of a layer some of whose patched heads share a KV head with others.
        launch: seconds of host time for a launch outside a CUDA graph, hidden while the GPU has more to do. A decode step
            is one graph, a prefill step none.
        prefill_launches: further launches of a patched layer's attention in a prefill step.
        all_reduce: seconds of one beside its bytes, twice a layer, with tensor parallelism.
        block: tokens of a KV-cache block. chunk: most tokens of a prefill step.
        memory_share: of the GPU's memory that vLLM takes (`--gpu-memory-utilization`).
        reserve: bytes of it for activations and graphs.
    """

    bandwidth_share: float = 0.8
    matmul_share: float = 0.65
    attention_share: float = 0.5
    kernel: float = 1.5e-6
    layer_kernels: int = 11
    scattered_kernels: int = 2
    launch: float = 5e-6
    prefill_launches: int = 4
    all_reduce: float = 10e-6
    block: int = 16
    chunk: int = 8192
    memory_share: float = 0.92
    reserve: float = 3e9


@dataclass(frozen=True)
class Request:
    """Tokens of a request: text, one image, text; what it answers counts as text behind the image."""

    before: int
    visual: int
    after: int

    @property
    def text(self) -> int:
        """Tokens that are no image's."""
        return self.before + self.after

    @property
    def tokens(self) -> int:
        """All."""
        return self.text + self.visual


@dataclass(frozen=True)
class Deployment:
    """A model on one or more GPUs of a kind.

    Attributes:
        shape: of the decoder; `dtype_bytes` of one number in the KV cache.
        decode_bytes, all_bytes: weights that a decode step reads, and all that lie in memory, of all ranks together.
        ranks: tensor-parallel GPUs.

    Raises:
        LostattnError: heads that cannot be shared out.
    """

    gpu: Gpu
    shape: Shape
    size: ModelSize
    decode_bytes: float
    all_bytes: float
    ranks: int = 1
    assumed: Assumptions = Assumptions()

    def __post_init__(self) -> None:
        heads, kv = self.shape.heads, self.shape.kv_heads
        if self.shape.table or self.shape.experts:
            raise LostattnError(
                "times are predicted for decoders whose layers are all alike and have no experts, and this one's are not: "
                "measure it (lostattn bench serve)"
            )
        if heads % self.ranks or (kv % self.ranks and self.ranks % kv):
            raise LostattnError(
                f"{heads} heads with {kv} KV heads cannot be shared out to {self.ranks} GPUs: choose another "
                "--tensor-parallel"
            )

    @property
    def bandwidth(self) -> float:
        """Bytes/s of one GPU's memory."""
        return self.gpu.bandwidth * self.assumed.bandwidth_share

    @property
    def kv_heads(self) -> int:
        """KV heads of one rank; with more ranks than there are, each has a copy of one."""
        return max(self.shape.kv_heads // self.ranks, 1)

    def matmul(self, weights: float, weight_bytes: float, rows: float) -> float:
        """Seconds of multiplying `rows` rows with weights, shared out to the ranks."""
        flops = 2 * weights * rows / (self.gpu.flops * self.assumed.matmul_share)
        return max(weight_bytes / self.bandwidth, flops) / self.ranks

    def reduce(self, rows: float) -> float:
        """Seconds of the all-reduces of one step."""
        if self.ranks == 1:
            return 0.0
        sent = rows * self.size.hidden * self.shape.dtype_bytes * 2 * (self.ranks - 1) / self.ranks
        return 2 * self.shape.layers * (self.assumed.all_reduce + sent / self.gpu.link)


def rank_kv_bytes(on: Deployment, plan: Plan | None, request: Request) -> int:
    """Bytes of a request's KV cache that a decode step reads on one rank: whole groups its text and one summary."""
    return kv_bytes(on.shape, plan, request.text, request.visual, on.ranks)


def rank_block_bytes(on: Deployment, plan: Plan | None, request: Request) -> int:
    """Bytes of the blocks that a request holds on one rank. A whole group keeps no block strictly inside the image but the
    one with its last token and the one in front of it."""
    size, shape = on.assumed.block, on.shape
    tokens = -(-request.tokens // size) * size
    first, end = request.before, request.before + request.visual
    holes = max((end - 1) // size - 1 - -(-first // size), 0) * size
    return sum(layer_bytes(shape, plan, i, tokens, holes, on.ranks) for i in owning(shape))


def fitting(on: Deployment, plan: Plan | None, request: Request) -> int:
    """Requests whose KV cache fits into the memory at once; 0 if not even the weights do."""
    room = on.gpu.memory * on.assumed.memory_share - on.assumed.reserve - on.all_bytes / on.ranks
    return max(int(room // rank_block_bytes(on, plan, request)), 0)


def decode_step(on: Deployment, plan: Plan | None, request: Request, requests: int) -> float:
    """Seconds of one decode step of equal requests, which gives one token each."""
    assumed = on.assumed
    weights = on.size.decoder + on.size.head
    device = on.matmul(weights, on.decode_bytes, requests) + on.reduce(requests)
    read = requests * (rank_kv_bytes(on, plan, request) + _read_twice(on, plan, request))
    # two products of 2 D operations for each key and query head; the heads of a rank share its KV heads
    flops = 2 * on.shape.heads / on.ranks / on.kv_heads * read / on.shape.dtype_bytes
    device += max(read / on.bandwidth, flops / (on.gpu.flops * assumed.attention_share))
    kernels = on.shape.layers * assumed.layer_kernels + len(_scattered(on, plan)) * assumed.scattered_kernels
    return max(device + kernels * assumed.kernel, assumed.launch)


def _scattered(on: Deployment, plan: Plan | None) -> dict[int, float]:
    """Layers with patched heads outside whole groups, and the KV heads of one rank that serve such heads."""
    results: dict[int, float] = {}
    if plan is not None and not plan.inert and saves(plan):
        for index, heads in plan.heads.items():
            touched = len({h * on.shape.every[index].kv_heads // plan.num_heads for h in heads})
            results[index] = max(touched / on.ranks - whole_groups(plan, index, on.ranks), 0.0)
    return {index: heads for index, heads in results.items() if heads}


def _read_twice(on: Deployment, plan: Plan | None, request: Request) -> float:
    """Bytes of text that scattered heads read besides the native kernel, which computes all heads of their KV heads."""
    token = 2 * request.text * on.shape.dtype_bytes
    return sum(heads * on.shape.every[index].head_dim * token for index, heads in _scattered(on, plan).items())


def _prefill_host(on: Deployment, plan: Plan | None) -> float:
    """Seconds of launching one prefill step."""
    a = on.assumed
    patched = 0 if plan is None or plan.inert else len(plan.heads)
    return (on.shape.layers * a.layer_kernels + patched * a.prefill_launches) * a.launch


def _prefill_attention(on: Deployment, plan: Plan | None, request: Request) -> float:
    """FLOPs of a request's attention on all ranks together. Whole groups meet no visual key; other patched heads meet text
    keys besides what the native kernel computes for all heads."""
    flops = attention_flops(on.shape, request.tokens)
    if plan is None or plan.inert or not saves(plan) or get_family(plan.family).both_ways:  # not served
        return flops
    visual, before, after = request.visual, request.before, request.after
    pairs = before * (before + 1) / 2 + (visual + after) * before + after * (after + 1) / 2
    for index, heads in plan.heads.items():
        layer, whole = on.shape.every[index], whole_groups(plan, index, on.ranks) * on.ranks
        saving = whole * plan.num_heads // layer.kv_heads
        flops -= flops_of_visual_keys(layer.head_dim, saving, whole, visual, visual, after)
        flops += max(len(heads) - saving, 0) * pairs * 4 * layer.head_dim
    return flops


def prefill(on: Deployment, plan: Plan | None, request: Request, requests: int) -> float:
    """Seconds until equal requests that come together all have their first token, without what the vision tower attends."""
    assumed, size = on.assumed, on.size
    tokens = requests * request.tokens
    steps = -(-tokens // assumed.chunk)
    body = on.decode_bytes * size.decoder / (size.decoder + size.head)
    seconds = on.matmul(size.decoder, steps * body, tokens)
    seconds += on.matmul(size.head, steps * (on.decode_bytes - body), requests)
    vision_bytes = size.vision * on.shape.dtype_bytes
    seconds += on.matmul(size.vision, steps * vision_bytes, requests * request.visual * size.patches)
    flops = _prefill_attention(on, plan, request)
    seconds += requests * flops / on.ranks / (on.gpu.flops * assumed.attention_share)
    seconds += steps * on.shape.layers * assumed.layer_kernels * assumed.kernel
    seconds += steps * on.reduce(0) + on.reduce(tokens) - on.reduce(0)
    return max(seconds, steps * _prefill_host(on, plan))


@dataclass(frozen=True)
class Served:
    """A model under so many requests at once; times in ms, tokens/s of all requests together.

    Attributes:
        fits: whether the KV caches of all of them lie in the memory at once; if not, some wait, which is not predicted.
    """

    prefill_ms: float
    step_ms: float
    tokens_per_s: float
    fits: bool


@dataclass(frozen=True)
class Row:
    """Unpatched and patched side by side; `prefill_ratio` and `decode_ratio` above 1 mean that the plan is faster."""

    requests: int
    original: Served
    patched: Served

    @property
    def prefill_ratio(self) -> float:
        """How many times faster the prompts are read."""
        return self.original.prefill_ms / self.patched.prefill_ms

    @property
    def decode_ratio(self) -> float:
        """How many times more tokens/s are decoded."""
        return self.patched.tokens_per_s / self.original.tokens_per_s


def serve(on: Deployment, plan: Plan | None, request: Request, requests: int) -> Served:
    """A model under `requests` equal requests."""
    step = decode_step(on, plan, request, requests)
    first = prefill(on, plan, request, requests)
    return Served(1e3 * first, 1e3 * step, requests / step, requests <= fitting(on, plan, request))


def compare(on: Deployment, plan: Plan, request: Request, counts: tuple[int, ...]) -> list[Row]:
    """One row for each number of requests."""
    return [Row(n, serve(on, None, request, n), serve(on, plan, request, n)) for n in counts]


def in_16_bits(shape: Shape) -> Shape:
    """The shape as vLLM serves it on a GPU: float32 checkpoints in 16 bits."""
    return replace(shape, dtype_bytes=min(shape.dtype_bytes, 2))
