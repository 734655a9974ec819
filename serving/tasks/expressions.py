r"""Numbers and expressions as TeX and people write them, put into a form that numerals.py reads.

`linear` writes TeX in a line: 12{,}500 -> 12,500, \frac12 -> 1/2, \frac{\pi}{2} -> ((π)/(2)), \approx -> ≈. `resolved` puts the
value in the place of a product with roots, π, factorials and powers; what has no value (7x, log 3) becomes `OPAQUE`, so that
no number is taken out of it.
"""

from __future__ import annotations

import math
import re

OPAQUE = "\ue000"
_SPAN = 160  # characters of one expression at most

_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|bf|rm|operatorname)\s?\{([^{}]*)\}"
)
_SQRT = re.compile(r"\\sqrt\s?\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s?\[(\d)\]\s?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\frac\s?\{\s?(-?)([^{}]*?)\s?\}\s?\{([^{}]*)\}")
_SHORT = re.compile(r"\\frac\s?(?:(\d)|\{([^{}]*)\})\s?(?:(\d)|\{([^{}]*)\})")
_SIMPLE = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_TEX = (
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\{\s?,\s?\}"), ","),
    (re.compile(r"(?<=\d)\\[,;:! ](?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\[!]"), ""),
    (re.compile(r"\\(?:[,;: ]|(?:q?quad|left|right|displaystyle|[bB]ig[lr]?)(?![a-z]))|~"), " "),
    (re.compile(r"\\(?:approx|simeq|sim|cong|doteq)(?![a-z])|[≅≃∼≒≐]"), " ≈ "),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-z])\s?|·"), "×"),
    (re.compile(r"\\div(?![a-z])"), "÷"),
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\degree(?![a-z])"), "°"),
    (re.compile(r"\\pi(?![a-z])\s?"), "π"),
    (re.compile(r"\\(sin|cos|tan|log|ln|exp|lg)(?![a-z])"), r" \1 "),
    (re.compile(r"\\(?:theta|alpha|beta|lambda|phi|mu|omega|sigma|rho|gamma|delta)(?![a-z])"), "θ"),
    (re.compile(r"_\{([^{}]{0,20})\}"), r"_\1"),
)
_POWER = re.compile(r"\^\s?\{([^{}]{1,40})\}")
_GROUPED = re.compile(
    r"(?<![\w.,^/])(\d{1,3})((?:[ \u00a0\u2009\u202f]\d{3})+|(?:['’]\d{3})+)(?![\d'’]|[.,/]?\d|\s?/\s?\d)"
)
_COMPACT = re.compile(r"(?<=[$€£¥])(\s?\d[\d.,]{0,15})\s?([KkMBTmbt])\b(?!\w)")
_AMOUNTS = {"k": "thousand", "m": "million", "b": "billion", "t": "trillion"}
_MARKED_FACTORIAL = re.compile(r"(?<![\w.])(\d{1,3})!(?=\s?(?:\$|\\\)|\\\]|[×*/+=]|\s[a-z]))")

_START = re.compile(r"(?<![\w.,π√\ue000])(?=[\dπ√(]|\.\d|(?:sin|cos|tan|log|ln|lg|sqrt)\b)")
_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+")
_LETTERS = re.compile(r"[ac]?(?:[xyznθ]|e(?![\w+-])|[a-c](?=[\^)²³]))[xyzθ]{0,2}(?![\w'])")
_FUNCTION = re.compile(r"\s?(?:sin|cos|tan|log|ln|lg)(?:_\w{1,3})?\s?")
_BEHIND = re.compile(r"\s?[rRxyznθ](?![\w'])|\s?\^|\s?(?:sin|cos|tan|log|ln)\b")
_MATHS_BEHIND = re.compile(r"\s?(?:[×*/+=)$≈÷]|-\s?\d)")


def linear(text: str, spaces: bool = True) -> str:
    """TeX in a line; thousands that are set apart joined, by blanks only if `spaces`."""
    if "\\" in text or "{" in text:
        for pattern, form in _TEX:
            text = pattern.sub(form, text)
        for _ in range(4):  # what stands in braces may hold braces
            text = _unnested(text)
    text = _COMPACT.sub(lambda m: f"{m[1]} {_AMOUNTS[m[2].lower()]}", _MARKED_FACTORIAL.sub(r"(\1)!", text))
    return _GROUPED.sub(lambda m: m[0] if " " in m[2] and not spaces else re.sub(r"\D", "", m[0]), text)


def _unnested(text: str) -> str:
    text = _WRAPPED.sub(r"\1", text)
    text = _ROOT.sub(r"(\2)^(1/\1)", text)
    text = _SQRT.sub(r"√(\1)", re.sub(r"\\sqrt\s?(\d)", r"√\1", text))
    text = _POWER.sub(lambda m: f"^{m[1]}" if re.fullmatch(r"-?\d+", m[1]) else f"^({m[1]})", text)
    return (
        _SHORT.sub(lambda m: f"\\frac{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}", text) if _bare_digits(text) else _over(text)
    )


def _bare_digits(text: str) -> bool:
    return bool(re.search(r"\\frac\s?(?:\d|\{[^{}]*\}\s?\d)", text))


def _over(text: str) -> str:
    def fraction(match: re.Match[str]) -> str:
        sign, over, under = match.groups()
        if _SIMPLE.fullmatch(over) and _SIMPLE.fullmatch(under):
            over, under = over.replace(",", ""), under.replace(",", "")
            mixed = re.search(r"\d\s?$", text[max(0, match.start() - 2) : match.start()])
            return f"{' ' if mixed else ''}{sign}{over}/{under}"
        return f"(({sign}{over})/({under}))"

    return re.sub(r"-\s?-(?=\d)", "", _FRACTION.sub(fraction, text))


def resolved(text: str) -> str:
    """The text with its expressions as numbers or `OPAQUE`; plain numbers stay as they are."""
    kept, done = [], 0
    for match in _START.finditer(text):
        if match.start() < done:
            continue
        value, end = _product(text, match.start())
        kept += [text[done : match.start()], text[match.start() : end] if value is None else written(value)]
        done = end
    return "".join([*kept, text[done:]])


def written(value: float) -> str:
    """A value as a number in digits; `OPAQUE` for none."""
    if not math.isfinite(value) or abs(value) > 1e15:
        return OPAQUE
    return str(int(value)) if value == int(value) else f"{value:.12f}".rstrip("0")


def evaluated(text: str) -> float | None:
    """The value of a text that is one expression with a root, π and the like in it; None for any other text."""
    parser = _Parser(text.strip()[:_SPAN], 0)
    try:
        value = parser.sum()
    except (_NoExpressionError, ArithmeticError, ValueError):
        return None
    return value if parser.special and parser.at == len(text.strip()) and math.isfinite(value) else None


def _product(text: str, start: int) -> tuple[float | None, int]:
    """Value (NaN for none) and end of the product that starts there; no value at all if it is a plain one."""
    parser = _Parser(text, start)
    try:
        value = parser.product()
    except (_NoExpressionError, ArithmeticError, ValueError):
        if not parser.special:
            return None, start
        value = math.nan
    if not parser.special:
        return None, parser.at
    if match := _BEHIND.match(text, parser.at):
        return math.nan, match.end()
    return value, parser.at


class _NoExpressionError(Exception):
    """Here stands something else."""


class _Parser:
    """Sums and products by descent; `special` tells whether there was more than plain numbers."""

    def __init__(self, text: str, start: int) -> None:
        self.text, self.at, self.end = text, start, min(len(text), start + _SPAN)
        self.special = False
        self.depth = 0

    def sum(self) -> float:
        value = self.product()
        while self.at < self.end and (match := re.compile(r"\s?([-+])\s?").match(self.text, self.at, self.end)):
            self.at = match.end()
            value = value + self.product() if match[1] == "+" else value - self.product()
        return value

    def product(self) -> float:
        value = self.factor()
        while self.at < self.end:
            start = self.at
            match = re.compile(r"\s?([×*/÷])\s?").match(self.text, self.at, self.end)
            try:
                if match:
                    self.at = match.end()
                    other = self.factor()
                    value = value / other if match[1] in "/÷" else value * other
                elif re.compile(r"\s?[π√]|\(|" + _LETTERS.pattern).match(self.text, self.at):
                    self.at += self.text[self.at] == " "
                    value *= self.factor()
                else:
                    break
            except _NoExpressionError:
                self.at = start
                break
        return value

    def factor(self) -> float:
        value = self.base()
        while self.at < self.end and self.text[self.at] in "^!":
            if self.text[self.at] == "!":
                if not self._factorial():
                    break
                self.at += 1
                value = float(math.factorial(int(value))) if value == int(value) and 0 <= value <= 20 else math.nan
                self.special = True
            else:
                self.at += 1
                value = self.power(value)
        return value

    def power(self, value: float) -> float:
        negative = self.text[self.at : self.at + 1] == "-"
        self.at += negative
        plain = self.at < self.end and self.text[self.at].isdigit()
        if not plain:
            self.special = True
        exponent = self.base()
        raised = value ** (-exponent if negative else exponent)
        return raised if isinstance(raised, float) else math.nan

    def base(self) -> float:
        if self.at >= self.end or self.depth > 12:
            raise _NoExpressionError
        here = self.text[self.at]
        if match := _NUMBER.match(self.text, self.at, self.end):
            self.at = match.end()
            return float(match[0].replace(",", ""))
        if here == "π":
            self.at, self.special = self.at + 1, True
            return math.pi
        if here == "√" or self.text.startswith("sqrt", self.at):
            self.at, self.special = self.at + (1 if here == "√" else 4), True
            return math.sqrt(self.base())
        if here == "(":
            return self.inside()
        if here == "-":
            self.at += 1
            return -self.base()
        return self.letters()

    def inside(self) -> float:
        self.at += 1
        self.depth += 1
        value = self.sum()
        self.depth -= 1
        if self.text[self.at : self.at + 1] != ")":
            raise _NoExpressionError
        self.at += 1
        return value

    def letters(self) -> float:
        """A function or a variable: no value."""
        if match := _FUNCTION.match(self.text, self.at, self.end):
            self.at, self.special = match.end(), True
            self.factor()
            return math.nan
        match = _LETTERS.match(self.text, self.at, self.end)
        if not match or not match[0]:
            raise _NoExpressionError
        self.at, self.special = match.end(), True
        return math.nan

    def _factorial(self) -> bool:
        """Is "!" a factorial, not the end of a sentence? It is where mathematics goes on or nothing else is said."""
        if self.text.startswith("!=", self.at):
            return False
        alone = len(self.text) < 40 and not re.search(r"[^\s$\d!.\\()]", self.text)
        behind = self.text[self.at - 1] == ")"
        return alone or behind or bool(_MATHS_BEHIND.match(self.text, self.at + 1))
