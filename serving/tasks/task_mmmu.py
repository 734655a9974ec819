"""MMMU, validation: college questions of 30 subjects with up to seven pictures, most with options, some open.

Rows: `id` ("validation_<Subject>_<number>"), `question` with `<image 1>` where a picture goes, `options` (a list, or a text that
holds one; pictures may stand in it too), `answer` (a letter, or for open questions a text or a list of texts),
`question_type` (multiple-choice or open), and if there `image_1` to `image_7`, `img_type`, `topic_difficulty`.
Prompt: the question, the options as "A. ...", an empty line, then "Answer with the option's letter from the given choices
directly." or, if open, "Answer the question using a single word or phrase."; pictures where their marks stand. A question
without a mark has its pictures in front.
Parser: with options letters.py; open by the benchmark's own rule on what a careful reader takes as the answer (open_mmmu.py):
the gold text is part of it, or the gold number is its number. Unparsed (with options no letter; open an empty answer or a
refusal) is wrong; the benchmark's own parser guesses a letter at random there.
Metrics: accuracy over all questions; by discipline, subject and type.
Harnesses: lmms-eval, the benchmark's own parser with letters in the forms "(B)", "B ", "B.", else an option's text, else a
random letter, here drawn from the seed and the item's id. vlmevalkit infers a letter or an option's text, for open
questions from the options gold answer and "Other Answers".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import harness_lmms, harness_vlmevalkit, letters, open_mmmu
from .measure import accuracy, breakdown
from .plain import answer_part
from .row import Row, options_of
from .task import NATIVE, Answer, Item, Judged, Rule, Task, register_task
from .wording import REFUSAL

DISCIPLINES = {
    "Art and Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health and Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health",
    "Humanities and Social Science": "History Literature Sociology Psychology",
    "Tech and Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power Materials "
    "Mechanical_Engineering",
}
_OF = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects.split()}
_MARK = re.compile(r"<image (\d)>")
_CHOICE = "Answer with the option's letter from the given choices directly."
_OPEN = "Answer the question using a single word or phrase."


def _item(row: Row) -> Item:
    name, question = row.text("id").strip(), row.text("question").strip()
    kind = row.one_of({"multiple-choice": "multiple-choice", "open": "open"}, "question_type")
    options = options_of(row.listed("options")) if kind != "open" else {}
    if kind != "open" and len(options) < 2:
        raise row.error("has fewer than two options")
    listed = "".join(f"\n{letter}. {text}" for letter, text in options.items())
    subject = m[1] if (m := re.fullmatch(r"[a-z]+_(.+?)_\d+", name)) else str(row.get("subject") or "unknown")
    prompt, images = _placed(row, f"{question}{listed}\n\n{_CHOICE if options else _OPEN}")
    return Item(
        id=name,
        cluster=name,
        groups={"discipline": _OF.get(subject, "Other"), "subject": subject, "type": kind},
        prompt=prompt,
        gold=row.letter(options, "answer") if options else _gold(row),
        options=options,
        images=images,
    )


def _gold(row: Row) -> tuple[str, ...]:
    answer = row.need("answer")
    if isinstance(answer, str) and answer.strip().startswith("["):
        answer = row.listed("answer")
    texts = [str(a) for a in answer] if isinstance(answer, list | tuple) else [row.text("answer")]
    if not any(t.strip() for t in texts):
        raise row.error("has an empty field 'answer'")
    return tuple(texts)


def _placed(row: Row, text: str) -> tuple[tuple[str | int, ...], tuple[object, ...]]:
    """The text with the pictures where their marks stand, and the pictures in the order of their first mark."""
    marks = list(dict.fromkeys(_MARK.findall(text)))
    if not marks:
        images = tuple(row.get(f"image_{n}") for n in range(1, 8) if row.get(f"image_{n}") is not None)
        return (*range(len(images)), text), images
    pieces = _MARK.split(text)  # text, number, text, number, ..., text
    parts = [marks.index(piece) if i % 2 else piece for i, piece in enumerate(pieces)]
    images = tuple(row.get(f"image_{n}") for n in marks)
    return tuple(p for p in parts if p != ""), () if None in images else images


def _parse(response: str, item: Item) -> Answer | None:
    if item.options:
        return letters.choose(response, item.options)
    part = answer_part(response) or ""
    return None if not re.search(r"\w", part) or REFUSAL.search(part) else open_mmmu.said(part)


def _correct(answer: Answer, item: Item) -> bool:
    if item.options:
        return answer == item.gold
    return isinstance(answer, tuple) and isinstance(item.gold, tuple) and open_mmmu.holds(answer, item.gold)


def _lmms(response: str, item: Item) -> Answer | None:
    return harness_lmms.mmmu_letter(response, item.options) if item.options else open_mmmu.pieces(response)


def _vlmevalkit(response: str, item: Item) -> Answer | None:
    return harness_vlmevalkit.infer(response, item.options or {"A": _tsv_gold(item), "B": "Other Answers"})


def _tsv_gold(item: Item) -> str:
    """Gold of an open question as a table's cell holds it: a text, or a list in Python's notation."""
    return item.gold[0] if len(item.gold) == 1 else str(list(item.gold))


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    return {"accuracy": accuracy(judged)} | breakdown(judged, "discipline", "subject", "type")


register_task(
    Task(
        name="mmmu",
        summary="College questions of 30 subjects, several pictures; options and open",
        hub="lmms-lab-encoder/MMMU",
        splits=("validation",),
        needs="id, question, question_type (multiple-choice or open), options and answer",
        prompts={"default": _item},
        version="1",
        rules={
            NATIVE: Rule(f"{letters.VERSION}, {open_mmmu.VERSION}", _parse, _correct),
            "lmms-eval": Rule(harness_lmms.VERSION, _lmms, _correct, guesses=True),
            "vlmevalkit": Rule(
                harness_vlmevalkit.VERSION,
                _vlmevalkit,
                lambda answer, item: answer == (item.gold if item.options else "A"),
            ),
        },
        measure=_measure,
    )
)
