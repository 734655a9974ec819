"""Prefill chunks and few rows a request in Triton, with the sums and the cache that they go on from, against the eager oracle."""

from __future__ import annotations

import torch
from kernel_cases import LIMIT, Request, Scene, make_scene
from kernel_summary_cases import kept_slots, run_sums
from lostattn.serving.engine.kernels.triton_prefill import prefill, specify_prefill
from lostattn.serving.engine.kernels.triton_prepare import prepare_rows

# no image, an image alone, in front of, within and behind the rows, rows of a padded batch
OTHERS = 2
CHUNKS = [
    Request(40, 0, ((3, 20),)),
    Request(90, 70, ((25, 60), (60, 61), (75, 80))),
    Request(0, 0),
    Request(33, 33, ((0, 33),)),
    Request(60, 12, ((3, 40),)),
    Request(40, 40),
    Request(30, 9, ((10, 25), (29, 30))),
    Request(1, 1),
]
FEW = [
    Request(90, 4, ((20, 70),)),
    Request(50, 3),
    Request(77, 4, ((0, 76),)),
    Request(0, 0),
    Request(64, 1, ((10, 63),)),
]


def check_prefill(
    requests: list[Request], seed: int = 0, wanted: list[int] | None = None, formula: bool = False, **options: object
) -> None:
    """Every row of every request; heads that are not wanted and rows of nobody stay as they were."""
    scene = make_scene(requests, seed, **options)  # type: ignore[arg-type]
    slots = kept_slots(scene) if scene.kind == "summary" else None
    slots = _behind_others(scene, slots)
    device, (rows, heads, d) = scene.q.device, scene.q.shape
    new = len(scene.prior)
    seen = torch.full((new,), -1, dtype=torch.int32, device=device)
    prepare_rows(seen, scene.starts, scene.lengths, scene.spans)
    text = scene.text()
    sums = run_sums(scene, text, slots)
    mask = None if wanted is None else torch.tensor([h in wanted for h in range(heads)], device=device)
    out = torch.full((rows, 2 * heads, d), -7.0, dtype=scene.q.dtype, device=device)[:, :heads]
    prefill(out, scene.q, scene.cache, text, scene.starts, scene.lengths, sums, seen, scene.scale, scene.level, mask)
    compare(scene, out.cpu(), wanted)
    if formula:
        found = specify_prefill(
            scene.q[:new], scene.cache, text, scene.starts, scene.lengths, sums, seen, scene.level, scene.scale
        )
        assert (out[OTHERS:new].double() - found[OTHERS:]).abs().max() < LIMIT[scene.q.dtype]


def _behind_others(scene: Scene, slots: torch.Tensor | None) -> torch.Tensor | None:
    """Put two rows of nobody in front: `decode` has them."""
    others = (
        scene.prior[:1].new_full((OTHERS,), torch.nan),
        torch.full_like(scene.new_v[:1], torch.nan).expand(OTHERS, -1, -1),
    )
    scene.starts += OTHERS
    scene.prior, scene.new_v = torch.cat([others[0], scene.prior]), torch.cat([others[1], scene.new_v])
    return slots if slots is None else torch.cat([slots.new_full((OTHERS,), -1), slots])


def compare(scene: Scene, out: torch.Tensor, wanted: list[int] | None) -> None:
    heads = list(range(out.shape[1])) if wanted is None else wanted
    rest = [h for h in range(out.shape[1]) if h not in heads]
    limit = LIMIT[scene.q.dtype] + (
        4e-3 if scene.cache.is_fp8 and scene.kind == "summary" else 0
    )  # of a carried mean of few tokens
    assert (out[:OTHERS] == -7).all() and (out[len(scene.prior) :] == -7).all() and (out[:, rest] == -7).all()
    for i, request in enumerate(scene.requests):
        first = int(scene.starts[i])
        found = out[first : first + request.new, heads].double()
        if found.numel():
            error = (found - scene.expected(i)[:, heads]).abs().max()
            assert error < limit, f"request {i} of {scene.requests}: {error:.1e}"
