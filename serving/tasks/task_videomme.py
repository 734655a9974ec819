"""Video-MME: 900 videos of 11 seconds to an hour, three questions with four options each.

Rows: `videoID`, `question`, `options` (a list of "A. ..."), `answer` (a letter), and if there `question_id`, `duration` (short,
medium, long), `domain`, `sub_category`, `task_type`; or `video`, a file, instead of `videoID`. A video is looked for beside the
rows and one folder above, there and in `data` and `videos`, as MP4, MKV or WebM. `frames`: how many are taken, else 16.
Prompt: "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter
(A, B, C, or D) of the correct option.", the question, the options, "The best answer is:"; no subtitles.
Parser: letters.py. Unparsed is wrong.
Metrics: accuracy; by duration, domain and task type where rows have them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from . import letters
from .measure import accuracy, breakdown
from .row import Row, options_of
from .task import NATIVE, Item, Judged, Task, exact_rule, register_task

KINDS = ("duration", "domain", "task_type")
PLACES = ("", "data", "videos", "..", "../data", "../videos")
ENDS = (".mp4", ".MP4", ".mkv", ".webm")
ASK = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option.\n"
)


def _item(row: Row) -> Item:
    question = row.text("question").strip()
    texts = [re.sub(r"^\s*\(?[A-Z][.):]\s*", "", str(text)) for text in row.listed("options")]
    options = options_of(texts)
    if len(options) < 2:
        raise row.error("has no list of at least two options in field 'options'")
    listed = "".join(f"\n{letter}. {text}" for letter, text in options.items())
    video = row.video() if row.get("video") is not None else row.video_named(_path(row))
    return Item(
        id=str(row.get("question_id") or row.number),
        cluster=str(row.get("videoID", "video_id") or video.path),
        groups={kind: str(row.get(kind)) for kind in KINDS if row.get(kind) is not None},
        prompt=(0, f"{ASK}{question}{listed}\nThe best answer is:"),
        gold=row.letter(options, "answer"),
        options=options,
        images=(video,),
    )


def _path(row: Row) -> str:
    """The file of a video, relative to the rows; its usual name if there is none."""
    name = row.text("videoID").strip()
    if Path(name).name != name:
        raise row.error("has a field 'videoID' that is no name")
    paths = [f"{place}/{name}{end}".lstrip("/") for place in PLACES for end in ENDS]
    return next((path for path in paths if (row.folder / path).is_file()), paths[0])


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    return {"accuracy": accuracy(judged)} | breakdown(judged, *KINDS)


register_task(
    Task(
        name="videomme",
        summary="Questions about videos with four options; duration, domain, kind of task",
        hub="",
        splits=("test",),
        needs="videoID (or video, a file), question, options (a list) and answer (a letter)",
        prompts={"default": _item},
        version="1",
        rules={NATIVE: exact_rule(letters.VERSION, lambda text, item: letters.choose(text, item.options))},
        measure=_measure,
    )
)
