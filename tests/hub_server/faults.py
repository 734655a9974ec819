"""Faults: what goes wrong, at which request, how often."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One rule.

    Attributes:
        where: regular expression on `METHOD path`.
        kind: an HTTP status, `cut` (the connection breaks before the answer), `lost` (done, but the answer never comes),
            `slow` (no answer for `seconds`), or `garbage` (200 with what is no JSON).
        times: how often; None for ever.
        skip: requests to let pass first.
        message: what an answer with a status says.
    """

    where: str
    kind: int | str
    times: int | None = 1
    skip: int = 0
    seconds: float = 5.0
    message: str = "the server said SECRETWORD"
    hits: int = 0


@dataclass
class Faults:
    """The rules in force, and a log of all requests: method, path, bytes received, whether a token came along."""

    rules: list[Fault] = field(default_factory=list)
    log: list[tuple[str, str, int, bool]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, where: str, kind: int | str, **settings: object) -> Fault:
        fault = Fault(where, kind, **settings)  # type: ignore[arg-type]
        self.rules.append(fault)
        return fault

    def due(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.rules:
                if not re.search(fault.where, f"{method} {path}"):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.times is None or fault.hits < fault.times:
                    fault.hits += 1
                    return fault
        return None

    def seen(self, where: str) -> list[tuple[str, str, int, bool]]:
        """Logged requests that match."""
        return [entry for entry in self.log if re.search(where, f"{entry[0]} {entry[1]}")]

    def clear(self) -> None:
        self.rules.clear()
        self.log.clear()
