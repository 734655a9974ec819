"""How a server opens videos: real clips through vLLM's connector, limits, what is no video."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from typing import Any

import pytest
from hostile import data_url, png
from lostattn.patches.errors import LostattnError
from lostattn.serving.safety import safe_defaults
from lostattn.serving.video_limits import LIMITS_VARIABLE, VideoLimits
from made_videos import clip, pictures

WITH_VLLM = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


def connector(**options: Any) -> Any:
    from lostattn.serving.media import NOWHERE, StrictConnector

    return StrictConnector(allowed_media_domains=[NOWHERE], **options)


def opened(data: bytes, kind: str = "video/mp4", **io: Any) -> Any:
    return connector(media_io_kwargs={"video": io}).fetch_video(
        data_url(data, kind), video_processor="Qwen2VLVideoProcessor"
    )


def of_vllm(data: bytes, **io: Any) -> Any:
    from vllm.multimodal.media.connector import MediaConnector

    plain = MediaConnector(media_io_kwargs={"video": io})
    return plain.fetch_video(data_url(data, "video/mp4"), video_processor="Qwen2VLVideoProcessor")


class TestDoor:
    pytestmark = WITH_VLLM

    @pytest.mark.parametrize("io", [{}, {"fps": 4}, {"fps": 1}])
    def test_frames_are_those_that_vllm_takes(self, io: dict[str, Any]) -> None:
        import numpy as np

        data = clip(frames=12, size=(64, 48), rate=4)
        frames, metadata = opened(data, **io)
        wanted, known = of_vllm(data, **io)
        assert np.array_equal(frames, wanted) and metadata == known and frames.shape[1:] == (48, 64, 3)
        later, _ = asyncio.run(connector().fetch_video_async(data_url(data, "video/mp4")))
        assert len(later) == 12, "vLLM's loader for a processor without one of its own takes up to 32"
        near = np.abs(frames[0].astype(int) - pictures(1, (64, 48), 0)[0]).mean()
        assert near < 30, "the clip's own first frame"

    def test_other_frames_of_a_file_are_another_video(self) -> None:
        """vLLM takes the file's bytes for the video's name: whoever asks first would choose the frames of all."""
        data = clip(frames=12, rate=4)
        few, many = opened(data, fps=1), opened(data, fps=4)
        assert len(few[0]) < len(many[0]) and few.original_bytes != many.original_bytes
        assert opened(data, fps=4).original_bytes == many.original_bytes
        assert opened(clip(frames=12, rate=4, seed=1), fps=4).original_bytes != many.original_bytes

    @pytest.mark.parametrize(
        ("limits", "said"),
        [
            (VideoLimits(seconds=2), "lasts 4 s, more than 2"),
            (VideoLimits(frames=5), "8 frames would be taken from the video, more than 5"),
            (VideoLimits(pixels=8 * 56 * 56 - 1), "8 frames of 56 x 56 pixels"),
        ],
    )
    def test_limits(self, limits: VideoLimits, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
        data = clip()
        assert len(opened(data)[0]) == 8
        monkeypatch.setenv(LIMITS_VARIABLE, limits.to_env()[LIMITS_VARIABLE])
        with pytest.raises(LostattnError, match=said):
            opened(data)

    def test_nothing_is_decoded_beyond_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from vllm.multimodal.video_decoders.opencv import OpenCVVideoBackendMixin

        def decode(*_: Any, **__: Any) -> Any:
            raise AssertionError("decoded")

        monkeypatch.setattr(OpenCVVideoBackendMixin, "read_frames", decode)
        monkeypatch.setenv(LIMITS_VARIABLE, VideoLimits(frames=5).to_env()[LIMITS_VARIABLE])
        with pytest.raises(LostattnError, match="more than 5"):
            opened(clip())
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", str(56 * 56 - 1))
        with pytest.raises(LostattnError, match="a frame of the video has 56 x 56 pixels, more than 3135"):
            opened(clip())

    @pytest.mark.parametrize(
        ("data", "kind", "said"),
        [
            (b"hello", "video/mp4", "cannot be read"),
            (b"\0" * 5000, "video/mp4", "cannot be read"),
            (png(), "video/jpeg", "a list of JPEG frames"),
        ],
    )
    def test_what_is_no_video_is_a_sentence(self, data: bytes, kind: str, said: str) -> None:
        with pytest.raises(LostattnError, match=said) as caught:
            opened(data, kind)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
    def test_a_damaged_video_is_a_sentence_or_what_is_left_of_it(self, part: float) -> None:
        data = clip(kind="matroska", frames=8)
        try:
            frames, _ = opened(data[: int(len(data) * part)], "video/x-matroska")
        except LostattnError as error:
            assert "\n" not in str(error)
        else:
            assert 0 < len(frames) <= 8

    @pytest.mark.parametrize("url", ["http://127.0.0.1/a.mp4", "file:///etc/passwd", "data:video/mp4,abc", ""])
    def test_urls_are_refused_as_those_of_pictures_are(self, url: str) -> None:
        with pytest.raises(LostattnError, match="fetches no URLs|reads no files|must be base64"):
            connector().fetch_video(url)

    @pytest.mark.parametrize("backend", ["nothing", "torchcodec", "deepstream"])
    def test_decoders_that_do_not_work_are_a_sentence(self, backend: str) -> None:
        try:
            frames, _ = opened(clip(), backend=backend)
        except LostattnError as error:
            assert "cannot be read" in str(error) and "\n" not in str(error)
        else:
            assert backend == "torchcodec" and len(frames) == 8


def test_limits_of_a_header() -> None:
    limits = VideoLimits(seconds=10, frames=4, pixels=100)
    limits.check_file(240, 24.0)
    limits.check_file(240, 0.0)  # unknown: 24
    for frames, rate, said in (
        (0, 24.0, "how many frames"),
        (241, 24.0, "10 s"),
        (241, 0.0, "10 s"),
        (9, 1e9, "a second"),
    ):
        with pytest.raises(LostattnError, match=said):
            limits.check_file(frames, rate)
    limits.check_taken(4, 5, 5)
    for frames, side, said in ((5, 1, "more than 4"), (4, 6, "more than 100 pixels")):
        with pytest.raises(LostattnError, match=said):
            limits.check_taken(frames, side, side)


def test_videos_are_refused_unless_they_are_allowed() -> None:
    closed, limits = safe_defaults("127.0.0.1", False, 1, 3, []), VideoLimits(7, 8, 9)
    allowed = safe_defaults("127.0.0.1", False, 1, 3, [], 2, limits)
    counts = [json.loads(s.options[s.options.index("--limit-mm-per-prompt") + 1])["video"] for s in (closed, allowed)]
    assert (
        counts == [0, 2] and VideoLimits.from_env(allowed.env) == limits and VideoLimits.from_env({}) == VideoLimits()
    )
    assert VideoLimits.from_env(closed.env) == VideoLimits()
    bytes_of = [int(s.env["LOSTATTN_MAX_REQUEST_BYTES"]) for s in (closed, allowed)]
    assert bytes_of[1] - bytes_of[0] == 2 * 128 * 2**20
