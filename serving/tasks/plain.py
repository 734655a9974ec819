r"""Answers as plain text: the part of a response that answers, without tags, Markdown, LaTeX and odd characters.

Reasoning models: the last `<answer>` that is not empty (one that was cut off reaches to the end, one whose start stood in
the prompt begins with the response); in it, or else in the whole response, the content of the last `\boxed{}`; else what stands
behind the last `</think>`. A response that is cut off inside `<think>` has no answer. Of more than 8,000 characters the first
2,000 and the last 6,000 are read.
"""

from __future__ import annotations

import re
import unicodedata

_ANSWER = re.compile(r"<\s*answer\s*>(.*?)(?=<\s*/\s*answer\s*>|<\s*answer\s*>|\Z)", re.I | re.S)
_ANSWER_END = re.compile(r"<\s*/\s*answer\s*>", re.I)
_THINK_END = re.compile(r"<\s*/\s*think(?:ing)?\s*>", re.I)
_THINK_START = re.compile(r"<\s*think(?:ing)?\s*>", re.I)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹣－"), "-")
_MARKS = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "‚": "'", "`": "'"}
    | {"【": "[", "】": "]", "「": "[", "」": "]", "『": "[", "』": "]", "〔": "[", "〕": "]", "《": "[", "》": "]"}
    | {"。": ".", "、": ",", "⁄": "/", "∕": "/", "\u00a0": " ", "…": "..."}
)
# Cyrillic and Greek capitals that look like Latin letters, where they stand alone
_LOOKALIKES = str.maketrans("АВСЕНІΑΒΕΗΙ", "ABCEHIABEHI")

_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mathbb|bf|rm|emph|operatorname|underline)\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"(-?)\\[dtc]?frac\s*\{\s*(-?)([^{}]*?)\s*\}\s*\{([^{}]*)\}")
_HTML = re.compile(r"</?(?:b|i|u|em|strong|p|br|span|div|sub|sup|code)\s*/?>")


def answer_part(response: str) -> str | None:
    """The part of a response that holds the answer; None if a thought was cut off or the answer is empty."""
    part = _answer_part(response)
    if part is None or len(part) <= 8000:
        return part
    return f"{part[:2000]}\n...\n{part[-6000:]}"


def _answer_part(response: str) -> str | None:
    tail = _THINK_END.split(response)[-1]
    for text in (tail, response):
        answers = [a for a in _ANSWER.findall(text) if a.strip()]
        if answers:
            return _last_box(answers[-1]) or answers[-1]
    if _ANSWER.search(tail):
        return None
    tail = next((before for before in _ANSWER_END.split(tail)[-2::-1] if before.strip()), tail)
    box = _last_box(tail) or _last_box(response)
    if box is not None:
        return box
    if _THINK_START.search(tail):
        return None
    return tail if tail.strip() else None


def _last_box(text: str) -> str | None:
    """Content of the last box that is not empty, braces matched; a box that was cut off reaches to the end."""
    for start in reversed([m.end() for m in _BOXED.finditer(text)]):
        depth, end = 1, start
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        inside = text[start : end - 1] if not depth else text[start:]
        if inside.strip():
            return inside
    return None


def plain(text: str) -> str:
    """ASCII forms of letters, digits, dashes, quotes and fractions; no Markdown, LaTeX or invisible characters."""
    text = re.sub(r"(?<=\d)(?=[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒])", " ", text)
    text = re.sub("[—―]", " - ", text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", text.translate(_DASHES)).translate(_MARKS).translate(_DASHES)
    text = "".join(_ascii_digit(c) for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cf", "Cc"))
    text = re.sub(r"(?<!\w)[АВСЕНІΑΒΕΗΙ](?!\w)", lambda m: m[0].translate(_LOOKALIKES), text)
    return _unmarked(_unlatexed(_HTML.sub("", text))).strip()


def _ascii_digit(character: str) -> str:
    if character.isascii():
        return character
    digit = unicodedata.decimal(character, None)
    return character if digit is None else str(digit)


def _unlatexed(text: str) -> str:
    if "\\" in text:
        for _ in range(3):  # wrappers may be nested
            text = _FRACTION.sub(lambda m: f"{'-' if m[1] != m[2] else ''}{m[3]}/{m[4]}", _WRAPPED.sub(r"\1", text))
        text = re.sub(r"\\(?:times|cdot)\b\s*", "×", text)
        text = re.sub(r"\^\s*\{?\\circ\}?|\\degree\b", "°", text)
        text = re.sub(r"\\(?:left|right|approx|displaystyle|quad|[,;:! ()\[\]])", " ", text)
        text = re.sub(r"\\([%$#&_{}])", r"\1", text)
    return re.sub(r"\^\{(-?\d+)\}", r"^\1", text.replace("$", ""))


def _unmarked(text: str) -> str:
    text = re.sub(r"(?m)^\s*(?:#{1,6}\s+|>\s+|[*•+]\s+|-\s+(?=[^\d\s]))", "", text)
    text = re.sub(r"(?<![\d\s])\*|\*(?![\d\s])", "", text)
    return re.sub(r"(?<!\w)__|__(?!\w)|~~", "", text).replace("'''", "")
