"""The model's own turn: what a response says before it goes on as somebody else, and behind what it repeats.

`HARD` ends a turn wherever it stands. `SOFT` ("Question: ...") may also be the question repeated in front, so the text before
it is the turn only if it answers.
"""

from __future__ import annotations

import re

HARD = (
    r"</s>",
    r"<s>",
    r"<bos>",
    r"<eos>",
    r"<\|eot_id\|>",
    r"<\|im_end\|>",
    r"<\|im_start\|>\s*(?:assistant|user|system)?",
    r"<\|end_of_text\|>",
    r"<\|endoftext\|>",
    r"<\|begin_of_text\|>",
    r"<end_of_turn>",
    r"<start_of_turn>\s*(?:user|model)?",
    r"<\|end\|>",
    r"<\|return\|>",
    r"<\|start\|>\w*",
    r"<\|(?:user|assistant|system|observation)\|>",
    r"<\|end_of_turn\|>",
    r"<\|start_header_id\|>\s*\w*\s*<\|end_header_id\|>",
    r"<｜end▁of▁sentence｜>",
    r"<｜(?:User|Assistant)｜>",
    r"<\|END_OF_TURN_TOKEN\|>",
    r"<\|START_OF_TURN_TOKEN\|>",
    r"\[/?INST\]",
    r"<</?SYS>>",
    r"#{2,3}\s?(?:Human|User|USER|Instruction|Assistant|Input|Response)\b\s?:?",
    r"\b(?:USER|HUMAN|ASSISTANT)\s?:",
    r"(?<=\n)[ *]{0,4}(?:[Uu]ser|[Hh]uman|[Aa]ssistant|GPT|用户|助手)[ *]{0,3}[:：]\**",
    r"(?<=\n)(?:user|assistant)[ ]{0,3}\n",
)
SOFT = (
    r"(?<![\w\"'(-])(?:Next\s)?Question\s?\d{0,3}\s?[:：]",
    r"(?<=\n)[ *]{0,4}Q\d{0,3}\s?[:：]",
    r"(?<=[.!?])\s{1,3}Q\d{0,3}\s?[:：]",
    r"(?<=\n)[ *]{0,4}(?:问题|問題|질문|Frage|Pregunta|Pergunta|Вопрос)\s?\d{0,3}\s?[:：]",
)
_HARD = re.compile("|".join(f"(?:{form})" for form in HARD))
_SOFT = re.compile("|".join(f"(?:{form})" for form in SOFT))
_OTHERS = re.compile(r"user|human|instruction|^\[INST|input|system|SYS|用户", re.I)
_OWN = re.compile(r"assistant|model|\[/INST|response|gpt|助手", re.I)


def first_turn(text: str) -> str:
    """The first text between marks of turns that is not somebody else's."""
    text, start, others = f"\n{text}", 0, False
    for match in _HARD.finditer(text):
        said = text[start : match.start()]
        if said.strip() and not others:
            return said
        others = not _OWN.search(match[0]) and (others or bool(_OTHERS.search(match[0])))
        start = match.end()
    return "" if others else text[start:]


def before_question(text: str) -> str:
    """The text in front of the first follow-up question; all of it if there is none."""
    for match in _SOFT.finditer(text):
        if re.search(r"\w", text[: match.start()]):
            return text[: match.start()]
    return text
