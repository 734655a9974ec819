"""A sweep over the machines of a Ray cluster: a model per GPU there, the answers written here."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...patches.errors import LostattnError
from ...patches.plan import Plan
from ...serving.cause import cause
from ...serving.evaluation.rate import Rate
from ...serving.evaluation.store import Answers, Reply, alone_in
from ...serving.hardware import hardware
from ...serving.sides import folder_fingerprint
from ...serving.tasks.task import Item
from ...serving.versions import versions
from ..calibration import Calibration
from ..checkpoint.source import Source, resolve_source
from ..evaluation.evaluate import EvalSettings
from ..evaluation.local import Encoded
from ..evaluation.tasks import Asked
from .sweep import run_sweep
from .work import Answerer, Plans, Work, measure_heads

RETRIES = 3  # of a worker that dies, and of the questions it had
ELSEWHERE = Reply("", "", "")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster; each worker takes one GPU if it has some, else one CPU."""

    ray: Any
    device: str

    @property
    def needs(self) -> dict[str, int]:
        """Of one worker."""
        return {"num_gpus": 1} if self.device == "cuda" else {"num_cpus": 1}

    def size(self, most: int) -> int:
        """How many workers have room now; at least one, which then waits for it."""
        free = self.ray.available_resources().get("GPU" if self.device == "cuda" else "CPU", 0)
        return max(1, min(int(free), most))

    def get(self, take: Callable[[], Any]) -> Any:
        """What Ray hands over. LostattnError for a worker's own, and for workers that die again and again."""
        try:
            return take()
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, LostattnError):
                raise LostattnError(str(error.cause)) from error
            raise
        except self.ray.exceptions.RayError as error:
            stated = cause(error).splitlines()[0]
            raise LostattnError(
                f"Ray lost its workers ({stated}): the same command goes on where they stopped"
            ) from error


@contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """Connect to `auto` (the running cluster), `local` (one made for this block) or an address.

    Raises:
        LostattnError: Ray is not installed, or no cluster is there.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise LostattnError("--ray needs Ray: pip install 'lostattn[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    more = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **more)
    except (OSError, ValueError, RuntimeError) as error:
        stated = cause(error).splitlines()[0]
        raise LostattnError(
            f"no Ray cluster at '{address}' ({stated}): start one with 'ray start --head', or use --ray local"
        ) from error
    try:
        yield Cluster(ray, "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu")
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Order:
    """What a worker needs to know; `items` of every task, their pictures' files by absolute paths."""

    base: str
    revision: str | None
    identity: str
    versions: Mapping[str, Any]
    dtype: str
    device: str
    batch: int
    items: Mapping[str, Sequence[Item]]
    tokens: Mapping[str, int]


@dataclass(frozen=True)
class WorkItem:
    """Items of one window of a task, to be answered under a plan."""

    key: str
    plan: Plan
    task: str
    wanted: Sequence[int]


class Worker:
    """Holds the model on one GPU or CPU of the cluster."""

    def __init__(self, order: Sequence[Any]) -> None:
        """Take the reference to an order, in a list: a plain one would bind restarts to this call."""
        self.order: Order = importlib.import_module("ray").get(order[0])
        self.answerer: Answerer | None = None

    def hardware(self) -> str:
        """Of its machine."""
        return hardware()

    def answer(self, job: WorkItem) -> tuple[WorkItem, dict[int, Reply]]:
        """Answer the job's items. LostattnError if this machine's model or programs are others than the driver's."""
        order, task, wanted = self.order, job.task, job.wanted
        self.answerer = self.answerer or self._checked()
        with tempfile.TemporaryDirectory() as folder:
            store = Answers(Path(folder) / task, {}, order.items[task])
            store.found.update(dict.fromkeys(set(range(len(order.items[task]))) - set(wanted), ELSEWHERE))
            rate = Rate(task, len(order.items[task]), len(store.found))
            self.answerer.answer(job.plan, task, store, order.tokens[task], order.batch, rate)
        return job, {i: store.found[i] for i in wanted}

    def _checked(self) -> Answerer:
        order, here = self.order, f"Ray's worker on {socket.gethostname()}"
        if order.device == "cpu":
            torch.set_num_threads(1)
        try:
            source = resolve_source(order.base, order.revision)
        except LostattnError as error:
            raise LostattnError(f"{here}: {error}; the model must lie at the same place on every machine") from error
        if folder_fingerprint(source.path) != order.identity:
            raise LostattnError(f"{here} has other files in {order.base}: copy the same model to every machine")
        for name, version in versions().items():
            if version != order.versions.get(name):
                stated = f"{name} {version}, this machine {order.versions.get(name)}"
                raise LostattnError(f"{here} has {stated}: install the same versions on every machine")
        return Answerer(source, order.items, order.dtype, order.device)


def sweep_over(
    address: str,
    base: str,
    specs: Sequence[str],
    asked: Sequence[Asked],
    out: str | Path,
    settings: EvalSettings,
    calibration: Path | None = None,
) -> dict[str, Any]:
    """As `run_sweep`, with the models on the workers of the Ray cluster at `address`; `out` lies on this machine alone."""
    with cluster(address) as found:
        return run_sweep(
            base,
            specs,
            asked,
            out,
            replace(settings, device=found.device),
            calibration,
            lambda work, plans: answer_over(found, work, plans),
            lambda source, dtype, device, partial: measure_on(found, source, dtype),
        )


def measure_on(found: Cluster, source: Source, dtype: str) -> Calibration:
    """Measure the model's heads on one worker of the cluster."""
    task = found.ray.remote(max_calls=1, **found.needs)(measure_heads)
    measured: Calibration = found.get(lambda: found.ray.get(task.remote(source, dtype, found.device)))
    return measured


def answer_over(found: Cluster, work: Work, plans: Plans) -> list[str]:
    """Answer the plans on the cluster's workers, and write their answers here; returns a note for the report.

    Raises:
        LostattnError: a worker cannot use the model or an item, or workers die again and again.
    """
    before, total = work.answered(plans), work.total(plans)
    if before == total:
        return []
    pool_of = importlib.import_module("ray.util").ActorPool
    made = found.ray.remote(Worker).options(max_restarts=RETRIES, max_task_retries=RETRIES, **found.needs)
    if found.device == "cpu":
        torch.set_num_threads(1)  # as the workers', for the report
    order = found.ray.put(_order(work, found.device))
    workers = [made.remote([order]) for _ in range(found.size(-(-(total - before) // work.settings.batch)))]
    logger.info(f"{len(workers)} worker(s) of Ray, each with one {'GPU' if found.device == 'cuda' else 'CPU'}")
    rate, pool, begun, done = Rate("Ray", total, before), pool_of(workers), dict[str, _Begun](), before
    jobs = _jobs(work, plans, begun)
    while (job := next(jobs, None)) or pool.has_next():
        if job:
            pool.submit(lambda worker, value: worker.answer.remote(value), job)
        if not job or not pool.has_free():
            answered, replies = found.get(pool.get_next_unordered)
            begun[answered.key].keep(answered, replies)
            rate(done := done + len(replies))
    kinds = set(found.get(lambda: found.ray.get([worker.hardware.remote() for worker in workers])))
    return [f"answered by {len(workers)} worker(s) of Ray, each with one {work.settings.device} of: {'; '.join(kinds)}"]


@dataclass
class _Begun:
    """A plan whose answers are on their way; its lock is held until they are there."""

    lock: ExitStack
    stores: Mapping[str, Answers]
    missing: int

    def keep(self, job: WorkItem, replies: Mapping[int, Reply]) -> None:
        self.stores[job.task].add(replies)
        self.missing -= len(replies)
        if not self.missing:
            self.lock.close()
            self.stores = {}  # a sweep has many


def _jobs(work: Work, plans: Plans, begun: dict[str, _Begun]) -> Iterator[WorkItem]:
    """What is not answered yet, except under plans that another process has; whole windows, so that batches are the same."""
    windows = {one.task.name: Encoded(None, one.items).windows() for one in work.asked}
    for key, (plan, _) in plans.items():
        with ExitStack() as stack:
            if not stack.enter_context(alone_in(work.lock(key))):
                continue
            stores = {one.task.name: work.answers(one, key) for one in work.asked}
            jobs = [
                WorkItem(key, plan, task, wanted)
                for task, store in stores.items()
                for window in windows[task]
                if (wanted := [i for i in window if i not in store.found])
            ]
            if not jobs:
                continue
            begun[key] = _Begun(stack.pop_all(), stores, sum(len(job.wanted) for job in jobs))
        yield from jobs


def _order(work: Work, device: str) -> Order:
    source, settings = work.source, work.settings
    items = {one.task.name: [replace(item, folder=item.folder.resolve()) for item in one.items] for one in work.asked}
    return Order(
        source.repo or str(source.path),
        source.revision,
        work.identity,
        work.versions,
        settings.dtype,
        device,
        settings.batch,
        items,
        {one.task.name: one.max_tokens for one in work.asked},
    )
