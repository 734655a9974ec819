"""The same questions to every model, and what their answers say when they are held against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...patches.errors import LostattnError
from ..resume import Progress
from ..stats import holm, mcnemar, paired_difference, share
from .client import Client, Reply, concurrently
from .parsing import parse
from .questions import Question, picture_fingerprint
from .sides import Side

Ask = Callable[[Question], Reply]
Count = Callable[[int, int], None]


def answer_all(
    questions: Sequence[Question],
    ask: Ask,
    progress: Progress,
    at_once: int,
    check: Callable[[int, str], None],
    count: Count,
) -> list[dict[str, Any]]:
    """One row per question, in their order; those that `progress` holds are not asked again.

    Args:
        check: called with the number of a question and the name of its prompt; raises where prompts differ.
        count: called with done and total.
    """
    done = {int(row["index"]): row for row in progress.rows}
    for index, row in done.items():
        check(index, row["prompt"])
    left = [i for i in range(len(questions)) if i not in done]
    for index, reply in concurrently(lambda i: ask(questions[i]), left, at_once):
        check(index, reply.prompt)
        done[index] = {"index": index, **{k: v for k, v in asdict(reply).items() if k != "id"}}
        progress.add(done[index])
        count(len(done), len(questions))
    return [done[i] for i in range(len(questions))]


def asker(client: Client, max_tokens: int) -> Ask:
    """Asks one server; LostattnError names the row."""

    def ask(question: Question) -> Reply:
        picture = question.picture()
        try:
            return client.ask(picture, question.text, max_tokens)
        except LostattnError as error:
            raise LostattnError(f"row {question.example.row}: {error}") from error

    return ask


def same_prompts(
    base: Sequence[Mapping[str, Any]], side: Side, questions: Sequence[Question]
) -> Callable[[int, str], None]:
    """A check that a model reads the very prompts that the original read."""

    def check(index: int, prompt: str) -> None:
        if base and base[index]["prompt"] != prompt:
            raise LostattnError(
                f"row {questions[index].example.row}: {side.name} reads other prompt tokens than the original, so their answers "
                "cannot be compared: both need the same tokenizer, processor and chat template"
            )

    return check


def judge(
    sides: Sequence[Side],
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[Mapping[str, Any]]],
    clusters: bool,
) -> list[dict[str, Any]]:
    """Accuracy of every model, and of the patched ones against the original.

    Args:
        clusters: draw questions about one picture together.

    Returns:
        Per model: `accuracy` (unparsed answers are wrong) with its 95 % `interval`, `unparsed`, `cut` (answers that hit the
        limit of tokens), and against the original: `difference` with 95 % interval, exact McNemar `p`, `p_holm` over all
        models, `agreement` (equal parsed answers, or equal texts), `gained`, `lost`.
    """
    right = {s.name: rights(questions, answers[s.name]) for s in sides}
    labels = picture_labels(questions) if clusters else None
    base = sides[0].name
    out = []
    for side in sides:
        mine = answers[side.name]
        row: dict[str, Any] = {
            "name": side.name, "n": len(questions), "accuracy": share(right[side.name]),
            "right": sum(right[side.name]), "interval": _interval(right[side.name], labels),
            "unparsed": sum(parse(a["text"], q.expected) is None for a, q in zip(mine, questions, strict=True)),
            "cut": sum(a["finish"] == "length" for a in mine),
            "mean_output_tokens": sum(a["output_tokens"] for a in mine) / len(mine),
        }  # fmt: skip
        if side.name != base:
            row |= _against(right[base], right[side.name], questions, answers[base], mine, labels)
        out.append(row)
    for row, p in zip(out[1:], holm([r["p"] for r in out[1:]]), strict=True):
        row["p_holm"] = p
    return out


def _interval(right: Sequence[bool], labels: list[int] | None) -> dict[str, float]:
    """Of the share of right answers, by the bootstrap."""
    found = paired_difference([False] * len(right), right, clusters=labels)
    return {"low": found.low, "high": found.high}


def _against(
    theirs: Sequence[bool],
    ours: Sequence[bool],
    questions: Sequence[Question],
    a: Any,
    b: Any,
    labels: list[int] | None,
) -> dict[str, Any]:
    pairs = list(zip(theirs, ours, strict=True))
    return {
        "difference": asdict(paired_difference(theirs, ours, clusters=labels)),
        "p": mcnemar(theirs, ours, labels),
        "agreement": share([_said(x, q) == _said(y, q) for x, y, q in zip(a, b, questions, strict=True)]),
        "same_text": share([x["text"] == y["text"] for x, y in zip(a, b, strict=True)]),
        "gained": sum(y and not x for x, y in pairs), "lost": sum(x and not y for x, y in pairs),
    }  # fmt: skip


def rights(questions: Sequence[Question], answers: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which answers are right."""
    return [parse(a["text"], q.expected) == q.expected.value for a, q in zip(answers, questions, strict=True)]


def _said(answer: Mapping[str, Any], question: Question) -> str:
    return parse(answer["text"], question.expected) or answer["text"]


def picture_labels(questions: Sequence[Question]) -> list[int]:
    """Numbers that questions about the same picture share."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(picture_fingerprint(q.example), len(seen)) for q in questions]
