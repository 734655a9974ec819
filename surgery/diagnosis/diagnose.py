"""`lostattn diagnose`: measure models on questions, resumable, and write the report."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...patches.plan import one_of
from ...serving.data import Example
from ...serving.disk import disk_errors, write_json
from ...serving.resume import Progress, fingerprint
from ..chat import Chat
from ..checkpoint.provenance import versions
from .report import write_report
from .samples import TOKENS, Sample, measure_sample
from .summary import summarise

VERSION = 2  # of the numbers of a sample: those of other versions are not used again
Counter = Callable[[int, int], None]


@dataclass(frozen=True)
class DiagnosisSettings:
    """What is measured. `tokens`: rows of the states that count. `seed`: of the controls."""

    tokens: str = "all"
    controls: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("tokens", self.tokens, TOKENS)


def diagnose(
    models: Sequence[str | Path],
    examples: Sequence[Example],
    out: str | Path,
    settings: DiagnosisSettings,
    data: str,
    dtype: str = "auto",
    device: str = "cpu",
    counter: Callable[[str], Counter] = lambda _: lambda done, total: None,
) -> dict[str, Any]:
    """Measure every model on the same questions and write JSON, CSV, Markdown, pictures and one HTML page.

    Finished samples lie in `out/<model>.samples.jsonl`; a run that was interrupted goes on behind them.

    Args:
        models: plain or patched folders; the first is what the others are compared with.
        data: what to call the examples.

    Raises:
        LostattnError: two models of one folder name, or whatever keeps a model or a question from being used.
    """
    out = Path(out)
    names = [Path(m).resolve().name for m in models]
    if len(set(names)) != len(names):
        raise LostattnError("two of the models have the same folder name: rename one, the report calls them by it")
    with disk_errors(f"cannot make {out}"):
        out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "data": data,
        "questions": len(examples),
        "settings": asdict(settings),
        "versions": versions(),
        "models": {},
    }
    for name, folder in zip(names, models, strict=True):
        chat = Chat.load(folder, dtype, device)
        samples = _measure_all(chat, examples, out / f"{name}.samples.jsonl", settings, counter(name))
        report["models"][name] = {
            "patched": chat.patched,
            "plan": chat.model.sap_plan.to_json() if chat.patched else None,
            "paths": dict(sum((Counts(s.paths) for s in samples), Counts())),
            **summarise(samples),
        }
    write_json(out / "diagnose.json", report)
    write_report(report, out)
    return report


def _measure_all(
    chat: Chat, examples: Sequence[Example], path: Path, settings: DiagnosisSettings, counter: Counter
) -> list[Sample]:
    done = Progress(path, fingerprint(chat.model, examples, {**asdict(settings), "measures": VERSION}))
    for i, example in enumerate(examples):
        if i >= len(done.rows):
            sample = measure_sample(chat, example, settings.tokens, settings.controls, settings.seed)
            done.add(asdict(sample))
        counter(i + 1, len(examples))
    return [Sample(**row) for row in done.rows]
