"""`lostattn serve`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ...serving.video_limits import VIDEO_LIMITS, VideoLimits
from .base import print_table, tell
from .checks import need_models


@click.command(short_help="Serve a model with vLLM behind an OpenAI-style API.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="Model name in requests. Default: the folder's name.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; the default is this machine."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 chooses a free one.")
@click.option("--api-key", envvar="LOSTATTN_API_KEY", show_envvar=True, help="Key that requests must bring.")
@click.option(
    "--max-image-pixels",
    type=click.IntRange(1),
    default=50_000_000,
    show_default=True,
    help="Largest picture; counted before it is decoded.",
)
@click.option("--max-images", type=click.IntRange(0), default=8, show_default=True, help="Most pictures in a request.")
@click.option(
    "--max-videos",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Most videos in a request; 0 refuses them.",
)
@click.option(
    "--max-video-seconds",
    type=click.IntRange(1),
    default=VIDEO_LIMITS.seconds,
    show_default=True,
    help="Longest video.",
)
@click.option(
    "--max-video-frames",
    type=click.IntRange(1),
    default=VIDEO_LIMITS.frames,
    show_default=True,
    help="Most frames that are taken from a video.",
)
@click.option(
    "--max-video-pixels",
    type=click.IntRange(1),
    default=VIDEO_LIMITS.pixels,
    show_default=True,
    help="Most pixels of these frames together; counted before they are decoded.",
)
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="File for vLLM's log. Default: a temporary one."
)
@click.option("--verbose", is_flag=True, help="Print vLLM's log too.")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM_OPTION...]")
def serve(
    folder: Path,
    name: str | None,
    host: str,
    port: int,
    api_key: str | None,
    max_image_pixels: int,
    max_images: int,
    max_videos: int,
    max_video_seconds: int,
    max_video_frames: int,
    max_video_pixels: int,
    log: Path | None,
    verbose: bool,
    vllm_options: tuple[str, ...],
) -> None:
    """Serve the model in DIR (patched or plain) with vLLM behind an OpenAI-style API, until Ctrl-C.

    Requests bring pictures, and videos where --max-videos allows them, as base64 data URLs; no other URL is fetched and no
    file read. Exit code 0: ended by Ctrl-C or SIGTERM, 1: vLLM ended by itself, 2: it could not start, 130: stopped while it
    was starting.

    \b
    Examples:
      lostattn serve ./qwen2.5-vl-sap
      lostattn serve ./qwen2.5-vl-sap --port 9000 -- --max-model-len 8192 --dtype bfloat16
      LOSTATTN_API_KEY=... lostattn serve ./qwen2.5-vl-sap --host 0.0.0.0
    """
    need_models(folder)
    _refuse_unused(max_videos)
    from ...serving.engine.versions import how_tested
    from ...serving.ports import need_free
    from ...serving.server import unused_log
    from ..serve import prepare

    prepared = prepare(
        folder,
        name=name,
        host=host,
        port=port,
        api_key=api_key or None,
        max_image_pixels=max_image_pixels,
        max_images=max_images,
        max_videos=max_videos,
        videos=VideoLimits(max_video_seconds, max_video_frames, max_video_pixels),
        options=vllm_options,
        log=log or unused_log(),
    )
    server = prepared.server
    need_free(server.host, server.port)
    for note in prepared.notes:
        tell(note)
    tell(f"starting vLLM {how_tested()} on {folder}, its log is {server.log}")
    follow = _Follower(server) if verbose else None
    ready = False
    try:
        with _ended_by_signals(), server.start(tick=_Progress(follow)):
            ready = True
            _announce(prepared)
            while server.running:
                time.sleep(0.3)
                if follow:
                    follow()
    except KeyboardInterrupt:
        tell("stopped")
        raise SystemExit(0 if ready else 130) from None
    finally:
        if follow:
            follow()
    tell(f"vLLM ended by itself: see its log {server.log}")
    raise SystemExit(1)


def _refuse_unused(max_videos: int) -> None:
    """UsageError for a bound of videos where none is taken."""
    context = click.get_current_context()
    for name in ("max_video_seconds", "max_video_frames", "max_video_pixels"):
        if not max_videos and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} bounds videos, and this server takes none: add --max-videos")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    old = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Follower:
    """Copies what is new in the server's log to stderr."""

    def __init__(self, server: Any) -> None:
        self.server, self.shown = server, 0

    def __call__(self) -> None:
        text = self.server.log_text()
        click.echo(text[self.shown :], err=True, nl=False)
        self.shown = len(text)


class _Progress:
    """A line every ten seconds, or vLLM's log."""

    def __init__(self, follow: _Follower | None) -> None:
        self.follow, self.told = follow, 0.0

    def __call__(self, passed: float) -> None:
        if self.follow:
            self.follow()
        elif passed - self.told >= 10:
            self.told = passed
            tell(f"vLLM is starting, {passed:.0f} s")


def _announce(prepared: Any) -> None:
    from ..serve import curl_line, key_lines, plan_lines, savings_rows

    server = prepared.server
    if prepared.plan is not None:
        for line in plan_lines(prepared.plan):
            click.echo(line)
        click.echo("\npredicted savings of a request with one image:")
        print_table(["visual tokens", "attention FLOPs", "KV cache"], savings_rows(server.folder, prepared.plan))
        click.echo()
    click.echo(f"serving {server.name} at {server.url}")
    for line in key_lines(prepared):
        click.echo(line)
    click.echo(f"try it:\n  {curl_line(server, prepared.api_key)}\nend it with Ctrl-C")
