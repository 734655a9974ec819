"""New rows into a paged cache: text, running summaries, tables and prior, against the definition in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import FP8, ORDERS, Request, Scene, make_scene
from lostattn.serving.engine.kernels.triton_slots import SummaryTable
from lostattn.serving.engine.kernels.triton_write import EXTEND, KEEP, SKIP, specify_extended, write_rows

# text behind images, the first, a middle and the last token of an image, images side by side, a text alone, an image alone
STEPS = [
    Request(40, 1, ((3, 20),)),
    Request(21, 1, ((20, 50),)),
    Request(30, 1, ((4, 60),)),
    Request(33, 1, ((0, 5), (5, 33))),
    Request(32, 1, ((8, 12), (30, 31))),
    Request(17, 1),
    Request(1, 1, ((0, 1),)),
]
LIMIT = {torch.float32: 2e-6, torch.float16: 1e-5, torch.bfloat16: 1e-5, FP8: 2e-3}


def visual(request: Request) -> bool:
    return any(a <= request.length - 1 < b for a, b in request.spans)


def own_slots(scene: Scene) -> torch.Tensor:
    return torch.tensor([scene.slot(i, r.length - 1) for i, r in enumerate(scene.requests)])


def new_rows(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values (R, Hkv, D) of the last tokens, in the model's type."""
    k = torch.stack([k[-1] for k in scene.keys]).to(scene.q.dtype)
    return k, scene.new_v


def forget(scene: Scene, slots: torch.Tensor) -> None:
    """NaN into the slots that the step writes."""
    for x in (scene.cache.k, scene.cache.v):
        x[slots // scene.size, :, slots % scene.size] = (
            torch.nan if not scene.cache.is_fp8 else torch.tensor(448.0).to(FP8)
        )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "dtype, cache", [(d, d) for d in (torch.float32, torch.float16, torch.bfloat16)] + [(torch.bfloat16, FP8)]
)
@pytest.mark.parametrize("size, d", [(16, 64), (24, 80)])
def test_a_visual_row_extends_the_running_summary(
    order: str, dtype: torch.dtype, cache: torch.dtype, size: int, d: int
) -> None:
    scene = make_scene(STEPS, 1, dtype=dtype, cache_dtype=cache, order=order, size=size, d=d)
    slots, (k, v), text = own_slots(scene), new_rows(scene), scene.text()
    before = scene.cache.k.clone()
    forget(scene, slots)
    write_rows(scene.cache, k, v, scene.prior, slots, EXTEND, text.carry)
    mass, mean = scene.read_slots(slots)
    for i, request in enumerate(STEPS):
        at, offset = slots[i] // scene.size, slots[i] % scene.size
        if visual(request):
            wanted = scene.sums(i, request.length)
            assert wanted is not None
            assert (mass[i] - wanted[0]).abs() < 2e-6
            assert (mean[i] - wanted[1]).abs().max() < LIMIT[cache] * (1 + wanted[1].abs().max())
        elif not scene.cache.is_fp8:  # there the backend writes text
            assert torch.equal(scene.cache.k[at, :, offset], k[i].to(cache))
            assert torch.equal(scene.cache.v[at, :, offset], v[i].to(cache))
    others = torch.ones(before.shape[0], before.shape[2], dtype=torch.bool)
    others[slots // scene.size, slots % scene.size] = False
    kept = [x.float().nan_to_num(7.0).transpose(1, 2)[others] for x in (before, scene.cache.k)]
    assert torch.equal(*kept)


def test_skipped_rows_holes_and_the_null_block_are_left_alone() -> None:
    scene = make_scene(STEPS, 2)
    slots, (k, v) = own_slots(scene), new_rows(scene)
    slots[0], slots[5] = -1, 3  # no slot, and a slot of block 0
    forget(scene, slots.clamp_min(0))
    before = scene.cache.k.clone()
    write_rows(scene.cache, k, v, scene.prior, slots, SKIP)
    for i, request in enumerate(STEPS):
        at, offset = slots[i].clamp_min(0) // scene.size, slots[i].clamp_min(0) % scene.size
        if i in (0, 5) or visual(request):
            assert torch.equal(scene.cache.k[at, :, offset].nan_to_num(7.0), before[at, :, offset].nan_to_num(7.0))
        else:
            assert torch.equal(scene.cache.k[at, :, offset], k[i])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_full_caches_keep_all_rows_and_the_prior_and_go_on_with_the_table(order: str, dtype: torch.dtype) -> None:
    scene = make_scene(STEPS, 3, kind="mixed", dtype=dtype, order=order)
    slots, (k, v) = own_slots(scene), new_rows(scene)
    forget(scene, slots)
    store = torch.full_like(scene.store, 5.0)
    place = torch.tensor([4, 2, 0, 6, 1, -1, 3], dtype=torch.int32)
    log_mass, mean = torch.full((8,), -torch.inf), torch.zeros(8, 2, 64)
    for i, request in enumerate(STEPS):
        found = scene.sums(i, request.length - 1)
        if found is not None and place[i] >= 0:
            log_mass[place[i]], mean[place[i]] = found[0].float(), found[1].float()
    old = log_mass.clone(), mean.clone()
    write_rows(scene.cache, k, v, scene.prior, slots, KEEP, store=store, table=SummaryTable(log_mass, mean, place))
    for i, request in enumerate(STEPS):
        at, offset = slots[i] // scene.size, slots[i] % scene.size
        assert torch.equal(scene.cache.k[at, :, offset], k[i]) and torch.equal(scene.cache.v[at, :, offset], v[i])
        assert torch.equal(store[slots[i]].nan_to_num(9.0), scene.prior[i].nan_to_num(9.0))
        row = int(place[i])
        if row < 0:
            continue
        wanted = scene.sums(i, request.length)
        if wanted is None:
            assert log_mass[row] == -torch.inf
            continue
        assert (log_mass[row] - wanted[0]).abs() < 2e-6 and (mean[row] - wanted[1]).abs().max() < 1e-5
        if not visual(request):
            assert torch.equal(log_mass[row], old[0][row]) and torch.equal(mean[row], old[1][row])
    assert (store == 5.0).sum() == len(store) - len(slots)


def test_the_definition() -> None:
    p, v = torch.randn(6, dtype=torch.float64), torch.randn(6, 2, 8, dtype=torch.float64)
    mass, mean = torch.tensor(-torch.inf), torch.zeros(2, 8)
    for t in range(6):
        mass, mean = specify_extended(mass, mean, p[t], v[t])
    assert (mass - torch.logsumexp(p, 0)).abs() < 1e-12
    assert (mean - torch.einsum("t,tgd->gd", p.softmax(0), v)).abs().max() < 1e-12
