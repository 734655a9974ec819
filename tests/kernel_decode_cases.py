"""Decode steps in Triton against the formula and the eager oracle, on any device."""

from __future__ import annotations

import torch
from kernel_cases import LIMIT, Request, Scene, make_scene
from lostattn.serving.engine.kernels.triton_decode import DecodeScratch, decode, specify_decode
from lostattn.serving.engine.kernels.triton_slots import SummaryTable


def table_of(scene: Scene, before: bool = False) -> SummaryTable:
    """Summaries of all requests in rows of a table, in another order, the others NaN."""
    count, heads, d = len(scene.requests), scene.cache.k.shape[1], scene.cache.k.shape[3]
    log_mass, mean = torch.full((2 * count,), torch.nan), torch.full((2 * count, heads, d), torch.nan)
    place = torch.full((count,), -1, dtype=torch.int32)
    for i, request in enumerate(scene.requests):
        found = scene.sums(i, request.length - request.new if before else request.length)
        if found is not None:
            place[i] = 2 * count - 1 - 2 * i
            log_mass[place[i]], mean[place[i]] = found[0].float(), found[1].float()
    return SummaryTable(*(x.to(scene.table.device) for x in (log_mass, mean, place)))


def check_decode(
    requests: list[Request],
    seed: int = 0,
    *,
    splits: int = 1,
    wanted: list[int] | None = None,
    launches: int = 2,
    **options: object,
) -> None:
    """All rows against the oracle and the formula; heads that are not wanted stay as they were."""
    scene = make_scene(requests, seed, **options)  # type: ignore[arg-type]
    rows, heads, d = len(requests), scene.q.shape[1], scene.q.shape[2]
    device = scene.q.device
    table = table_of(scene) if scene.kind == "mixed" else None
    mask = None if wanted is None else torch.tensor([h in wanted for h in range(heads)], device=device)
    text = scene.text()
    scratch = DecodeScratch.of(rows, heads, scene.cache.k.shape[1], d, splits, device)
    q = spread_rows(scene)
    for _ in range(launches):  # the second finds the counters at zero
        out = torch.full((rows, heads, d), -7.0, dtype=scene.q.dtype, device=device)
        scratch.part.fill_(torch.nan)
        scratch.lse.fill_(torch.nan)
        decode(out, q, scene.cache, text, scratch, scene.scale, scene.level, mask, table)
        assert not scratch.done.any()
    compare(scene, out.cpu(), wanted)
    if table is None and not scene.cache.is_fp8 and device.type == "cpu":  # which is a launch a number on a GPU
        formula = specify_decode(q, scene.cache, text, *slot_sums(scene), scene.level, scene.scale)
        assert (out.double() - formula).abs().max() < LIMIT[scene.q.dtype]


def spread_rows(scene: Scene) -> torch.Tensor:
    """One query row per request, also for those that pad the batch: (R, H, D), strided."""
    rows = torch.zeros(
        len(scene.requests), scene.q.shape[1], 2 * scene.q.shape[2], dtype=scene.q.dtype, device=scene.q.device
    )
    for i, request in enumerate(scene.requests):
        if request.length:
            rows[i, :, : scene.q.shape[2]] = scene.q[int(scene.starts[i])]
    return rows[..., : scene.q.shape[2]]


def slot_sums(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Log mass (R,) and mean (R, Hkv, D) of all requests."""
    found = [scene.sums(i, r.length) for i, r in enumerate(scene.requests)]
    nothing = torch.tensor(-torch.inf), torch.zeros(scene.cache.k.shape[1], scene.cache.k.shape[3])
    log_mass, mean = zip(*(f or nothing for f in found), strict=True)
    return torch.stack([x.double() for x in log_mass]), torch.stack([x.double() for x in mean])


def compare(scene: Scene, out: torch.Tensor, wanted: list[int] | None) -> None:
    heads = list(range(out.shape[1])) if wanted is None else wanted
    rest = [h for h in range(out.shape[1]) if h not in heads]
    limit = LIMIT[scene.q.dtype] + (
        1.5e-3 if scene.cache.is_fp8 and scene.kind == "summary" else 0
    )  # of a mean below 1 in 16 bits
    for i, request in enumerate(scene.requests):
        assert (out[i, rest] == -7).all()
        if not request.length or not heads:
            assert (out[i, heads] == 0).all()
            continue
        error = (out[i, heads].double() - scene.expected(i)[0, heads]).abs().max()
        assert error < limit, f"request {i} of {scene.requests}: {error:.1e}"


# no image, image first, last before the row, adjacent, many, one token, padding of the batch, a row that only sees itself
MANY = tuple((a, a + 1 + a % 5) for a in range(3, 120, 9))
BATCH = [
    Request(130, 1, ((5, 60), (60, 97))),
    Request(21, 1),
    Request(0, 0),
    Request(76, 1, ((0, 75),)),
    Request(90, 1, ((0, 40), (88, 89))),
    Request(1, 1),
    Request(131, 1, MANY),
    Request(65, 1, ((63, 64),)),
    Request(49, 1, ((16, 48),)),
]
