"""Small video files, made by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def shades(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Frames of one grey each, brighter from frame to frame."""
    return [np.full((size[1], size[0], 3), 10 + 11 * i, np.uint8) for i in range(count)]


def write_clip(path: Path, frames: Sequence[Any], rate: int = 10, codec: str = "mpeg4", gop: int = 6) -> Path:
    """A video file of arrays (height, width, 3) or pictures of one size."""
    import av

    arrays = [np.asarray(f.convert("RGB") if isinstance(f, Image.Image) else f) for f in frames]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = arrays[0].shape[:2]
        stream.pix_fmt, stream.gop_size, stream.bit_rate = "yuv420p", gop, 4_000_000
        for array in arrays:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")))
        container.mux(stream.encode())
    return path
