"""Answers as plain text: the part of a response that answers, without tags, Markdown, LaTeX and odd characters.

Which part answers is said in decide.py.
"""

from __future__ import annotations

import re
import unicodedata

from .decide import final_text

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹣－"), "-")
_MARKS = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "‚": "'", "`": "'"}
    | {"【": "[", "】": "]", "「": "[", "」": "]", "『": "[", "』": "]", "〔": "[", "〕": "]", "《": "[", "》": "]"}
    | {
        "。": ".",
        "、": ",",
        "⁄": "/",
        "∕": "/",
        "\u00a0": " ",
        "…": "...",
        "،": ",",
        "؟": "?",
        "؛": ";",
        "।": ".",
        "¡": "",
        "¿": "",
    }
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
    return final_text(response)


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
        text = re.sub(r"\\(?:times|cdot)(?![a-z])\s*", "×", text)
        text = re.sub(r"\^\s*\{?\\circ\}?|\\degree\b", "°", text)
        text = re.sub(r"\\(?:left|right|approx|displaystyle|quad|[,;:! ()\[\]])", " ", text)
        text = re.sub(r"\\([%$#&_{}])", r"\1", text)
    return re.sub(r"\^\{(-?\d+)\}", r"^\1", text.replace("$", ""))


def _unmarked(text: str) -> str:
    text = re.sub(r"(?m)^\s*(?:#{1,6}\s+|>\s+|[*•+]\s+|-\s+(?=[^\d\s]))", "", text)
    text = re.sub(r"(?<![\d\s])\*|\*(?![\d\s])", "", text)
    text = re.sub(r"(?<!\w)_([^_\n]{1,60})_(?!\w)", r"\1", text)
    return re.sub(r"(?<!\w)__|__(?!\w)|~~", "", text).replace("'''", "")
