"""How large the videos of a request may be. Imports nothing heavy; `video_media.py` obeys it inside vLLM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass

from ..patches.errors import LostattnError

LIMITS_VARIABLE = "LOSTATTN_VIDEO_LIMITS"
MAX_RATE = 240  # frames a second; a file with more of them keeps a decoder busy for longer than it lasts
UNKNOWN_RATE = 24.0  # frames a second where a file does not say; Qwen3-VL's processor assumes the same


@dataclass(frozen=True)
class VideoLimits:
    """Limits of one video, checked before its frames are decoded.

    Attributes:
        seconds: how long it may last.
        frames: most frames that are taken from it.
        pixels: most pixels of these frames together; 3 bytes each once decoded.
    """

    seconds: int = 300
    frames: int = 768
    pixels: int = 500_000_000

    def to_env(self) -> dict[str, str]:
        """The limits as environment of the server's process."""
        return {LIMITS_VARIABLE: ",".join(map(str, astuple(self)))}

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> VideoLimits:
        """The limits of this process; the defaults where its environment says nothing."""
        stated = env.get(LIMITS_VARIABLE)
        return cls(*map(int, stated.split(","))) if stated else cls()

    def check_file(self, frames: int, rate: float) -> None:
        """Refuse a file by its header.

        Args:
            frames: number of frames. rate: frames a second; 0 or less if the file does not say.

        Raises:
            LostattnError: it says no number of frames, lasts too long or holds too many frames.
        """
        if frames <= 0:
            raise LostattnError("the video does not say how many frames it has: convert it to MP4")
        rate = rate if rate > 0 else UNKNOWN_RATE
        if frames > self.seconds * rate:
            raise LostattnError(f"the video lasts {frames / rate:.0f} s, more than {self.seconds}: cut it")
        if rate > MAX_RATE:
            raise LostattnError(f"the video has {rate:.0f} frames a second, more than {MAX_RATE}: convert it")

    def check_taken(self, frames: int, width: int, height: int) -> None:
        """Refuse frames that were chosen to be decoded. LostattnError: too many, or too many pixels in all of them."""
        fewer = "ask for fewer by media_io_kwargs (fps, num_frames)"
        if frames > self.frames:
            raise LostattnError(
                f"{frames} frames would be taken from the video, more than {self.frames}: cut it, or {fewer}"
            )
        if frames * width * height > self.pixels:
            raise LostattnError(
                f"{frames} frames of {width} x {height} pixels would be taken from the video, more than {self.pixels} pixels: "
                f"make it smaller, or {fewer}"
            )


VIDEO_LIMITS = VideoLimits()
