"""The charts of benchmark and comparison."""

from __future__ import annotations

from ..pages.charts import Draw, colour, dress, lines, need_matplotlib, png, svg

__all__ = ["Draw", "colour", "dress", "lines", "need_matplotlib", "png", "svg"]
