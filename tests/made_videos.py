"""Small videos, encoded by PyAV."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import pytest


@lru_cache(maxsize=32)
def clip(frames: int = 8, size: tuple[int, int] = (56, 56), rate: int = 2, seed: int = 0, kind: str = "mp4") -> bytes:
    """A file of moving ramps under noise; `size` is (width, height), both even, `rate` frames a second."""
    av = pytest.importorskip("av")
    width, height = size
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4" if kind == "mp4" else "libvpx", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 10_000_000
        for picture in pictures(frames, size, seed):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def pictures(frames: int, size: tuple[int, int], seed: int) -> list[np.ndarray]:
    """The frames of a clip, (h, w, 3) uint8 each."""
    width, height = size
    draw = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    found = []
    for i in range(frames):
        ramps = np.stack([across * (i + 1) + 40 * seed, down * (i + 2), across + down + 30 * i], -1)
        found.append((ramps * 3 % 200 + draw.integers(0, 56, ramps.shape)).astype(np.uint8))
    return found


def video(frames: int, size: tuple[int, int], seed: int) -> tuple[np.ndarray, dict[str, object]]:
    """A clip's frames (n, h, w, 3) uint8 as if they were decoded, two a second, and what vLLM's decoders say of them."""
    told = {
        "total_num_frames": frames,
        "fps": 2.0,
        "duration": frames / 2,
        "video_backend": "opencv",
        "frames_indices": list(range(frames)),
        "do_sample_frames": False,
    }
    return np.stack(pictures(frames, size, seed)), told
