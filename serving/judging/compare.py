"""`lostattn compare`: accuracy, speed and memory of original and patched models, in one report."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..byte_model import kv_bytes
from ..data import Example
from ..disk import disk_errors
from ..evaluation.rate import LazyBar
from ..hardware import hardware
from ..resume import Progress
from ..versions import serving_versions
from .accuracy import answer_all, asker, judge, picture_labels, rights, same_prompts
from .bench import choose_sizes, measure, open_servers
from .card_rows import card_rows
from .charts import need_matplotlib
from .client import Client
from .parsing import PARSER, RULES, parse
from .questions import PROMPT_RULE, Question, data_fingerprint, make_questions
from .servers import Say, Servers
from .settings import BenchSettings, longest_request
from .sides import Side, check_processors, describe_plan, folder_fingerprint, read_sides

SHORT = BenchSettings(concurrency=(1, 8), output_tokens=32, repeats=3)
PREDICTED = (256, 1024, 4096, 16384)
MAX_TOKENS = 64
USUAL, LONGEST = 4096, 16384  # tokens of a question with its picture: for the pool's size, and that servers take


@dataclass(frozen=True)
class CompareSettings:
    """Settings of `lostattn compare`.

    Attributes:
        concurrency: questions asked at once.
        max_tokens: longest answer.
        bench: the short benchmark, None for none; its pool, options and `together` hold for the questions as well.
        data: what the report calls the data.
        server: pool, options and `together` where there is no benchmark.
    """

    concurrency: int = 8
    max_tokens: int = MAX_TOKENS
    bench: BenchSettings | None = SHORT
    data: str = ""
    server: BenchSettings = SHORT


def compare(
    base: str | Path,
    patched: Sequence[str | Path],
    examples: Sequence[Example],
    out: str | Path,
    settings: CompareSettings | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Ask every model the same questions through vLLM, measure them, and write the report into `out`.

    Args:
        examples: rows of `read_examples`, or made in memory with pictures of PIL.
        say: gets a line of progress at a time.

    Returns:
        The report, as in `out/compare.json`; `compare.md`, `compare.html` and `answers.jsonl` lie beside it. An interrupted
        call is continued by the next one with the same models, questions and settings.

    Raises:
        LostattnError: models or questions that cannot be compared, or a server that fails.
    """
    from .compare_report import write_compare

    settings = settings or CompareSettings()
    need_matplotlib()
    if settings.concurrency < 1 or settings.max_tokens < 1 or not examples:
        raise LostattnError("comparing needs questions, one or more at once, and answers of one token or more")
    sides, questions, out = read_sides(base, patched), make_questions(examples), Path(out)
    check_processors(sides)
    load = settings.bench or settings.server
    sizes = choose_sizes(sides[0], load) if settings.bench else []
    longest = min(sides[0].longest or LONGEST, LONGEST)
    usual = longest_request(sizes, load) if sizes else min(USUAL, longest)
    with open_servers(sides, load, usual, max(usual, longest), out, say) as servers:
        with disk_errors(f"cannot write {out}"):
            out.mkdir(parents=True, exist_ok=True)
        answers = _ask_sides(sides, questions, settings, servers, out, say)
        bench = measure(sides, sizes, load, servers, out, say) if settings.bench else None
    report = _report(sides, questions, answers, bench, servers, settings)
    write_compare(report, questions, answers, out)
    return report


def _ask_sides(
    sides: Sequence[Side],
    questions: Sequence[Question],
    settings: CompareSettings,
    servers: Servers,
    out: Path,
    say: Say,
) -> dict[str, list[dict[str, Any]]]:
    answers: dict[str, list[dict[str, Any]]] = {}
    data = data_fingerprint([q.example for q in questions])
    for number, side in enumerate(sides):
        progress = Progress(out / f"answers-{number}-{side.name}.jsonl", _key(side, data, settings))
        left = len(questions) - len({row["index"] for row in progress.rows})
        if left < len(questions):
            say(f"{side.name}: {len(questions) - left} of {len(questions)} questions were answered before")
        check = same_prompts(answers.get(sides[0].name, []), side, questions)
        count = _counter(side.name, say)
        if not left:
            answers[side.name] = answer_all(questions, _never, progress, 1, check, count)
            continue
        client = Client(servers.use(side), side.image_token)
        try:
            ask = asker(client, settings.max_tokens)
            with servers.blame(side):
                answers[side.name] = answer_all(questions, ask, progress, settings.concurrency, check, count)
        finally:
            client.close()
    return answers


def _never(_: Question) -> Any:
    raise AssertionError("all questions were answered")


def _counter(name: str, say: Say) -> Any:
    shown = LazyBar(say, f"{name}, answers")

    def count(done: int, total: int) -> None:
        if shown(done, total):
            return
        if done == total or 10 * done // total != 10 * (done - 1) // total:
            say(f"{name}: {done}/{total} answers")

    return count


def _key(side: Side, data: str, settings: CompareSettings) -> str:
    """Answers are used again only for the same model, data, options of the server and versions.

    How long prompts may be and how large the pool is does not change answers, and the benchmark's sizes decide about them.
    """
    options = (settings.bench or settings.server).options
    parts = [
        folder_fingerprint(side.folder), data, settings.max_tokens, settings.concurrency, options, PARSER, PROMPT_RULE,
        serving_versions(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _report(
    sides: Sequence[Side],
    questions: Sequence[Question],
    answers: Any,
    bench: Any,
    servers: Servers,
    settings: CompareSettings,
) -> dict[str, Any]:
    clusters = len(set(picture_labels(questions))) < len(questions)
    kinds = sorted({q.expected.kind for q in questions})
    accuracy = judge(sides, questions, answers, clusters)
    return {
        "base": sides[0].name, "data": settings.data, "questions": len(questions),
        "models": [
            {"name": s.name, "folder": str(s.folder), "plan": describe_plan(s.plan),
             "sap": s.config.get("sap"), "predicted_kv": _predicted(s, sides[0])} for s in sides
        ],
        "accuracy": accuracy, "clusters": clusters, "results": card_rows(accuracy, settings.data),
        "by_kind": _by_kind(sides, questions, answers),
        "bench": bench, "max_tokens": settings.max_tokens, "concurrency": settings.concurrency, "temperature": 0, "seed": 0,
        "parser": {"version": PARSER, "rules": {k: RULES[k] for k in kinds}}, "prompt": PROMPT_RULE,
        "first_prompt": questions[0].text, "options": list(servers.options), "versions": serving_versions(),
        "python": platform.python_version(), "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "hardware": hardware(), "bench_settings": asdict(settings.bench) if settings.bench else None,
    }  # fmt: skip


def _predicted(side: Side, base: Side) -> list[dict[str, Any]]:
    return [
        {"visual": n, "kv_share": kv_bytes(side.shape, side.plan, 128, n) / kv_bytes(base.shape, None, 128, n)}
        for n in PREDICTED
    ]


def _by_kind(sides: Sequence[Side], questions: Sequence[Question], answers: Any) -> dict[str, dict[str, Any]]:
    """Kind of answer -> model -> [right, asked]."""
    found: dict[str, dict[str, Any]] = {}
    for side in sides:
        for right, question in zip(rights(questions, answers[side.name]), questions, strict=True):
            cell = found.setdefault(question.expected.kind, {}).setdefault(side.name, [0, 0])
            cell[0] += right
            cell[1] += 1
    return found


def answer_rows(questions: Sequence[Question], answers: Any) -> list[dict[str, Any]]:
    """One row per question for `answers.jsonl`: what was asked, what counts as right, what every model said."""
    rows = []
    for i, q in enumerate(questions):
        said = {
            name: {"text": a[i]["text"], "parsed": parse(a[i]["text"], q.expected), "finish": a[i]["finish"]}
            for name, a in answers.items()
        }
        first = next(iter(answers.values()))[i]
        rows.append(
            {"row": q.example.row, "question": q.text, "kind": q.expected.kind, "expected": q.expected.value,
             "prompt": first["prompt"], "visual_tokens": first["visual"], "answers": said}
        )  # fmt: skip
    return rows
