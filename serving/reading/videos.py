"""Videos that users hand in, as frames: sizes and length are read and bounded before anything is decoded. Decodes by PyAV.

A clip becomes at most so many frames, evenly spaced over it; each keeps its time, which models put into their prompts.
Nothing is fetched: a video is an ordinary file, and the decoder may open no other.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...patches.errors import LostattnError
from ..cause import cause
from ..shown import shown

FRAMES = 16  # of a clip, unless somebody says otherwise
MOST_FRAMES = 2048
# Containers that hold their own pictures; playlists would name other files.
CONTAINERS = {"mov", "mp4", "matroska", "webm", "avi", "gif", "mpegts", "mpeg", "ogg", "flv", "asf", "3gp", "m4v"}
Size = tuple[int, int]  # (width, height)


@dataclass(frozen=True)
class Bounds:
    """What a clip may be at most.

    Attributes:
        frames: that are taken out of it.
        seconds: it lasts.
        pixels: a frame has before it is decoded, and all frames that are kept have together.
    """

    frames: int = FRAMES
    seconds: float = 2 * 3600
    frame_pixels: int = 40_000_000
    pixels: int = 400_000_000


@dataclass(frozen=True)
class VideoFile:
    """A video that is not opened yet, and how many frames are taken out of it."""

    path: str
    frames: int = FRAMES

    def open(self, folder: Path = Path()) -> Clip:
        """Its frames. Raises LostattnError."""
        return open_video(folder / self.path, Bounds(self.frames))

    def name(self, folder: Path = Path()) -> str:
        """What tells it from others: path, size on disk, number of frames."""
        path = folder / self.path
        bytes_ = path.stat().st_size if path.is_file() else 0
        return f"video {self.path} {bytes_} {self.frames}"


@dataclass(frozen=True)
class Clip:
    """Frames of a video.

    Attributes:
        frames: uint8 (T, height, width, 3), RGB, turned upright.
        places: number of every frame among those of the whole file.
        total: frames of the file.
        rate: frames a second of the file.
    """

    frames: np.ndarray = field(repr=False)
    places: tuple[int, ...]
    total: int
    rate: float

    @property
    def size(self) -> Size:
        """(width, height) of a frame."""
        return self.frames.shape[2], self.frames.shape[1]

    def metadata(self) -> dict[str, Any]:
        """As transformers' processors take it beside the frames (`video_metadata`)."""
        return {
            "total_num_frames": self.total,
            "fps": self.rate,
            "width": self.size[0],
            "height": self.size[1],
            "duration": self.total / self.rate,
            "frames_indices": list(self.places),
            "video_backend": "pyav",
        }

    def pictures(self) -> list[Image.Image]:
        """The frames as pictures."""
        return [Image.fromarray(frame) for frame in self.frames]


def open_video(path: str | Path, bounds: Bounds | None = None) -> Clip:
    """Frames of a video file, evenly spaced, the first and the last one among them.

    Raises:
        LostattnError: PyAV is not installed, no such file, no video, more than the bounds allow, broken data.
    """
    bounds, path = bounds or Bounds(), Path(path)
    name = f"video {shown(str(path))}"
    if not path.is_file():
        kind = "is no ordinary file" if path.exists() else "does not exist"
        raise LostattnError(f"{name} {kind}: give a video file")
    with _opened(path, name) as (container, stream):
        size = (int(stream.codec_context.width or 0), int(stream.codec_context.height or 0))
        if size[0] * size[1] > bounds.frame_pixels:
            raise LostattnError(
                f"{name} has frames of {size[0]} x {size[1]} pixels, more than {bounds.frame_pixels}: make them smaller"
            )
        times, keys = _times(container, stream, name, bounds.seconds)
        chosen = spaced(len(times), bounds.frames)
        if size[0] * size[1] * len(chosen) > bounds.pixels:
            raise LostattnError(
                f"{name} has {len(chosen)} frames of {size[0]} x {size[1]} pixels, more than {bounds.pixels} together: take "
                "fewer frames (--frames), or make them smaller"
            )
        frames = list(_decoded(container, stream, [times[i] for i in chosen], keys, size, name))
    if len({frame.shape for frame in frames}) != 1:
        raise LostattnError(f"{name} changes its size on the way: encode it again in one size")
    return Clip(np.stack(frames), tuple(chosen), len(times), _rate(times, stream))


def spaced(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` numbers from 0, evenly spaced, both ends included."""
    if count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [count // 2]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream."""
    try:
        import av
    except ImportError as error:
        raise LostattnError("videos are decoded by PyAV: pip install av (the extra lostattn[video])") from error
    try:
        with av.open(str(path.resolve()), options={"protocol_whitelist": "file"}) as container:
            if not CONTAINERS & set(container.format.name.split(",")):
                raise LostattnError(
                    f"{name} is of kind '{container.format.name}', which is no video: give MP4, MKV or WebM"
                )
            if not container.streams.video:
                raise LostattnError(f"{name} holds no pictures: give a video file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except LostattnError:
        raise
    except (av.FFmpegError, OSError, ValueError, ArithmeticError) as error:
        raise LostattnError(
            f"{name} cannot be read ({shown(cause(error))}): it is cut off, damaged or no video"
        ) from error


def _times(container: Any, stream: Any, name: str, seconds: float) -> tuple[list[int], list[int]]:
    """Times of all frames in units of the stream, in order, and those of key frames; read from packets, nothing is decoded."""
    base = float(stream.time_base or 0) or 1e-6
    times, keys, first = [], [], None
    for packet in container.demux(stream):
        when = packet.pts if packet.pts is not None else packet.dts
        if when is None or not packet.size:
            continue
        first = when if first is None else first
        if abs(when - first) * base > seconds:
            raise LostattnError(f"{name} lasts longer than {seconds:g} seconds: cut a part out of it")
        times.append(int(when))
        if packet.is_keyframe:
            keys.append(int(when))
    if not times:
        raise LostattnError(f"{name} holds no frames: it is cut off or empty")
    return sorted(times), sorted(keys)


def _rate(times: list[int], stream: Any) -> float:
    base = float(stream.time_base or 0) or 1e-6
    length = (times[-1] - times[0]) * base
    return (len(times) - 1) / length if length > 0 else float(stream.average_rate or 1)


def _decoded(
    container: Any, stream: Any, wanted: list[int], keys: list[int], size: Size, name: str
) -> Iterator[np.ndarray]:
    """The frames at these times, each decoded from the key frame before it unless that lies behind already."""
    place, frames, last = -math.inf, iter(()), None
    for when in wanted:
        at = bisect_right(keys, when) - 1
        if at >= 0 and keys[at] > place or place == -math.inf:
            container.seek(keys[max(at, 0)] if keys else when, stream=stream, backward=True)
            frames, last = container.decode(stream), None
        while last is None or place < when:
            result = next(frames, None)
            if result is None:
                break
            if result.pts is None:
                continue
            last, place = result, result.pts
        if last is None:
            raise LostattnError(f"{name} cannot be decoded: it is cut off or damaged")
        yield _upright(last)


def _upright(frame: Any) -> np.ndarray:
    """RGB (height, width, 3), turned as the file says."""
    turned = np.rot90(frame.to_ndarray(format="rgb24"), k=round(getattr(frame, "rotation", 0) / 90) % 4)
    return np.ascontiguousarray(turned)
