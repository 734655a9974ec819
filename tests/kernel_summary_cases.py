"""Running sums and sums of whole requests in Triton against their definitions in float64, on any device."""

from __future__ import annotations

import torch
from kernel_cases import Request, Scene, make_scene
from kernel_decode_cases import table_of
from lostattn.serving.engine.kernels.triton_prepare import Text, prepare_rows
from lostattn.serving.engine.kernels.triton_slots import SummaryTable
from lostattn.serving.engine.kernels.triton_summaries import RunningSums, running_sums, specify_running
from lostattn.serving.engine.kernels.triton_whole_sums import WholeScratch, whole_sums

STEPS = [
    Request(320, 280, ((20, 130), (130, 131), (180, 310))),
    Request(0, 0),
    Request(60, 60, ((0, 60),)),
    Request(45, 5),
    Request(90, 20, ((3, 70), (75, 80))),
    Request(99, 40, ((60, 80), (98, 99))),
    Request(64, 1, ((60, 64),)),
    Request(9, 9),
]


def run_sums(scene: Scene, text: Text, slots: torch.Tensor | None = None) -> RunningSums:
    """`running_sums` of a scene into buffers of NaN; the carry lies in the cache or a table."""
    kv_heads, d = scene.cache.k.shape[1], scene.cache.k.shape[3]
    rows = torch.full((len(scene.new_v), 2 * kv_heads, 2 * d), torch.nan, dtype=scene.q.dtype, device=scene.q.device)
    v = rows[:, :kv_heads, d:]
    v.copy_(scene.new_v)
    sums = RunningSums.of(len(v), len(scene.requests), kv_heads, d, v.device)
    for buffer in (sums.log_mass, sums.mean, sums.top, sums.mass, sums.part):
        buffer.fill_(torch.nan)
    carry = text.carry if scene.kind == "summary" else table_of(scene, before=True)
    running_sums(sums, scene.prior, v, scene.starts, scene.cache, carry, slots)
    return sums


def kept_slots(scene: Scene) -> torch.Tensor:
    """Flat slots for visual rows in front of text, of the end of a block or of the step, where the block is real."""
    found = []
    for i, request in enumerate(scene.requests):
        p = scene.priors[i]
        for x in range(request.length - request.new, request.length):
            last = x + 1 == request.length or bool(p[x + 1].isnan()) or not (x + 1) % scene.size
            real = int(scene.table[i, x // scene.size]) > 0
            found.append(scene.slot(i, x) if last and real and not p[x].isnan() else -1)
    return torch.tensor(found, dtype=torch.int64, device=scene.table.device)


def check_running(requests: list[Request], seed: int = 0, **options: object) -> None:
    scene = make_scene(requests, seed, **options)  # type: ignore[arg-type]
    slots = kept_slots(scene) if scene.kind == "summary" else None
    seen = torch.full((len(scene.prior),), -9, dtype=torch.int32, device=scene.q.device)
    prepare_rows(seen, scene.starts, scene.lengths, scene.spans)
    sums = run_sums(scene, scene.text(), slots)
    rows, scale = len(scene.prior), 1 + 1e-2 * float(scene.prior.nan_to_num(0).abs().max())
    for i, request in enumerate(requests):
        start, past = int(scene.starts[i]), request.length - request.new
        carry = scene.sums(i, past)
        log_mass, mean = specify_running(scene.priors[i][past:], scene.values[i][past:], carry)
        own = seen[start : start + request.new].long().cpu()
        assert torch.equal(own < 0, log_mass == -torch.inf)
        limit = 3e-6 if carry is None or not scene.cache.is_fp8 else 3e-3
        close(sums.log_mass.cpu()[own][own >= 0], log_mass[own >= 0], 3e-6 * scale)
        close(sums.mean.cpu()[own][own >= 0], mean[own >= 0], limit * scale)
        at = sums.log_mass[rows + i]
        assert at == -torch.inf if carry is None else abs(float(at) - float(carry[0])) < 3e-6 * scale
    if slots is None:
        return
    at = (slots >= 0).nonzero()[:, 0]
    log_mass, mean = scene.read_slots(slots[at])
    close(log_mass, sums.log_mass[at], 0.0)
    for x, y in zip(mean, sums.mean[at], strict=True):  # of a float32, of a float16 by the largest channel
        bound = (1.5 * 2**-10 * y.abs() + 2**-38 * y.abs().max()) if scene.cache.is_fp8 else 2**-23 * y.abs()
        assert ((x - y).abs() <= bound).all()


def close(found: torch.Tensor, wanted: torch.Tensor, limit: float) -> None:
    if found.numel():
        error = (found.double() - wanted.double()).abs().max()
        assert error <= limit, f"{error:.1e} above {limit:.1e}"


def check_whole(requests: list[Request], seed: int = 0, splits: int = 3, **options: object) -> None:
    """Rows of the requests that have a place, the others left as they are; twice with the same counters."""
    requests = [Request(r.length, 0, r.spans) for r in requests]
    scene = make_scene(requests, seed, kind="mixed", **options)  # type: ignore[arg-type]
    right = table_of(scene)
    count = len(requests)
    place = torch.tensor(
        [-1 if i % 4 == 3 else count - 1 - i for i in range(count)], dtype=torch.int32, device=scene.q.device
    )
    found = SummaryTable(torch.full_like(right.log_mass, -7), torch.full_like(right.mean, -7), place)
    scratch = WholeScratch.of(count, scene.cache.k.shape[1], scene.cache.k.shape[3], splits, scene.q.device)
    for _ in range(2):
        for buffer in (scratch.part, scratch.top, scratch.mass):
            buffer.fill_(torch.nan)
        whole_sums(found, scene.cache, scene.table, scene.lengths, scene.store, scratch)
        assert not scratch.done.any()
    scale = 1 + 1e-2 * float(scene.store.nan_to_num(0).abs().max())
    for i in range(count):
        row, wanted = int(place[i]), scene.sums(i, requests[i].length)
        if row < 0:
            continue
        if wanted is None:
            assert found.log_mass[row] == -torch.inf and (found.mean[row] == 0).all()
            continue
        close(found.log_mass[row].cpu(), wanted[0], 3e-6 * scale)
        close(found.mean[row].cpu(), wanted[1], 3e-6 * scale)
    rest = torch.ones(len(found.log_mass), dtype=torch.bool)
    rest[place[place >= 0].long().cpu()] = False
    assert (found.log_mass.cpu()[rest] == -7).all() and (found.mean.cpu()[rest] == -7).all()
