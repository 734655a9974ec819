"""What one attention call of a patched layer has to compute, whichever form computes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

FEW_RUNS = 8  # runs that are copied faster piece by piece than token by token


@dataclass(frozen=True)
class PriorScores:
    """Scores p of the visual keys of one call.

    Attributes:
        prior: (B, K) float, NaN on keys that keep their ordinary score.
        level: (H,) float added for each head, or None.
        exact: (B, K) bool, visual keys whose prior takes no level, or None.
        by_group: (B, Hkv, K) float added for the query heads of each KV head, 0 on text keys and on exact ones, or None.
    """

    prior: torch.Tensor
    level: torch.Tensor | None = None
    exact: torch.Tensor | None = None
    by_group: torch.Tensor | None = None

    @property
    def visual(self) -> torch.Tensor:
        """Visual keys, bool (B, K)."""
        return ~self.prior.isnan()

    def of_groups(self) -> torch.Tensor:
        """p without the levels: (B, K), or (B, Hkv, K) where KV heads differ; NaN on text keys."""
        return self.prior if self.by_group is None else self.prior[:, None] + self.by_group

    def dense(self, heads: int) -> torch.Tensor:
        """p per head, (B, H or 1, K), zero on text keys; `heads` is H."""
        p = self.prior.nan_to_num(0.0)[:, None]
        if self.by_group is not None:
            p = p + self.by_group.repeat_interleave(heads // self.by_group.shape[1], 1)
        if self.level is None:
            return p
        takes = self.visual if self.exact is None else self.visual & ~self.exact
        return p + self.level[None, :, None] * takes[:, None]


@dataclass(frozen=True)
class Layout:
    """Where the visual keys lie when every sample of the batch has them at the same place, and which keys a row sees.

    A row sees the keys up to its own; `whole` shows it more, `window` less.

    Attributes:
        runs: (start, end, is_visual) of every maximal run of keys, in order, covering all K keys.
        text: indices of the other keys, int64 (T,).
        visual: indices of visual keys, int64 (N,).
        whole: visual rows see all of their run, also what lies behind them.
        window: how many keys back a row sees, its own among them; None if all.
    """

    runs: tuple[tuple[int, int, bool], ...]
    text: torch.Tensor
    visual: torch.Tensor
    whole: bool = False
    window: int | None = None

    @classmethod
    def of(cls, visual: torch.Tensor) -> Layout | None:
        """Layout of visual (B, K) bool, or None if the samples differ. Two host synchronisations."""
        row = visual[0]
        if not bool((visual == row).all()):
            return None
        starts = [0, *((row[1:] != row[:-1]).nonzero()[:, 0] + 1).tolist()]
        first = bool(row[0])
        runs = zip(starts, [*starts[1:], len(row)], strict=True)
        return cls(
            tuple((a, b, first ^ bool(i % 2)) for i, (a, b) in enumerate(runs)),
            (~row).nonzero()[:, 0],
            row.nonzero()[:, 0],
        )

    def keys(self, x: torch.Tensor, dim: int, visual: bool) -> torch.Tensor:
        """x at its visual keys or at the others along `dim` (K): a view if they are one run."""
        runs = [(a, b) for a, b, kind in self.runs if kind == visual]
        if not 0 < len(runs) <= FEW_RUNS:
            return x.index_select(dim, self.visual if visual else self.text)
        pieces = [x.narrow(dim, a, b - a) for a, b in runs]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)

    def to(self, device: torch.device) -> Layout:
        """The same layout with its indices on a device."""
        if self.text.device == device:
            return self
        return replace(self, text=self.text.to(device), visual=self.visual.to(device))

    @property
    def plain(self) -> bool:
        """True if rows see exactly the keys up to their own."""
        return not self.whole and self.window is None

    def mask(self, rows: int, device: torch.device | str) -> torch.Tensor:
        """What the last `rows` rows see, bool (rows, K)."""
        keys = self.runs[-1][1]
        key, own = torch.arange(keys, device=device), torch.arange(keys - rows, keys, device=device)[:, None]
        end = own + 1
        if self.whole:
            ends = [i for a, b, visual in self.runs for i in ([b] * (b - a) if visual else range(a + 1, b + 1))]
            end = torch.tensor(ends[keys - rows :], device=device)[:, None]
        seen = key < end
        return seen if self.window is None else seen & (key > own - self.window)

    def matching(self, mask: torch.Tensor) -> Layout | None:
        """This layout with what a mask (B or 1, 1, Sq, K or more) shows beside plain causal; None for any other mask.

        The window is read off the last row. Some host synchronisations.
        """
        if mask.dtype != torch.bool:
            return None
        rows, keys = mask.shape[-2], self.runs[-1][1]
        window = keys - int(mask[0, 0, -1].int().argmax())
        forms = [self, replace(self, whole=True), replace(self, whole=True, window=window)]
        for form in forms if window < keys else forms[:2]:
            wanted = torch.nn.functional.pad(form.mask(rows, mask.device), (0, mask.shape[-1] - keys))
            if bool((mask == wanted).all()):
                return form
        return None


@dataclass(frozen=True)
class AttentionInputs:
    """One attention call. Query row i stands at key position K - Sq + i.

    Attributes:
        q: (B, H, Sq, D).
        k, v: (B, Hkv, K, D) and (B, Hkv, K, Dv).
        scale: factor of q.k.
        scores: what visual keys score instead.
        heads: patched query heads, bool (H,) or, chosen per sample, (B, H).
        blend: lambda of ``(1 - lambda) q.k + lambda p``.
        mask: None for plain causal, else bool (True = may see) or additive, broadcastable to (B, H, Sq, K).
        rows: patched query rows, bool (B, Sq), or None for all.
        layout: where visual keys lie if all samples agree and the mask is one that a layout can tell, else None.
        listed: the patched heads as numbers where they are known without asking the device.
        summary: mean and log mass of all visual keys, if known (see `summary.visual_summary`).
        running: running mean and log mass of the visual keys, if known (see `summary.running_summary`).
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    scores: PriorScores
    heads: torch.Tensor
    blend: float = 1.0
    mask: torch.Tensor | None = None
    rows: torch.Tensor | None = None
    layout: Layout | None = None
    listed: tuple[int, ...] | None = None
    summary: tuple[torch.Tensor, torch.Tensor] | None = None
    running: tuple[torch.Tensor, torch.Tensor] | None = None

    def head_list(self) -> list[int]:
        """Heads patched in at least one sample."""
        if self.listed is not None:
            return list(self.listed)
        heads = self.heads if self.heads.dim() == 1 else self.heads.any(0)
        return heads.nonzero()[:, 0].tolist()

    def may_see(self) -> torch.Tensor:
        """The mask as bool or additive tensor, plain causal written out, broadcastable to (B, H, Sq, K)."""
        if self.mask is not None:
            return self.mask
        rows, keys = self.q.shape[2], self.k.shape[2]
        return causal(rows, keys, self.q.device)


def causal(rows: int, keys: int, device: torch.device | str) -> torch.Tensor:
    """Causal mask, the last row sees all keys; bool (1, 1, rows, keys)."""
    return torch.ones(rows, keys, dtype=torch.bool, device=device).tril(keys - rows)[None, None]
