r"""What stands around answers: thoughts, tags, boxes.

A thought begins and ends with a tag of `THOUGHTS`. One that is not closed was cut off, unless an answer's tag follows; one
that is only closed began in the prompt. An answer is marked by a tag of `ANSWERS`, by `\boxed{}` or by the tokens of a box.
Everything is found in one pass, so that the time grows with the length alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

THOUGHTS = (
    *(
        "think",
        "thinking",
        "thought",
        "thoughts",
        "reasoning",
        "reason",
        "reflection",
        "scratchpad",
        "analysis",
        "rationale",
    ),
    *(
        "summary",
        "caption",
        "seed:think",
        "plan",
        "planning",
        "monologue",
        "inner_monologue",
        "cot",
        "observation",
        "observe",
    ),
    *("description", "verification", "steps", "look"),
)
ANSWERS = (
    *(
        "answer",
        "final_answer",
        "final",
        "conclusion",
        "solution",
        "response",
        "output",
        "result",
        "ans",
        "final_response",
    ),
    *("final_output", "choice", "option", "prediction"),
)
IN_SQUARE_BRACKETS = ("think", "thinking", "answer")  # other names stand in square brackets in prose too
# starts and ends of thoughts with a form of their own, as tags
_OTHERWISE = {
    "<unused94>": "<think>",
    "<unused95>": "</think>",
    "<|channel>thought": "<think>",
    "<channel|>": "</think>",
}
_SAME = {"thinking": "think", "thoughts": "thought", "seed:think": "think", "begin_of_thought": "thought"}

_NAMES = "|".join(
    re.escape(n).replace("_", r"[\s_-]?") for n in sorted((*THOUGHTS, *ANSWERS, "box"), key=len, reverse=True)
)
_TAG = re.compile(
    r"(?P<left><\|?|\[|◁)(?:\s{0,3}(?P<end>/))?\s{0,3}(?:(?:(?P<begin>begin|start)|(?P<stop>end))_(?:of_)?)?"
    rf"(?P<name>{_NAMES})\s{{0,3}}(?:\|?>|\]|▷)",
    re.I,
)
_CHANNEL = re.compile(r"<\|channel\|>\s{0,5}(\w+)[^<]{0,80}<\|message\|>|<\|channel\|>", re.I)
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[A-Z\s])")  # the same, its tokens left out
_BOX = re.compile(r"(?:\\(?:boxed|fbox)|\x08oxed|(?<![A-Za-z\\])boxed)\s{0,5}\{|(?<!\\)[{}]")
_BARE_BOX = re.compile(r"\\boxed\s+([-\w.]{1,20})")
_TOKEN = re.compile(r"<\|[\w/]{1,30}\|>")


@dataclass(frozen=True)
class Mark:
    """A marked answer: where it begins and ends with its marks, and what is in it."""

    start: int
    end: int
    inside: str


@dataclass(frozen=True)
class _Tag:
    name: str
    kind: str
    opens: bool
    start: int
    end: int


def _tags(text: str) -> Iterator[_Tag]:
    for match in _TAG.finditer(text):
        name = re.sub(r"[\s-]", "_", match["name"].lower())
        if match["left"] == "[" and name not in IN_SQUARE_BRACKETS:
            continue
        bracketed = bool(match["begin"] or match["stop"])
        if name == "box" and not bracketed:
            continue
        flat = name.replace("_", "")
        thought = any(flat == n.replace("_", "") for n in THOUGHTS)
        kind = "box" if name == "box" else "thought" if thought else "answer"
        yield _Tag(_SAME.get(name, name), kind, not (match["end"] or match["stop"]), *match.span())


def without_thoughts(text: str) -> str:
    """The text without its thoughts; nothing if it ends in one."""
    text = _final_channel(text)
    for form, usual in _OTHERWISE.items():
        text = text.replace(form, usual)
    results = list(_tags(text))
    closed = {tag.name: tag.start for tag in results if not tag.opens}  # where each was last closed
    kept: list[str] = []
    start, inside = 0, ""
    for tag in results:
        if inside:
            if tag.kind == "thought" and not tag.opens and tag.name == inside:
                start, inside = tag.end, ""
            elif tag.kind == "answer" and tag.opens and closed.get(inside, -1) < tag.start:
                start, inside = tag.start, ""  # this answer ends a thought that was not closed
        elif tag.kind == "thought" and tag.opens:
            kept.append(text[start : tag.start])
            inside = tag.name
        elif tag.kind == "thought":
            kept, start = [], tag.end
    return "\n".join(kept) if inside else "\n".join([*kept, text[start:]])


def _final_channel(text: str) -> str:
    """What is said in the last final channel; nothing if there are channels, but none of them is final."""
    if "<|channel|>" in text:
        channels = list(_CHANNEL.finditer(text))
        final = [c for c in channels if (c[1] or "").lower() == "final"]
        return text[final[-1].end() :] if final else text[: channels[0].start()]
    if _BARE_CHANNEL.match(text) and "assistantfinal" in text:
        return text.rpartition("assistantfinal")[2]
    return text


def marks(text: str) -> list[Mark]:
    """The marked answers that are not empty, in their order; what stands in another one is not listed."""
    results = [m for m in _tagged(text) if m.inside.strip()]
    behind = iter([*results, Mark(len(text) + 1, len(text) + 1, "")])
    other = next(behind)
    boxes = []
    for box in _boxes(text):
        while other.end <= box.start:
            other = next(behind)
        if box.end <= other.start and box.inside.strip():
            boxes.append(box)
    return sorted([*results, *boxes], key=lambda mark: mark.end)


def _tagged(text: str) -> Iterator[Mark]:
    """From a start to the next tag or the end; what is only closed reaches back to the tag before."""
    tags = [tag for tag in _tags(text) if tag.kind != "thought"]
    answers = [tag for tag in tags if tag.kind == "answer"]
    last, opened = 0, None
    for tag in answers or tags:
        if opened is not None:
            yield Mark(opened.start, tag.start if tag.opens else tag.end, text[opened.end : tag.start])
        elif not tag.opens:
            yield Mark(last, tag.end, text[last : tag.start])
        opened = tag if tag.opens else None
        last = tag.end
    if opened is not None:
        yield Mark(opened.start, len(text), text[opened.end :])


def _boxes(text: str) -> Iterator[Mark]:
    """TeX boxes in the order of their starts, braces matched; one that was cut off reaches to the end."""
    results: list[Mark] = []
    stack: list[tuple[int, int]] = []  # start, and where the content starts; -1 for a plain brace
    for match in _BOX.finditer(text):
        if match[0] == "}":
            start, inner = stack.pop() if stack else (0, -1)
            if inner >= 0:
                results.append(Mark(start, match.end(), text[inner : match.start()]))
        else:
            stack.append((match.start(), match.end() if len(match[0]) > 1 else -1))
    cut = [(start, inner) for start, inner in stack if inner >= 0]
    results += [Mark(start, len(text), text[inner:]) for start, inner in cut[:1]]
    results += [Mark(m.start(), m.end(), m[1]) for m in _BARE_BOX.finditer(text)]
    end = -1
    for mark in sorted(results, key=lambda mark: (mark.start, -mark.end)):
        if mark.start >= end:
            end = mark.end
            yield mark


def unmarked(text: str) -> str:
    """The text with what is in boxes and tags, but without their marks."""
    if "boxed" in text or "fbox" in text or "oxed" in text:
        text = re.sub(r"(?:\\(?:boxed|fbox)|\x08oxed)\s{0,5}\{([^{}]{0,400})\}", r" \1 ", text)
    return _TOKEN.sub(" ", _TAG.sub(lambda m: m[0] if m["left"] == "[" else " ", text))
