"""How a server opens the videos of a request: vLLM's own loaders, with limits in front of the decoding. Imports vLLM."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import cv2
from vllm import envs
from vllm.multimodal.media.base import MediaWithBytes
from vllm.multimodal.media.connector import MediaConnector
from vllm.multimodal.media.video import VideoMediaIO
from vllm.multimodal.video_decoders.opencv import OpenCVVideoBackendMixin

from ..patches.errors import LostattnError
from .cause import cause
from .client import video_url
from .video_limits import VideoLimits

JPEG_LIST = "video/jpeg"  # to vLLM: frames as JPEG files with commas between them


class Videos(VideoMediaIO):
    """Opens videos as vLLM does, if they keep the limits of `VideoLimits` and of a picture's pixels for each frame.

    The frames are chosen by the loader that vLLM has for the model's processor, as the processor itself would choose them.
    """

    def __init__(self, plain: VideoMediaIO, limits: VideoLimits) -> None:
        super().__init__(plain.image_io, plain.num_frames, **plain.kwargs)
        self.plain_loader, self.limits = plain.video_loader, limits

    def load_bytes(self, data: bytes) -> MediaWithBytes[Any]:
        """Frames (n, h, w, 3) uint8 and metadata, with the bytes from which vLLM makes the video's identity: a digest of the
        file and which frames were taken. (vLLM's own are those of the file, whatever frames a request asks for.)

        Raises:
            LostattnError: no video, beyond a limit, or damaged.
        """
        try:
            width, height, frames, rate = _header(data)
            self._check_frame(width, height)
            self.limits.check_file(frames, rate)
            self.video_loader = _limited(self.plain_loader, self.limits, width, height)
            frames_taken, metadata = super().load_bytes(data)
        except (LostattnError, MemoryError):
            raise
        except Exception as error:  # decoders of damaged files raise whatever they stumble over
            raise LostattnError(
                f"the video cannot be read ({cause(error)}): it is cut off, damaged or of a rare kind"
            ) from error
        if not len(frames_taken):
            raise LostattnError("no frame of the video can be read: it is cut off or damaged")
        identity = hashlib.sha256(data).digest() + json.dumps(metadata, sort_keys=True, default=str).encode()
        return MediaWithBytes((frames_taken, metadata), identity)

    def load_base64(self, media_type: str, data: str) -> MediaWithBytes[Any]:
        """As `load_bytes`. LostattnError also for a list of JPEG files, which vLLM takes for a video."""
        if media_type.lower() == JPEG_LIST:
            raise LostattnError(
                "a list of JPEG frames is not taken as a video: send a video file, or the frames as pictures"
            )
        return super().load_base64(media_type, data)

    def _check_frame(self, width: int, height: int) -> None:
        most = envs.VLLM_MAX_IMAGE_PIXELS
        if width < 1 or height < 1:
            raise LostattnError("the video has no picture: send a file with a video stream")
        if most and width * height > most:
            raise LostattnError(
                f"a frame of the video has {width} x {height} pixels, more than {most}: make it smaller"
            )


def frames_as_served(data: bytes, processor: str) -> tuple[Any, dict[str, Any]]:
    """Frames (n, h, w, 3) uint8 that a server of a model takes from a video file, and what it knows of them.

    Args:
        processor: class name of the model's video processor, by which vLLM chooses how frames are sampled.
    """
    result = MediaConnector().fetch_video(video_url(data), video_processor=processor)
    frames, metadata = result.media
    return frames, dict(metadata)


def _header(data: bytes) -> tuple[int, int, int, float]:
    """Width, height, number of frames and frames a second of a video file, without decoding it."""
    capture = OpenCVVideoBackendMixin.open_video_capture(
        data
    )  # its release() crashes OpenCV 5.0; it is closed when it dies
    asked = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS)
    width, height, frames, rate = (capture.get(name) for name in asked)
    return int(width), int(height), int(frames), float(rate)


def _limited(loader: Any, limits: VideoLimits, width: int, height: int) -> Any:
    """A loader of vLLM that decodes no more frames of this size than the limits allow."""

    class Limited(type(loader)):  # type: ignore[misc]
        @classmethod
        def compute_frames_index_to_sample(cls, *args: Any, **kwargs: Any) -> Any:
            """Numbers of the frames to decode; vLLM asks for them before it decodes any."""
            result = super().compute_frames_index_to_sample(*args, **kwargs)
            limits.check_taken(len(result), width, height)
            return result

    return Limited()
