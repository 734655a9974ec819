"""Blocks of requests: what the engine writes as it gives them back, and what is read of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.serving.benchmark import probe as module
from lostattn.serving.benchmark.sizes import Size
from lostattn.serving.blocks_held import VARIABLE, blocks_held
from lostattn.serving.client import Answer


def write(path: Path, *rows: tuple[str, int]) -> Path:
    path.write_text("".join(json.dumps({"request": name, "blocks": blocks}) + "\n" for name, blocks in rows))
    return path


def test_the_line_of_an_answer(tmp_path: Path) -> None:
    record = write(
        tmp_path / "r", ("chatcmpl-1-aa", 3), ("chatcmpl-2-bb", 9), ("chatcmpl-1-aa", 5), ("chatcmpl-1-aa", 4)
    )
    assert blocks_held(record, "chatcmpl-1") == 5, "the largest of a request that was preempted"
    assert blocks_held(record, "chatcmpl-2-bb") == 9
    assert blocks_held(record, "aa") is None and blocks_held(record, "chatcmpl-3") is None
    assert blocks_held(tmp_path / "none", "chatcmpl-1") is None


class Server:
    root, url, name = "http://x", "http://x/v1", "m"


class Client:
    """Answers at once; its engine has written its line by then, or never writes one."""

    def __init__(self, record: Path, rows: list[tuple[str, int]], visual: int = 64) -> None:
        self.record, self.rows, self.visual, self.asked = record, rows, visual, []  # type: ignore[var-annotated]

    def __call__(self, *_: Any, **more: Any) -> Client:
        return self

    def ask(self, messages: Any, tokens: int, **extra: Any) -> Answer:
        self.asked.append(extra)
        write(self.record, *self.rows)
        return Answer("", [5] * self.visual + [1] * (84 - self.visual), [], "length", tokens, "chatcmpl-7")

    def close(self) -> None:
        pass


def probed(monkeypatch: pytest.MonkeyPatch, client: Client) -> dict[str, Any]:
    pool = SimpleNamespace(blocks=41, block_bytes=1000)
    monkeypatch.setattr(module, "fetch", lambda root: "")
    monkeypatch.setattr(module, "read_pool", lambda text: pool)
    monkeypatch.setattr(module, "Client", client)
    side: Any = SimpleNamespace(name="m", visual_tokens={5})
    return module.probe(Server(), client.record, side, Size(32, 32, 64), "hm", 8)


def test_one_request_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = Client(tmp_path / "r", [("chatcmpl-6-x", 30), ("chatcmpl-7-y", 4)])
    assert probed(monkeypatch, client) == {"visual": 64, "text": 28, "blocks": 4, "bytes": 4000, "fit": 10}
    probed(monkeypatch, client)
    salts = [extra["cache_salt"] for extra in client.asked]
    assert len(set(salts)) == 2, "no block of an earlier request is found again"


def test_an_engine_that_writes_nothing_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(LostattnError, match="lostattn doctor"):
        probed(monkeypatch, Client(tmp_path / "r", [("chatcmpl-6-x", 30)]))
    with pytest.raises(LostattnError, match="63 visual tokens in the server of m and 64 in the processor"):
        probed(monkeypatch, Client(tmp_path / "r", [("chatcmpl-7-y", 4)], visual=63))


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type:
    """vLLM's manager, as far as the record needs one: tables of two groups, in which blocks come and go."""
    pytest.importorskip("vllm")
    from lostattn.serving.engine.cache import block_record

    class Manager:
        def __init__(self) -> None:
            self.tables: dict[str, list[list[Any]]] = {}

        def get_blocks(self, name: str) -> Any:
            return SimpleNamespace(blocks=self.tables.get(name, [[], []]))

        def allocate_slots(self, request: Any, table: list[list[Any]]) -> str:
            self.tables[request.request_id] = table
            return "what vLLM gives"

        def free(self, request: Any) -> None:
            self.tables.pop(request.request_id)

    monkeypatch.setattr(block_record, "KVCacheManager", Manager)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "record"))
    block_record.record_blocks()
    block_record.record_blocks()
    return Manager


def block(number: int) -> Any:
    return SimpleNamespace(block_id=number, is_null=number == 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture holds no state of a case
@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 9), max_size=6)), min_size=1))
def test_the_peak_of_every_request(manager: type, steps: list[tuple[str, list[int]]]) -> None:
    record = Path(os.environ[VARIABLE])
    record.unlink(missing_ok=True)
    found, peaks = manager(), {"a": 0, "b": 0}
    for name, ids in steps:
        half = len(ids) // 2
        request = SimpleNamespace(request_id=name)
        assert found.allocate_slots(request, [[block(i) for i in ids[:half]], [block(i) for i in ids[half:]]])
        peaks[name] = max(peaks[name], len(set(ids) - {0}))
    for name in list(found.tables):
        found.free(SimpleNamespace(request_id=name))
    assert {name: blocks_held(record, name) or 0 for name in "ab"} == peaks


def test_nothing_is_done_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from lostattn.serving.engine.cache import block_record

    monkeypatch.delenv(VARIABLE, raising=False)
    plain = block_record.KVCacheManager.free
    block_record.record_blocks()
    assert block_record.KVCacheManager.free is plain
