"""Yes or no, as a careful reader would take it.

Rule, first that applies (on the part that answers, see decide.py; without a repeated question):

1. The last "the answer is yes", "Answer: no"; "not yes" is no.
2. The first word is a yes or a no: that one ("Yes, there is no doubt"), unless the other one stands somewhere between
   commas or full stops ("no, yes") or is joined to it ("yes and no", "yes/no"): no answer. "Wait, no" and "actually, no"
   behind it correct it. Also true/false, correct/incorrect, nope, "not at all" and the like as a whole clause, and the words
   of other languages (polarity.py).
3. A refusal, "maybe", "I am not sure", "no idea": no answer.
4. Just one of the words yes and no anywhere; both: no answer. "No doubt" and the like are no no.
5. Short answers without the word: "it is not", "they do", "I don't think so".
6. A sentence of another language that says that there is, or is not.
7. With the name of an object: "I see no dog", "a dog is not visible" is no; "there is a dog" is yes if it is the object that
   was asked for.
"""

from __future__ import annotations

import re

from .decide import Reader, read
from .languages import in_english, spaced
from .plain import plain
from .polarity import ASKED, BOTH, exactly, held, meant
from .wording import REFUSAL

VERSION = "yesno/2"

_YES = r"yes|yep|yeah|yup|yea|true|correct|right|affirmative|indeed|certainly|definitely|absolutely|of course|sure|i think so"
_NO = (
    r"no|nope|nah|false|incorrect|wrong|negative|not really|not at all|(?:absolutely|definitely|certainly|of course) not"
    r"|i don't think so|i do not think so|not correct|not true|untrue|no way"
)
_STATED = re.compile(
    r"\banswer\b(?:\s+(?!yes\b|no\b|not\b)\w+){0,6}?\s*(?:\bis\b|\bwould be\b|\bshould be\b|\bmust be\b|:|=|-)[\s\"'(:]*"
    r"(?:(?:clearly|definitely|simply|therefore|thus|a|probably|likely)\s+)*(?P<not>(?:definitely\s+)?not\s+)?"
    r"[\"'(]*(?P<word>yes|no)\b(?!\s*(?:/|or\b|and\b))"
)
_STATED_OTHERWISE = re.compile(r"\banswer\b\s*(?:is|:|=|-)[\s\"'(:]*")
_ECHO = re.compile(r"^\W*(?:question|q)\s?:.{0,600}?\b(?=(?:answer|a)\s?:)|^\W*a\s?:\s*(?=\w)", re.I | re.S)
_HEADING = re.compile(r"^\W*((?:final |correct )?answer)\W*\n\W*(?=\w)", re.I | re.M)
_QUESTION = re.compile(r"(?:[^.!?]{0,400}\?\s*)+")
_HEDGED = re.compile(
    r"\b(?:maybe|perhaps|it depends|uncertain|ambiguous|hard to (?:say|tell)|either way|n/a|unknown|or not)\b"
)
_IDIOMS = re.compile(
    r"\bno (?:doubt|question|problem|wonder|matter|more than|less than|(?:reason|need|room) (?:to|for) doubt)\b|\bno\. ?\d+"
)
_BOTH = re.compile(r"\b(?:yes|no)\b\s*(?:/|\||\bor\b|\band\b|&)\s*\b(?:yes|no)\b|\byes no\b|\bno yes\b")
_NOTHING_SEEN = re.compile(
    r"^no (?:idea|clue|answer)\b"
    r"|^no (?:image|picture|photo|file|information)s? (?:(?:was|were|is|are) )?(?:provided|given|attached|available|uploaded)"
)
_CORRECTED = re.compile(r"\b(?:wait|actually|correction|sorry)\b[\s,.:-]*(yes|no)\b")
_APOLOGY = re.compile(r"^(?:i'm |i am )?(?:sorry|afraid)[\s,.]+(?:but\s+)?(?=(?:yes|no)\b)")
_SHORT = (
    r"(?:it|they|he|she|there|this|that|these|those|we|you|i|the [a-z]+(?: [a-z]+)?) "
    r"(?:is|are|does|do|did|was|were|has|have|can|will)"
)
_NOT_SO = re.compile(
    r"(?:it|they|he|she) (?:is|are|does|do|did|was|were|has|have)(?:n't| not) "
    r"(?!clear|possible|known|sure|certain|stated|given|specified|mentioned|shown|say|matter|enough|easy)[\w' -]{1,40}"
)
_DENIED = re.compile(
    r"\b(?:not|no|never|without|none|neither|nor|absent|missing|lacks?|cannot|nowhere|nothing)\b|n't\b"
)
_SEEN = re.compile(
    r"\b(?:there (?:is|are|appears?|seems?)|there's|see|shows?|contains?|includes?|features?|depicts?|visible|present|shown"
    r"|seen|appears?|located)\b"
)


def yes_or_no(response: str, thing: str = "") -> str | None:
    """The answer as "yes" or "no", or None; `thing` is the object whose presence was asked for, if that was the question."""

    def whole(text: str) -> str | None:
        return _whole(_normal(text), thing)

    return read(response, Reader(whole, lambda text: _final(_normal(text)), whole))


def _normal(text: str) -> str:
    """One line in lower case, without what repeats the question."""
    text = _HEADING.sub(r"\1: ", plain(text))
    text = _ECHO.sub("", in_english(spaced(text), answers=True))
    text = ASKED.sub(" ", re.sub(r"\s+", " ", text.replace("\n\n", ". ").lower()))
    asked = _QUESTION.match(text)
    if asked and re.search(r"\w", text[asked.end() :]):
        text = text[asked.end() :]
    return _APOLOGY.sub("", text.strip(" ,:"))


def _final(text: str) -> str | None:
    """Step 1: what the last "the answer is ..." says."""
    for match in reversed(list(_STATED.finditer(text))):
        return _flip(match["word"]) if match["not"] else match["word"]
    for match in reversed(list(_STATED_OTHERWISE.finditer(text))):
        clause = re.split(r"[.,;!?]", text[match.end() :])[0].strip(" \"'()[]*-")
        result = "" if BOTH.search(clause) else _bare(clause) or meant(clause)
        if result is not None:
            return result
    return None


def _whole(text: str, thing: str) -> str | None:
    """Steps 1 to 7; "" is a decision too: no answer."""
    if not text:
        return None
    if _NOTHING_SEEN.search(text):
        return ""
    result = _final(text)
    if result is not None:
        return result
    if BOTH.search(text):
        return ""
    clauses = [c.strip(" \"'()[]-") for c in re.split(r"[.,;:!?()\n]| - |\bbut\b", text)]
    clauses = [c for c in clauses if c]
    result = _leading(clauses, text, thing)
    if result is not None:
        return result
    if clauses and clauses[-1] in ("yes", "no") and re.search(r"\bbut\b", text):
        return clauses[-1]
    if REFUSAL.search(text) and not _sees_nothing(text, thing):
        return ""
    if _HEDGED.search(text) or _BOTH.search(text):
        return ""
    said = _words(text)
    if len(said) > 1:
        return ""
    return (
        _anywhere(text, said)
        or _short(clauses)
        or _elsewhere(text, clauses)
        or (_presence(text, thing) if thing else _denied(clauses))
    )


def _elsewhere(text: str, clauses: list[str]) -> str | None:
    """Step 6; before it the last clause, if it is a yes or a no."""
    last = meant(clauses[-1]) if len(clauses) > 1 else None
    return last or held(text)


def _flip(word: str) -> str:
    return "no" if word == "yes" else "yes"


def _bare(clause: str) -> str | None:
    """What a clause says that says nothing else."""
    if re.fullmatch(_YES, clause):
        return "yes"
    return "no" if re.fullmatch(_NO, clause) else None


def _leading(clauses: list[str], text: str, thing: str) -> str | None:
    """Step 2; "" means that both are said."""
    if not clauses:
        return None
    first, word = _bare(clauses[0]), re.match(r"(yes|no)\b(?!-)", clauses[0])
    foreign = meant(clauses[0]) if first is None else None
    if foreign == "" and not re.match(r"(?:yes|no)$", clauses[0]):
        return ""
    if first is None and word is not None and not _IDIOMS.match(text):
        first = word[1]
    first = first or foreign
    if first is None:
        return None
    if correction := _CORRECTED.search(text):
        return correction[1]
    # a denial in words ("No. That is wrong.") says no twice: only the word itself contradicts
    others = {said for c in clauses[1:] if (said := c if c in ("yes", "no") else _alone(c))}
    contradicted = others - {first} and not _of_another(text, first, thing)
    return "" if _BOTH.search(text) or contradicted else first


def _of_another(text: str, first: str, thing: str) -> bool:
    """ "Yes, there is a cat; no, there is no dog": is the other word said of another thing than the one asked for?"""
    before, other, behind = re.sub(rf"[.,;!]\s*{_flip(first)}\b", "\n", text, count=1).partition("\n")
    return bool(thing and other) and _names(before, thing) and not _names(behind, thing) and len(behind.split()) > 2


def _alone(clause: str) -> str | None:
    """A clause that is one word for yes or no in another language."""
    return exactly(clause) if not clause.isascii() else None


def _words(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])(?:yes|no)(?![\w-])", _IDIOMS.sub("", text)))


def _anywhere(text: str, said: set[str]) -> str | None:
    """Step 4, where not both are said."""
    if not said:
        return None
    word = next(iter(said))
    return _flip(word) if re.search(rf"\b(?:not|never)\s+(?:a\s+)?[\"'(]*{word}\b", text) else word


def _short(clauses: list[str]) -> str | None:
    """Step 5, on an answer of one clause; or the verdict "that is correct"."""
    for clause in clauses[:1]:
        if re.fullmatch(rf"{_SHORT}(?:n't| not)", clause) or re.fullmatch(
            r".*(?:\b(?:is|are)|'s) (?:not (?:true|correct)|false|incorrect|wrong|untrue)", clause
        ):
            return "no"
        if re.fullmatch(_SHORT, clause) or re.fullmatch(r".*\b(?:is|are) (?:indeed )?(?:true|correct)", clause):
            return "yes"
    return None


def _denied(clauses: list[str]) -> str | None:
    """ "It is not taller", as the whole answer."""
    return "no" if len(clauses) == 1 and _NOT_SO.fullmatch(clauses[0]) else None


def _sees_nothing(text: str, thing: str) -> bool:
    """ "I cannot see a dog" is an answer where a dog was asked for; "I cannot see the image" is none."""
    return (
        bool(thing)
        and _names(text, thing)
        and bool(re.search(r"(?:not|n't) see\b(?!.*\b(?:if|whether)\b)", text))
        and not re.search(
            r"\b(?:see|view|process|access) (?:the |this |any |your )?(?:image|picture|photo|file)\b", text
        )
    )


def _presence(text: str, thing: str) -> str | None:
    """Step 7."""
    if not _names(text, thing):
        return "no" if re.search(r"\b(?:not|n't) (?:visible|present|shown|seen|there)\b", text) else None
    if _DENIED.search(text):
        return "no"
    return "yes" if _SEEN.search(text) or re.fullmatch(rf"(?:an?|the|one|some) {re.escape(thing)}s?\.?", text) else None


def _names(text: str, thing: str) -> bool:
    return bool(re.search(rf"\b{re.escape(thing.lower())}(?:s|es)?\b", text))
