"""`lostattn bench serve`: original and patched models under the same load, taking turns on one machine."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..byte_model import kv_bytes
from ..disk import disk_errors
from ..engine.versions import check_videos
from ..hardware import hardware
from ..host_times import host_times, written
from ..pages.charts import need_matplotlib
from ..progress import bar_of
from ..resume import Progress
from ..sides import Side, check_processors, describe_plan, folder_fingerprint, read_sides
from ..versions import serving_versions
from .load import Generator
from .probe import probe, words
from .servers import Servers, fit_together, need_vllm
from .settings import (
    LEAST_POOL,
    TEMPLATE,
    BenchSettings,
    LoadRun,
    cache_scale,
    longest_request,
    make_load,
    schedule,
    server_options,
)
from .sizes import Size, fitting_sizes, picture_sizes, video_sizes
from .summary import host_figures, measured, predicted_decode, predicted_kv, summarize

USUAL = (256, 1024, 4096)
logger = logging.getLogger(__name__)


def bench_serve(
    base: str | Path,
    patched: Sequence[str | Path],
    out: str | Path,
    settings: BenchSettings,
) -> dict[str, Any]:
    """Measure and write `bench.json`, `bench.md` and pictures into `out`; goes on where it was interrupted.

    Raises:
        LostattnError: folders that cannot be compared, a server that does not start, a request that fails.
    """
    from .report import write_bench

    need_matplotlib()
    sides, out = read_sides(base, patched), Path(out)
    check_processors(sides)
    if settings.videos:
        for side in sides:
            if side.plan is not None:
                check_videos(side.plan.family)
    sizes = choose_sizes(sides[0], settings)
    longest = longest_request(sizes, settings)
    with open_servers(sides, settings, longest, longest, out) as servers:
        with disk_errors(f"cannot write {out}"):
            out.mkdir(parents=True, exist_ok=True)
        report = measure(sides, sizes, settings, servers, out)
    write_bench(report, out)
    return report


def choose_sizes(base: Side, settings: BenchSettings) -> list[Size]:
    """Pictures for the wanted numbers of visual tokens; LostattnError if the processor or the model cannot take one."""
    room = None if base.longest is None else base.longest - settings.text_tokens - settings.output_tokens - TEMPLATE
    if not settings.visual_tokens:
        if settings.videos:
            raise LostattnError("videos have no usual sizes: say how many visual tokens with --visual-tokens")
        return fitting_sizes(base.folder, USUAL, room)
    sizes = (video_sizes if settings.videos else picture_sizes)(base.folder, settings.visual_tokens)
    if room is not None and sizes[-1].visual > room:
        raise LostattnError(
            f"{sizes[-1].visual} visual tokens with text and output exceed the model's {base.longest} positions: "
            "leave that number out of --visual-tokens"
        )
    return sizes


def open_servers(sides: Sequence[Side], settings: BenchSettings, usual: int, longest: int, out: Path) -> Servers:
    """Servers with one pool size for all, not started yet.

    Args:
        usual: tokens of a request of the load; the pool takes as many as run at once.
        longest: tokens of the longest request that the servers have to take.
    """
    need_vllm()
    budget = settings.kv_budget
    if budget is None:
        shape = sides[0].shape
        need = max(max(settings.concurrency) * kv_bytes(shape, None, usual, 0), kv_bytes(shape, None, longest, 0))
        budget = max(LEAST_POOL, int(1.1 * need * cache_scale(settings.options, shape.dtype_bytes)))
    together = fit_together(sides, budget) if settings.together is None else settings.together
    logger.info(
        f"KV pool {budget / 2**30:.2f} GiB each, servers {'all alive, taking turns' if together else 'one by one'}"
    )
    return Servers(server_options(budget, longest, settings.options, settings.videos), out / "logs", together)


def measure(
    sides: Sequence[Side], sizes: Sequence[Size], settings: BenchSettings, servers: Servers, out: Path
) -> dict[str, Any]:
    """All loads and probes that are not on disk yet, and the report about them."""
    key = _key(sides, settings, servers)
    probes, loads = (Progress(out / f"bench-{what}.jsonl", key) for what in ("probes", "loads"))
    jobs = list(schedule([s.name for s in sides], sizes, settings.concurrency, settings.repeats, servers.together))
    done = finished(jobs, loads.rows, servers.together)
    if done:
        logger.info(f"{len(done)} of {len(jobs)} loads were measured before")
    left = [job for job in jobs if job.key not in done]
    with Generator(out / "load.log") as generator:
        text = words(sides[0].folder, settings.text_tokens)
        for side in sides:
            _probe_missing(side, sizes, text, settings.output_tokens, servers, probes)
        if left and servers.together:
            for side in sides:
                servers.use(side)
        runner = _Runner(sides, settings, servers, generator)
        bar = bar_of("loads", len(jobs), len(done))
        for number, job in enumerate(left, len(done) + 1):
            loads.add(row := runner.run(job))
            servers.note_memory()
            _note_facts(probes, servers)
            logger.info(f"{number}/{len(jobs)} {_told(row)}")
            if bar is not None:
                bar(number)
    rows = {_row_key(row): row for row in loads.rows}
    return _report(sides, settings, servers, probes.rows, [rows[job.key] for job in jobs])


class _Runner:
    """Puts jobs on servers, and one load that does not count on every new server."""

    def __init__(self, sides: Sequence[Side], settings: BenchSettings, servers: Servers, generator: Generator) -> None:
        self.sides = {side.name: side for side in sides}
        self.tokenizer = sides[0].folder
        self.settings, self.servers, self.generator = settings, servers, generator
        self.session = uuid.uuid4().hex[:8]
        self.warm: set[int] = set()

    def run(self, job: LoadRun) -> dict[str, Any]:
        """The row of one job."""
        side, load = self.sides[job.side], make_load(job, self.settings)
        server = self.servers.use(side)
        with self.servers.blame(side):
            if (
                server.pid not in self.warm
            ):  # the first requests of a process pay for what is compiled and allocated once
                self.warm.add(server.pid)
                first = replace(load, seed=load.seed + 1, requests=job.concurrency)
                self.generator.put(first, server, self.tokenizer)
            record = self.servers.host_record(side)
            start = written(record)
            raw = self.generator.put(load, server, self.tokenizer)
        return _row(job, raw, self.session) | host_figures(host_times(record, start, job.concurrency))


def _key(sides: Sequence[Side], settings: BenchSettings, servers: Servers) -> str:
    text = json.dumps(
        [[s.name, folder_fingerprint(s.folder)] for s in sides]
        + [asdict(settings), list(servers.options), serving_versions(), hardware()],
        default=str,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def finished(jobs: Sequence[LoadRun], rows: Sequence[Mapping[str, Any]], together: bool) -> set[str]:
    """Keys of the jobs that need no run. Where models take turns within a load, all of them have to have been there."""
    known = {_row_key(row) for row in rows}
    if not together:
        return {job.key for job in jobs if job.key in known}
    turns: dict[tuple[int, int, int], list[str]] = {}
    for job in jobs:
        turns.setdefault((job.size.visual, job.concurrency, job.repeat), []).append(job.key)
    return {key for keys in turns.values() if known.issuperset(keys) for key in keys}


def _row(job: LoadRun, raw: Mapping[str, Any], session: str) -> dict[str, Any]:
    place = {"side": job.side, "visual": job.size.visual, "concurrency": job.concurrency, "repeat": job.repeat}
    return place | measured(raw, job.concurrency) | {"session": session}


def _row_key(row: Mapping[str, Any]) -> str:
    return f"{row['side']} {row['visual']} {row['concurrency']} {row['repeat']}"


def _told(row: Mapping[str, Any]) -> str:
    return (
        f"{row['side']}, {row['visual']} visual tokens, {row['concurrency']} at once: first token {row['ttft_ms']:.0f} ms, "
        f"{row['output_tokens_per_s']:.1f} tokens/s"
    )


def _probe_missing(
    side: Side, sizes: Sequence[Size], text: str, output_tokens: int, servers: Servers, probes: Progress
) -> None:
    known = {(row["side"], row["visual"]) for row in probes.rows if "visual" in row}
    for size in sizes:
        if (side.name, size.visual) not in known:
            server = servers.use(side)
            with servers.blame(side):
                result = probe(server, servers.record(side), side, size, text, output_tokens)
            probes.add({"side": side.name, **result})
            _note_facts(probes, servers)


def _note_facts(probes: Progress, servers: Servers) -> None:
    """Servers' facts lie among the probes, so that an interrupted run has them without starting each server again."""
    known = {row["facts"]: row for row in probes.rows if "facts" in row}
    for name, facts in servers.facts.items():
        if known.get(name, {}).get("peak_memory", -1) < facts.get("peak_memory", 0):
            probes.add({"facts": name, **facts})


def _report(
    sides: Sequence[Side], settings: BenchSettings, servers: Servers, noted: Sequence[Mapping[str, Any]], rows: Any
) -> dict[str, Any]:
    facts = {row["facts"]: {k: v for k, v in row.items() if k != "facts"} for row in noted if "facts" in row}
    probes = [dict(row) for row in noted if "visual" in row]
    by_name = {side.name: side for side in sides}
    for row in probes:
        dtype = facts[row["side"]]["dtype"]
        row["predicted_bytes"] = predicted_kv(by_name[row["side"]], dtype, row["text"], row["visual"])
    summary = summarize(rows, sides[0].name)
    for row in summary:
        expected = predicted_decode(sides, row["visual"], row["concurrency"], settings)
        row["predicted_decode_ratio"] = expected.get(row["side"])
    return {
        "base": sides[0].name,
        "settings": settings.to_json(),
        "options": list(servers.options),
        "together": servers.together,
        "models": [
            {"name": s.name, "folder": str(s.folder), "plan": describe_plan(s.plan), "server": facts[s.name]}
            for s in sides
        ],
        "kv": probes,
        "summary": summary,
        "loads": rows,
        "versions": serving_versions(),
        "hardware": hardware(),
    }
