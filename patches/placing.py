"""Where the numbers of images and videos lie in a call, and what a call's rows and keys are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .call import sizes_of
from .errors import LostattnError


@dataclass(frozen=True)
class Seen:
    """The images, or the videos, that a call brings.

    Attributes:
        visual: their tokens, bool (B, Sq).
        scores: p of every image, tile or video, (n,), or (n, 1 + F) for scores rule `fitted`; a video's n tokens may lie in
            several runs, with text between them.
        exact: they were given as scores.
        kind: `image` or `video`, for messages.
    """

    visual: torch.Tensor
    scores: list[torch.Tensor]
    exact: bool
    kind: str = "image"


def tokens_of(call: dict[str, Any]) -> torch.Tensor:
    """Input ids (B, Sq) or embeddings (B, Sq, D), whichever the call has."""
    result = call.get("input_ids")
    result = call.get("inputs_embeds") if result is None else result
    if result is None:
        raise LostattnError("the call has neither input_ids nor inputs_embeds: give one of them")
    return result


def runs_of(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of True in a row (S,) bool."""
    edges = torch.nn.functional.pad(row.int(), (1, 1)).diff()
    return ((edges == -1).nonzero() - (edges == 1).nonzero())[:, 0].tolist()


def cache_sizes(cache: Any, rows: int, past: int, sources: Mapping[int, int]) -> tuple[dict[int, int], dict[int, int]]:
    """Of the patched layers: keys that the cache will hand out where these are not `past + rows`, and their first positions.

    Args:
        sources: patched layer -> the layer whose keys and values it reads.
    """
    if cache is None:
        return {}, {}
    sizes = {layer: sizes_of(cache, rows, source) for layer, source in sources.items()}
    counts = {layer: count for layer, (count, _) in sizes.items() if count != past + rows}
    return counts, {layer: start for layer, (_, start) in sizes.items() if start}


def last_rows(mask: Any, rows: int) -> torch.Tensor | None:
    """Last real row of every sample, (B,), if a 2-D attention mask pads on the right; else None."""
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2 or rows == 1 or bool(mask[:, -1].all()):
        return None
    real = mask[:, -rows:].flip(1).to(torch.int)
    return rows - 1 - real.argmax(1)


def in_rows(seen: Seen) -> torch.Tensor:
    """What every visual token was given, in row order; beams and returned sequences repeat every row, the encoder output not.

    Raises:
        LostattnError: another number of visual tokens than the encoder gave.
    """
    flat = torch.cat(seen.scores)
    wanted = int(seen.visual.sum())
    times = wanted // max(len(flat), 1)
    mistake = LostattnError(f"the prompt has {wanted} visual tokens but its {seen.kind}s make {len(flat)}")
    if times * len(flat) != wanted or not wanted:
        raise mistake
    if times == 1:
        return flat
    rows = seen.visual.sum(1)[::times].tolist()
    if sum(rows) != len(flat):
        raise mistake
    return torch.cat([chunk for part in flat.split(rows) for chunk in [part] * times])
