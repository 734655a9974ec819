"""Mode `vision_attention`: what the vision encoder's last layer looks at (paper C.3 i)."""

from __future__ import annotations

from .mode import Mode, register_mode

MODE = register_mode(
    Mode(
        name="vision_attention",
        summary="attention that a token receives in the last layer of the vision encoder, mean over heads and queries",
        weights=lambda context: context.received_attention(),
        listens=True,
        options={"pool": ("avg", "max")},
        reference={"pool": "max"},
    )
)
