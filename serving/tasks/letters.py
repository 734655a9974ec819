"""The letter that an answer to a multiple-choice question chooses, as a careful reader would take it.

Rule, first that applies (on the part that answers, see decide.py; cues of other languages as English ones, see
languages.py; without a repeated list of options, see echoes.py):

1. The answer is nothing but a letter, bare or in brackets, either case; or "option B".
2. It is the text of one option (case, article, end marks, "three" for "3" do not matter). A letter of its own in front
   ("B cat") is allowed.
3. The last sentence of the kind "the answer is B", "Answer: b", "I choose (B)", "B is correct", "therefore B". If that
   names two letters, a letter that is no option, or none of them, there is no answer. It may name an option's text.
4. The first line starts with a label: "B. cat", "(B) cat", "B: ...", "B because ...". If lines with different labels
   follow, the options were only listed. Letters each with a yes or no: the only one with a yes.
5. The last line or sentence is nothing but a letter.
6. A refusal gives no answer, unless an option says the same, or a "but ..." follows that gives one.
7. Just one letter is named as "(B)" or "option B"; else just one option's text; else just one capital letter that
   stands alone. What is denied ("not A", "A is wrong") does not count. Two of them give no answer.

"A" in front of a word is an article, "I" a pronoun. Letters inside words never count. Options Yes and No are read by
yesno.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .decide import Reader, read
from .echoes import without_lists
from .languages import in_english, spaced
from .plain import plain
from .wording import REFUSAL, canonical, mentions, negated
from .yesno import yes_or_no

VERSION = "letters/2"

_FILL = (
    r"(?:(?:therefore|thus|clearly|likely|most likely|probably|definitely|simply|just|indeed|the|option|choice|letter|answer"
    r"|labell?ed|most|best|is|be|with)\b[\s:,]*){0,8}"
)
_LABEL = r"[(\[{<\"']{0,4}\s?(?<![\w.'/-])(?P<letter>[A-Za-z])(?![\w'/+#&-]|\.\w)\s?[)\]}>\"']{0,4}"
_STATED = re.compile(
    rf"\b(?:answer|ans|choice|option|pick|selection|guess)\b(?:\s+(?!not\b|choices|options|none\b|is\b|[a-z]\b)[\w']+){{0,7}}?"
    rf"\s*(?:\bis\b|\bwould be\b|\bshould be\b|\bmust be\b|\bwill be\b|\bcould be\b|:|=|->|-)(?!\s*(?:not\b|n't))[\s:=]*{_FILL}"
    rf"(?:{_LABEL})?",
    re.I,
)
_FINAL = re.compile(
    r"(?:\banswer|\b(?:correct|right|best|final) (?:option|choice))\b"
    r"(?:\s+(?!not\b|choices|options|none\b|is\b|[a-z]\b)[\w']+){0,7}?"
    rf"\s*(?:\bis\b|\bwould be\b|\bshould be\b|\bmust be\b|:|=|->|-)(?!\s*(?:not\b|n't))[\s:=]*{_FILL}(?:{_LABEL})?",
    re.I,
)
_CHOSEN = re.compile(
    r"\b(?:choose|chose|select|selected|pick|go with|going with|opt for|settle on|leaving|leaves(?: us with)?|left with|answer)"
    rf"\s+{_FILL}{_LABEL}",
    re.I,
)
_RIGHT = re.compile(
    rf"{_LABEL}(?:[.:]?\s*(?:(?!\b[A-Z]\b)[^.;!?\n]){{0,60}}?)\s*"
    r"\b(?:is|are|seems|looks|appears|must be|would be|should be)\s+(?:to be\s+)?"
    r"(?:(?:the|most|clearly|definitely|only|both)\s+)*(?:correct|right|best|answer|true|accurate|appropriate)\b(?! not)",
)
_CONCLUDED = re.compile(
    rf"\b(?:so|thus|therefore|hence|finally|ultimately|conclusion|conclude|actually|wait)\b[\s,:]*"
    rf"(?:that\s+)?(?:it'?s?\s+)?{_FILL}{_LABEL}"
    r"(?=\s*(?:[.,;!?\n]|$))",
    re.I,
)
_ALTERNATIVE = re.compile(
    r"^[\s.()\]\"']*(?:[,;]\s*(?:and|or)?|/|&|\+|\band/or\b|\band\b|\bor\b|\b(?:vs|versus)\b\.?)\s*(?:maybe\s+|perhaps\s+)?(?:option\s+)?[(\[]*([A-Z])\b"
    r"(?=[\s)\].,;:!?]*(?:$|\n|[.,;!?)]|\band\b|\bor\b|\bare\b|\bboth\b|\bis possible))"
)
_GOOD = ("yes", "correct", "true", "right", "✓", "✔", "✅")
_VERDICT = re.compile(
    r"(?<!\w)\(?([A-Z])\)?\s?[?:-]\s?(yes|no|correct|incorrect|true|false|right|wrong|✓|✔|✅|✗|✘|❌|×)(?!\w)", re.I
)
_NO_OPTION = re.compile(r"^\s*(?:none|neither|unknown|unclear|not|cannot|can't|n/?a)\b", re.I)
_HEAD = re.compile(rf"^\s*{_LABEL}")
_AFTER_A = re.compile(
    r"^\s*(?:$|\n|[.,;:!?)\]>\"'=&/+-]|[^\x00-\x7f]|[A-Z](?!\w)"
    r"|(?:because|since|as|is|was|due|and|or|for|given|seems|looks|appears|based|would|should|must|vs|versus)\b|\s*\((?:or|and|not)\b)"
)
_BEFORE_BARE = re.compile(
    r"(?:^|[\n.!?:,;]|\b(?:is|be|it's|say|think|believe|guess|take|to|with|for|than|definitely|clearly))\s*[(\[<\"']*$",
    re.I,
)
_JOINED = re.compile(r"(?<!\w)([A-Z])[)\]]?\s*\(?(?:,|/|&|\band\b|\bor\b|\b(?:vs|versus)\b\.?)\s*(?:option\s+)?[(\[]*$")


def choose(response: str, options: Mapping[str, str]) -> str | None:
    """The letter of the chosen option, or None; `options` is letter -> text."""

    def whole(text: str) -> str | None:
        return _chosen(plain(text), options)

    def stated(text: str) -> str | None:
        return _by_statement(_cued(plain(text), options), options, (_FINAL, _CONCLUDED))

    return read(response, Reader(whole, stated, whole))


def _cued(text: str, options: Mapping[str, str]) -> str:
    """English cues, and no list of options that only repeats the question."""
    return without_lists(in_english(spaced(text)), options)


def _chosen(said: str, options: Mapping[str, str]) -> str | None:
    """The rule's steps; "" is a decision too: no answer."""
    if not said:
        return None
    result = _whole(said, options)
    if result is not None:
        return result
    text = _cued(said, options)
    for step in (_whole, _by_statement, _by_verdict, _by_line):
        result = step(text, options)
        if result is not None:
            return result
    if REFUSAL.search(text):
        return _behind_a_refusal(text, options)
    return _by_mention(text, options)


def _whole(text: str, options: Mapping[str, str]) -> str | None:
    """Steps 1 and 2; "" is a decision too: no answer."""
    bare = re.sub(
        r"^(?:option|choice|answer|ans|letter)\b\.?\s*[:-]?\s*", "", text.strip(" .,;:!?\"'()[]{}\n\t"), flags=re.I
    )
    bare = bare.strip(" .,;:!?\"'()[]{}<>-")
    if re.fullmatch(r"[A-Za-z]", bare):
        return bare.upper() if bare.upper() in options else ""
    said = canonical(text)
    texts = {letter: canonical(option) for letter, option in options.items()}
    same = [letter for letter, option in texts.items() if option and option == said]
    if same:
        return same[0] if len(same) == 1 else ""
    for letter, option in texts.items():
        if option and re.match(rf"\W*{letter}\W+(?:(?:an?|the) )?{re.escape(option)}\W*$", said, re.I):
            return letter
    return yes_or_no_option(text, texts)


def yes_or_no_option(text: str, texts: Mapping[str, str]) -> str | None:
    """Where the options are yes and no: the letter of what the answer says."""
    if sorted(texts.values()) != ["no", "yes"] or re.search(r"(?<!\w)[A-Z](?!\w)", text):
        return None
    said = yes_or_no(text)
    return next((letter for letter, option in texts.items() if option == said), None)


def _by_statement(
    text: str,
    options: Mapping[str, str],
    patterns: tuple[re.Pattern[str], ...] = (_STATED, _CHOSEN, _RIGHT, _CONCLUDED),
) -> str | None:
    """Step 3: the last statement decides."""
    results: list[tuple[int, str]] = []
    for pattern in patterns:
        for match in pattern.finditer(text):
            decision = _statement(text, match, options, strict=pattern in (_RIGHT, _CHOSEN, _CONCLUDED))
            if decision is not None:
                results.append((match.start("letter") if match["letter"] else match.end(), decision))
    return max(results)[1] if results else None


def _by_verdict(text: str, options: Mapping[str, str]) -> str | None:
    """Letters each with its yes or no: the only one with a yes."""
    results = [(m[1], m[2].lower() in _GOOD) for m in _VERDICT.finditer(text) if m[1] in options]
    good = {letter for letter, is_good in results if is_good}
    return good.pop() if len(results) > 1 and len(good) == 1 else None


def _statement(text: str, match: re.Match[str], options: Mapping[str, str], strict: bool) -> str | None:
    """A letter, "" for no answer, or None if this is no statement."""
    if negated(text, *match.span()) and match.re not in (_STATED, _FINAL):
        return None
    if match["letter"] and _is_label(text, match, options, stated=not strict or match.re is _CONCLUDED):
        letter = match["letter"].upper()
        start, end = match.span("letter")
        if negated(text, start, end):
            return None
        if match.re is _RIGHT and (joined := _JOINED.search(_before(text, start))):
            return None if negated(text, *joined.span(1)) else ""
        if _alternative(_skip_own_text(text[end:], options.get(letter, "")), letter):
            return ""
        return letter if letter in options else "" if not strict else None
    if strict:
        return None
    tail = text[match.start("letter") if match["letter"] else match.end() :].split("\n")[0]
    sentence = re.split(r"(?<=[^\d])[.!?](?:\s|$)", tail)[0]
    if _NO_OPTION.match(sentence) and not mentions(canonical(sentence), options):
        return ""
    named = {letter for _, _, letter in mentions(canonical(sentence), options)}
    return named.pop() if len(named) == 1 else None


def _skip_own_text(rest: str, option: str) -> str:
    """What follows a label and, if it follows, the option's own text."""
    plainly = plain(option)
    match = re.match(rf"[\s.:)\]\"'-]*{re.escape(plainly)}", rest, re.I) if plainly else None
    return rest[match.end() :] if match else rest


def _alternative(rest: str, letter: str) -> bool:
    """Does another letter follow, joined by a comma, "or", "and"?"""
    match = _ALTERNATIVE.match(rest)
    return match is not None and match[1] != letter


def _is_label(text: str, match: re.Match[str], options: Mapping[str, str], stated: bool) -> bool:
    """Is this single letter a label, not an article, a pronoun or a letter of prose?"""
    letter = match["letter"]
    start, end = match.span("letter")
    before, rest = _before(text, start), text[end : end + 200]
    if re.match(r"\s*[)\]]", rest) or re.search(r"\b(?:option|choice|letter)\s*[(\[\"']*$", before, re.I):
        return True
    if letter.islower() and not stated:
        return bool(re.match(r"[.:)]", rest) and not before.split("\n")[-1].strip())
    if letter in "AaIi" and not _AFTER_A.match(rest):
        own = plain(options.get(letter.upper(), "")).lower()
        return letter.isupper() and bool(own) and rest.strip().lower().startswith(own)
    return True


def _by_line(text: str, options: Mapping[str, str]) -> str | None:
    """Steps 4 and 5."""
    lines = [line for line in text.split("\n") if line.strip()]
    heads = [h for line in lines if (h := _head(line, options))]
    last = re.split(r"(?<=[.!?;:\n])\s+", text)[-1].strip(" .,;:!\"'()[]{}\n\t")
    alone = last if re.fullmatch(r"[A-Z]", last) and last in options else ""
    if alone and len(lines) > 1 and heads and heads[0] == lines[0].strip(" .()") and heads[0] != alone:
        return ""
    first = _head(lines[0], options)
    if first and len(set(heads)) == 1:
        match = _HEAD.match(lines[0])
        assert match is not None  # it has a head
        follows = _skip_own_text(lines[0][match.end("letter") :], options[first])
        others = _labels(follows, options, r"[(\[]?\b([A-Z])[).:](?=\s)") - {first}
        return "" if _alternative(follows, first) or len(others) > 0 and not alone else (alone or first)
    if alone:
        return alone
    return "" if len(set(heads)) > 1 else None


def _head(line: str, options: Mapping[str, str]) -> str:
    """The label that a line starts with, or ""."""
    match = _HEAD.match(line)
    if match is None or match["letter"].upper() not in options or not _is_label(line, match, options, stated=False):
        return ""
    rest = line[match.end("letter") :]
    follows = re.match(r"\s*(?:$|[.,:;)\]}>\"'!=]|-\s|->|(?:because|since|as|due|given|based)\b)", rest)
    if not follows or negated(line, *match.span("letter")):
        return ""
    return match["letter"].upper()


def _behind_a_refusal(text: str, options: Mapping[str, str]) -> str | None:
    """Step 6."""
    same = {x for x, option in options.items() if REFUSAL.search(option) and canonical(option) in canonical(text)}
    if len(same) == 1:
        return same.pop()
    rest = re.split(r"\b(?:but|however)\b,?", text)[-1]
    return (_chosen(rest.strip(), options) or "") if rest != text and not REFUSAL.search(rest) else ""


def _by_mention(text: str, options: Mapping[str, str]) -> str | None:
    """Step 7."""
    strong = _labels(
        text, options, r"[(\[]\s*([A-Za-z])\s*[)\]]|\b(?:[Oo]ption|[Cc]hoice)\s+[\"']?([A-Za-z])(?![\w'-])"
    )
    if strong:
        return strong.pop() if len(strong) == 1 else ""
    named = {letter for _, _, letter in mentions(canonical(text), options)}
    if named:
        return named.pop() if len(named) == 1 else ""
    bare = _labels(text, options, _LABEL)
    return bare.pop() if len(bare) == 1 else "" if bare else None


def _labels(text: str, options: Mapping[str, str], pattern: str) -> set[str]:
    """Options named by label, those that are denied left out."""
    results = set()
    for match in re.finditer(pattern, text):
        letter = next(g for g in match.groups() if g)
        if letter.upper() not in options or negated(text, *match.span(match.lastindex or 0)):
            continue
        if pattern is not _LABEL or (
            letter.isupper() and _is_label(text, match, options, stated=True) and _apart(text, match)
        ):
            results.add(letter.upper())
    return results


def _before(text: str, start: int) -> str:
    """The few characters in front of a place, enough for the patterns that end there."""
    return text[:start] if start <= 30 else "_" + text[start - 30 : start]


def _apart(text: str, match: re.Match[str]) -> bool:
    """Does the bare letter stand for itself, not in a name ("the vitamin D level")?"""
    before = _before(text, match.start("letter"))
    return bool(
        _AFTER_A.match(text[match.end("letter") : match.end("letter") + 20])
        or _BEFORE_BARE.search(before)
        or _JOINED.search(before)
    )
