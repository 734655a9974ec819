"""Sends drawn requests to a running server and looks whether it still answers: `python tests/fuzz_door.py URL [COUNT] [SEED]`.

One request of a run can be sent again by its number: `python tests/fuzz_door.py URL 1000 0 217`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent))

from drawn_requests import Drawn, requests  # noqa: E402
from hostile import OK, chat  # noqa: E402

TIMEOUT = 300.0  # seconds; a request that takes longer counts as one that blocks the engine
HIDDEN = {"/inference/v1/generate": None}  # not in openapi.json


@dataclass(frozen=True)
class Said:
    """What came back; status 0 and the error if nothing did."""

    drawn: Drawn
    status: int
    text: str


def send(root: str, drawn: Drawn, key: str | None = None) -> Said:
    """Send one request."""
    headers = {"content-type": "application/json", **drawn.headers}
    if key:
        headers["authorization"] = f"Bearer {key}"
    try:
        answer = httpx.post(root + drawn.path, content=drawn.body, headers=headers, timeout=TIMEOUT)
    except httpx.HTTPError as error:
        return Said(drawn, 0, repr(error))
    return Said(drawn, answer.status_code, answer.text)


def fuzz(root: str, count: int, seed: int, key: str | None = None, at_once: int = 8) -> list[Said]:
    """Send so many requests, several at once; what came back, in their order."""
    schema = httpx.get(root + "/openapi.json", headers={"authorization": f"Bearer {key}"}, timeout=60).json()
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda drawn: send(root, drawn, key), requests(schema, seed, count, HIDDEN)))


def plain_answer(root: str, key: str | None = None) -> Any:
    """What the server says to an ordinary question: the answer's text, or status and text of the refusal."""
    body = json.dumps(chat(OK, temperature=0)).encode()
    said = send(root, Drawn(-1, "/v1/chat/completions", body, {}), key)
    if said.status != 200:
        return said.status, said.text
    return json.loads(said.text)["choices"][0]["message"]["content"]


def summary(said: list[Said]) -> str:
    """Requests by endpoint and status, and the worst of them."""
    counts = Counter((s.drawn.path, s.status) for s in said)
    lines = [f"{path} {status}: {n}" for (path, status), n in sorted(counts.items())]
    worst = [s for s in said if s.status >= 500 or s.status == 0]
    return "\n".join(lines + [f"{s.drawn.number} {s.drawn.path} {s.status} {s.text[:300]}" for s in worst])


def main() -> None:
    """Command line."""
    root, *numbers = sys.argv[1:]
    count, seed, only = (*map(int, numbers), *(1000, 0, -1)[len(numbers) :])
    if only >= 0:
        schema = httpx.get(root + "/openapi.json", timeout=60).json()
        drawn = next(d for d in requests(schema, seed, count, HIDDEN) if d.number == only)
        print(drawn.path, drawn.headers, drawn.body.decode()[:3000], sep="\n")
        print(send(root, drawn))
        return
    before = plain_answer(root)
    print(summary(fuzz(root, count, seed)))
    after = plain_answer(root)
    print(f"before: {before}, after: {after}")
    raise SystemExit(before != after)


if __name__ == "__main__":
    main()
