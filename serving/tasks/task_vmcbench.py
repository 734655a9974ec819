"""VMCBench: 20 visual question sets, made into questions with four options.

Rows: `question`, `A`, `B`, `C`, `D`, `answer` (a letter), `category` (the set), and if there `index`, `image`.
Prompts: "Question: ...", "Options:", the options, then in `default` "Answer with the option's letter from the given choices
directly." (both harnesses), in `authors` " Answer ONLY option's letter from the given choices." (the paper's script).
Parser: letters.py. Unparsed is wrong; the benchmark's own parser guesses at random there.
Metrics: macro, the mean of the sets' accuracies (the paper's number); micro, share of right answers (the harnesses' "overall");
the five groups of the paper's appendix D, each the mean of its sets; each set. Sets that are not among the 20 count in macro
and micro and belong to no group.
Harnesses: lmms-eval and vlmevalkit use the benchmark's own parser: of the letters in the form "(B)" or "B. ", else " B ", the
last one; else in answers of more than five words the option whose text occurs; else a random letter, here drawn from the
seed and the item's id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from . import harness_lmms, harness_vlmevalkit, letters
from .measure import accuracy, by_group, mean
from .row import Row
from .task import NATIVE, Item, Judged, Rule, Task, exact_rule, register_task

GROUPS = {
    "General": ("VQAv2", "VizWiz", "OKVQA", "MMVet", "A-OKVQA", "MMStar", "SEEDBench"),
    "Reasoning": ("ScienceQA", "RealWorldQA", "MMMU", "GQA"),
    "Math": ("MathVista", "MathVision"),
    "Doc & Chart": ("DocVQA", "TableVQABench", "ChartQA", "InfoVQA", "AI2D"),
    "OCR": ("TextVQA", "OCRVQA"),
}
_NAMES = {re.sub(r"\W", "", name).lower(): name for names in GROUPS.values() for name in names}


def _default(row: Row) -> Item:
    question, options, images = row.text("question").strip(), row.lettered(), row.images("image")
    for letter in "ABCD":
        row.need(letter)
    category = row.text("category").strip()
    category = _NAMES.get(re.sub(r"[\W_]", "", category).lower(), category)
    listed = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    name = str(row.get("index", "id") if row.get("index", "id") is not None else row.number)
    return Item(
        id=name,
        cluster=row.cluster(images, name),
        groups={"set": category},
        prompt=(
            0,
            f"Question: {question}\nOptions:\n{listed}Answer with the option's letter from the given choices directly.\n",
        ),
        gold=row.letter(options, "answer"),
        options=options,
        images=images,
    )


def _authors(row: Row) -> Item:
    item = _default(row)
    body = str(item.prompt[1]).rpartition("Answer with")[0]
    return replace(item, prompt=(0, f"{body} Answer ONLY option's letter from the given choices."))


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    sets = {name: accuracy(part) for name, part in by_group(judged, "set").items()}
    groups = {g: [sets[n] for n in names if n in sets] for g, names in GROUPS.items()}
    return (
        {"macro": mean(sets), "micro": accuracy(judged), "sets": len(sets)}
        | {g: mean(values) for g, values in groups.items() if values}
        | {f"{name}/accuracy": x for name, x in sets.items()}
    )


def _own(version: str) -> Rule:
    return exact_rule(version, lambda text, item: harness_lmms.vmcbench_letter(text, item.options), guesses=True)


register_task(
    Task(
        name="vmcbench",
        summary="20 sets with four options; macro and micro mean, five groups",
        hub="suyc21/VMCBench",
        splits=("test", "dev"),
        needs="question, A, B, C, D, answer (a letter) and category",
        prompts={"default": _default, "authors": _authors},
        version="1",
        rules={
            NATIVE: exact_rule(letters.VERSION, lambda text, item: letters.choose(text, item.options)),
            "lmms-eval": _own(harness_lmms.VERSION),
            "vlmevalkit": _own(harness_vlmevalkit.VERSION),
        },
        measure=_measure,
        main="macro",
    )
)
