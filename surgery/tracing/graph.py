"""The visual interaction graph of one layer, and how much of it touches the key region."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LayerGraph:
    """Edges j -> i of one decoder layer: visual token i pays visual token j at least the threshold, mean over heads.

    Attributes:
        source: (E,) int64, the j, which is looked at.
        target: (E,) int64, the i, which looks. A token that looks at itself is an edge too.
        weight: (E,) float32, head-averaged attention A(i, j).
    """

    source: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor

    @property
    def edges(self) -> int:
        return len(self.source)

    def without_loops(self) -> LayerGraph:
        """Only edges between different tokens."""
        cross = self.source != self.target
        return LayerGraph(self.source[cross], self.target[cross], self.weight[cross])

    def touches(self, key: torch.Tensor) -> torch.Tensor:
        """Edges with an end in the key region, bool (E,). key: bool (n,) over visual tokens."""
        return key[self.source] | key[self.target]

    def degree_ratio(self, key: torch.Tensor) -> float | None:
        """rho of appendix E: share of edges with i or j in the key region; None without edges."""
        return float(self.touches(key).double().mean()) if self.edges else None


def threshold_rows(weights: torch.Tensor, rows: torch.Tensor, threshold: float) -> LayerGraph:
    """Edges of some query rows.

    Args:
        weights: (R, n) head-averaged attention of visual tokens `rows` on all n visual tokens.
        rows: (R,) which visual tokens the rows are.
    """
    row, source = (weights >= threshold).nonzero(as_tuple=True)
    return LayerGraph(source.cpu(), rows[row].cpu(), weights[row, source].float().cpu())


def join(parts: list[LayerGraph]) -> LayerGraph:
    """One graph of all edges."""
    return LayerGraph(
        torch.cat([p.source for p in parts]), torch.cat([p.target for p in parts]), torch.cat([p.weight for p in parts])
    )
