"""`lostattn compare`: an original and its patched models through vLLM, evaluated and measured, in one report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.benchmark.bench import choose_sizes, measure, open_servers
from ...serving.benchmark.servers import Servers
from ...serving.benchmark.settings import BenchSettings, longest_request
from ...serving.benchmark.sizes import Size
from ...serving.byte_model import kv_bytes
from ...serving.pages.charts import need_matplotlib
from ...serving.sides import Side, check_processors, folder_fingerprint, read_sides
from ...serving.tasks.task import NATIVE
from .backends import VLLM, Model, ThroughVllm
from .evaluate import EvalSettings, answer_and_score, make_report, pictures_of, working_in
from .tasks import Asked

SHORT = BenchSettings(concurrency=(1, 8), output_tokens=32, repeats=3)
PREDICTED = (256, 1024, 4096, 16384)  # visual tokens
USUAL, LONGEST = 4096, 16384  # tokens of a question with its picture: for the pool's size, and that servers take


@dataclass(frozen=True)
class CompareSettings:
    """Settings of `lostattn compare`.

    Attributes:
        concurrency: questions asked at once.
        bench: the short benchmark, None for none; its pool, options and `together` hold for the questions as well.
        server: pool, options and `together` where there is no benchmark.
        seed, harness: as of `EvalSettings`.
    """

    concurrency: int = 8
    bench: BenchSettings | None = SHORT
    server: BenchSettings = SHORT
    seed: int = 0
    harness: str = NATIVE

    @property
    def load(self) -> BenchSettings:
        """Where pool, options and `together` come from."""
        return self.bench or self.server


def compare(
    base: str | Path,
    patched: Sequence[str | Path],
    asked: Sequence[Asked],
    out: str | Path,
    settings: CompareSettings | None = None,
) -> dict[str, Any]:
    """Ask every model the same questions through vLLM, measure them, and write the report into `out`.

    Args:
        asked: tasks of `read_tasks`.

    Returns:
        The report, as in `out/compare.json`: that of `eval` with `bench` and with the KV cache that each model's requests are
        predicted to need. `compare.md` and `compare.html` lie beside it, the answers in `out/TASK/MODEL.jsonl`. An interrupted
        call is continued by the next one with the same models, questions and settings.

    Raises:
        LostattnError: models or questions that cannot be compared, or a server that fails.
    """
    from ...serving.evaluation.page import write_report

    settings, out = settings or CompareSettings(), Path(out)
    if settings.bench:
        need_matplotlib()
    if settings.concurrency < 1 or not asked:
        raise LostattnError("comparing needs questions, and one or more of them at once")
    sides = read_sides(base, patched)
    check_processors(sides)
    with working_in(out), _servers(sides, settings, out) as (servers, sizes):
        options = settings.load.options
        backend = ThroughVllm(options, settings.concurrency, settings.seed, out / "logs", servers, sides)
        judged = EvalSettings(
            VLLM, concurrency=settings.concurrency, options=options, seed=settings.seed, harness=settings.harness
        )
        models = [Model(s.name, s.folder, folder_fingerprint(s.folder), s.plan) for s in sides]
        outcomes = answer_and_score(models, asked, out, judged, backend, same_prompts=True)
        report = make_report("compare", models, asked, outcomes, judged, backend)
        report["bench"] = measure(sides, sizes, settings.bench, servers, out) if settings.bench else None
        for row, side in zip(report["models"], sides, strict=True):
            row |= {"folder": str(side.folder), "predicted_kv": _predicted(side, sides[0])}
        report |= {"concurrency": settings.concurrency, "server_options": list(servers.options)}
        write_report(report, out, pictures_of(report, asked))
    return report


@contextmanager
def _servers(sides: Sequence[Side], settings: CompareSettings, out: Path) -> Iterator[tuple[Servers, Sequence[Size]]]:
    """Servers that take the questions and the benchmark's loads, and the sizes of its pictures."""
    load = settings.load
    sizes = choose_sizes(sides[0], load) if settings.bench else []
    longest = min(sides[0].longest or LONGEST, LONGEST)
    usual = longest_request(sizes, load) if sizes else min(USUAL, longest)
    with open_servers(sides, load, usual, max(usual, longest), out) as servers:
        yield servers, sizes


def _predicted(side: Side, base: Side) -> list[dict[str, Any]]:
    """KV cache of a request of 128 text tokens and one picture, as a share of the original's."""
    return [
        {"visual": n, "kv_share": kv_bytes(side.shape, side.plan, 128, n) / kv_bytes(base.shape, None, 128, n)}
        for n in PREDICTED
    ]
