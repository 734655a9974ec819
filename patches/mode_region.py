"""Mode `region`: an oracle that is told where the evidence is, for studies (boxes come from `use_regions`)."""

from __future__ import annotations

from .mode import Mode, register_mode

MODE = register_mode(
    Mode(
        name="region",
        summary="overlap (IoU) of a token's pixels with boxes that the caller supplies (oracle, see use_regions)",
        weights=lambda context: context.region_overlaps(),
        needs="regions",
    )
)
