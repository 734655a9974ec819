"""`lostattn ask`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .base import json_option, print_json, print_table
from .checks import need_data, need_files, need_models, need_picture
from .choices import DTYPE, PATH
from .data_option import data_option

if TYPE_CHECKING:
    from ..asking import Asking


@click.command(short_help="Ask a model about a picture, or the questions of some data.")
@click.argument("folder")
@click.argument("question", required=False)
@click.option("--image", metavar="FILE", help="Picture file, or its base64 text or data URL.")
@click.option("--video", metavar="FILE", help="Video file, instead of --image (needs the extra lostattn[video]).")
@click.option("--frames", type=click.IntRange(1, 2048), help="Taken out of --video, evenly spaced.  [default: 16]")
@data_option("image or video and question, instead of --image; QUESTION is asked of every row if given", default=None)
@click.option("--samples", type=click.IntRange(1), help="At most so many rows of --data.  [default: 8]")
@click.option("--boxes", type=click.Path(), help="JSON file [[x, y, width, height], ...] in pixels, for mode region.")
@click.option("--compare", metavar="BASE", help="Ask the plain checkpoint BASE too and print both answers.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Longest answer.")
@click.option("--dtype", type=DTYPE, default="auto", show_default=True, help="Of the weights; auto: as stored.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--attention", type=PATH, default="auto", show_default=True, help="Force a path of patched models.")
@json_option
def ask(
    folder: str,
    question: str | None,
    image: str | None,
    video: str | None,
    frames: int | None,
    data: str | None,
    samples: int | None,
    boxes: str | None,
    compare: str | None,
    max_new_tokens: int,
    dtype: str,
    device: str,
    attention: str,
    as_json: bool,
) -> None:
    """Ask the model in FOLDER (patched or plain) a QUESTION about a picture or a video, or the questions of rows of data.

    \b
    Examples:
      lostattn ask ./qwen2.5-vl-sap --image cat.jpg "What animal is this?"
      lostattn ask ./qwen2.5-vl-sap --compare ./qwen2.5-vl --image cat.jpg "What animal is this?"
      lostattn ask ./qwen2.5-vl-sap --compare ./qwen2.5-vl --data digits:4
      lostattn ask ./qwen2.5-vl-sap --video cat.mp4 --frames 32 "What does the animal do?"
      lostattn ask ./qwen2.5-vl-sap --data ./photos --samples 3 "What is in the picture?"
    """
    _refuse(question, image, video, data, samples, boxes, frames)
    need_models(folder, compare)  # a wrong folder shall not be found out after minutes
    need_data(data)
    need_picture(image)
    need_files(("--boxes", boxes), ("--video", video))
    from ..asking import one_picture, one_video, rows_of  # these need torch, which the mistakes above do not
    from ..chat import Chat

    one = data is None
    if video is not None:
        asked = [one_video(video, str(question), frames)]
    else:
        asked = (
            [one_picture(str(image), str(question), boxes)] if one else rows_of(str(data), samples or 8, question or "")
        )
    results = []
    for name in [folder, *([compare] if compare else [])]:
        chat = Chat.load(name, dtype, device, attention if name == folder else "auto")
        results.append([_answered(chat, name, one, max_new_tokens) for one in asked])
    if data is None:
        _print_one([answers[0] for answers in results], as_json)
    else:
        _print_rows(asked, results, as_json)


def _refuse(
    question: str | None,
    image: str | None,
    video: str | None,
    data: str | None,
    samples: int | None,
    boxes: str | None,
    frames: int | None,
) -> None:
    """Every option is used, and one picture has its question."""
    from ...patches.errors import LostattnError

    if sum(given is not None for given in (image, video, data)) != 1:
        raise click.UsageError(
            "give --image or --video with a QUESTION, or --data with rows that have both, not several of them"
        )
    if data is None and not question:
        raise click.UsageError(
            f"{'--image' if video is None else '--video'} needs a QUESTION: write it behind the folder"
        )
    if video is None and frames:
        raise LostattnError("--frames belongs to --video; rows of --data say theirs in field 'frames': leave it out")
    if video is not None and boxes:
        raise LostattnError("boxes lie in pictures, not in videos: leave --boxes out")
    if data is not None and boxes:
        raise LostattnError("rows of --data bring their own boxes: leave --boxes out")
    if data is None and samples:
        raise LostattnError("--samples counts rows of --data: leave it out")


def _answered(chat: Any, name: str, one: Asking, max_new_tokens: int) -> dict[str, Any]:
    from ..tracing.place import evidence

    start = time.perf_counter()
    if chat.patched:
        chat.model.sap_settings.counts.clear()
    with evidence(chat, one.picture, one.boxes):
        answer = chat.answer(one.picture, one.question, max_new_tokens)
    paths = dict(chat.model.sap_settings.counts) if chat.patched else {}
    seconds = time.perf_counter() - start
    return {"model": name, "patched": chat.patched, "answer": answer, "paths": paths, "seconds": seconds}


def _print_one(found: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif len(found) == 1:
        click.echo(found[0]["answer"])
    else:
        for one in found:
            click.echo(f"{one['model']} ({'patched' if one['patched'] else 'plain'}): {one['answer']}")


def _print_rows(asked: Sequence[Asking], found: Sequence[Sequence[dict[str, Any]]], as_json: bool) -> None:
    from ...serving.shown import shown

    columns = list(zip(*found, strict=True))
    if as_json:
        rows = [{"row": a.row, "question": a.question, "expected": a.expected} for a in asked]
        print_json([{**row, "answers": list(answers)} for row, answers in zip(rows, columns, strict=True)])
        return
    head = ["row", "question", "expected", *(answers[0]["model"] for answers in found)]
    print_table(
        head,
        [
            [a.row, shown(a.question), shown(a.expected, 20), *(shown(x["answer"]) for x in answers)]
            for a, answers in zip(asked, columns, strict=True)
        ],
    )
