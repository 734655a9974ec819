"""`lostattn serve` with a real vLLM, asked by the official client and by enemies."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hostile import OK, attacks, bomb, chat, data_url, mutations, png

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
ROOT = Path(__file__).resolve().parents[2]
KEY = "sesame-open"
QUESTION = "Is there a 7 in the image?"


@dataclass
class Served:
    process: subprocess.Popen[str]
    out: Path
    log: Path
    url: str

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def post(self, body: bytes, path: str = "/v1/chat/completions", key: str | None = KEY) -> tuple[int, str]:
        """(status, text); 0 if the connection breaks."""
        import httpx

        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        try:
            answer = httpx.post(self.root + path, content=body, headers=headers, timeout=120)
        except httpx.HTTPError as error:
            return 0, repr(error)
        return answer.status_code, answer.text


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo model, patched in all heads of five layers; ended by SIGINT, as a user does."""
    folder = tmp_path_factory.mktemp("serve")
    out, log, model = folder / "out", folder / "log", folder / "model"
    lostattn = [sys.executable, "-m", "lostattn.surgery.cli"]
    wanted = ["--mode", "patch_complexity", "--layers", "1-5", "--heads", "all"]
    subprocess.run([*lostattn, "patch", *wanted, str(ROOT / "surgery" / "demo" / "model"), str(model)], check=True)
    command = [*lostattn, "serve", str(model)]
    command += [
        "--name",
        "digits",
        "--port",
        "0",
        "--max-image-pixels",
        "1000000",
        "--max-images",
        "3",
        "--log",
        str(log),
    ]
    command += ["--", "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024"]
    env = {**os.environ, "LOSTATTN_API_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with out.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True, env=env, cwd=folder)
    while "end it with" not in out.read_text():
        assert process.poll() is None, out.read_text() + (log.read_text()[-3000:] if log.exists() else "")
        time.sleep(0.5)
    found = re.search(r"serving digits at (\S+)", out.read_text())
    assert found
    try:
        yield Served(process, out, log, found[1])
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert out.read_text().endswith("stopped\n")
    assert KEY not in out.read_text() + log.read_text()


@pytest.fixture(scope="module")
def client(served: Served) -> Any:
    import openai

    return openai.OpenAI(base_url=served.url, api_key=KEY, max_retries=0, timeout=120)


def messages(*urls: str, text: str = QUESTION) -> Any:
    return chat(*urls, text=text)["messages"]


def test_the_plan_and_its_savings_are_printed(served: Served) -> None:
    text = served.out.read_text()
    assert "20 of 24 heads in 5 of 6 layers; 10 of 12 KV groups are whole" in text
    assert re.search(r"^4096 +8\d% +8\d%$", text, re.MULTILINE), text


def test_models(client: Any) -> None:
    assert [m.id for m in client.models.list()] == ["digits"]


def test_a_picture_and_a_question(client: Any) -> None:
    reply = client.chat.completions.create(model="digits", messages=messages(OK), max_tokens=4, temperature=0)
    assert reply.choices[0].message.content in ("yes", "no") and reply.usage.prompt_tokens > 16


def test_text_alone_and_several_pictures(client: Any) -> None:
    counts = []
    for images in range(4):
        reply = client.chat.completions.create(model="digits", messages=messages(*[OK] * images), max_tokens=4)
        counts.append(reply.usage.prompt_tokens)
    assert counts[1] - counts[0] == counts[2] - counts[1] == counts[3] - counts[2] >= 4


def test_streaming_gives_the_same_answer(client: Any) -> None:
    ask = {"model": "digits", "messages": messages(data_url(png(112, 84))), "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**ask).choices[0].message.content
    parts = [c.choices[0].delta.content or "" for c in client.chat.completions.create(**ask, stream=True) if c.choices]
    assert "".join(parts) == whole != ""


def test_logprobs(client: Any) -> None:
    reply = client.chat.completions.create(
        model="digits", messages=messages(OK), max_tokens=2, temperature=0, logprobs=True, top_logprobs=5
    )
    for place in reply.choices[0].logprobs.content:
        assert len(place.top_logprobs) == 5 and place.logprob == max(t.logprob for t in place.top_logprobs) <= 0


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ([data_url(b"no picture")], "cannot identify image"),
        ([data_url(png()[:60])], "truncated"),
        ([data_url(png(1001, 1000))], "exceed the maximum of 1000000 pixels"),
        ([data_url(bomb(30_000, 30_000))], "decompression bomb"),
        ([OK] * 4, r"At most 3 image"),
        (["file:///etc/passwd"], "reads no files"),
        (["http://127.0.0.1/x.png"], "fetches no URLs"),
        (["https://media.invalid/x.png"], "fetches no URLs"),
        (["data:image/png,abc"], "must be base64"),
    ],
)
def test_bad_pictures_are_the_clients_mistake(client: Any, urls: list[str], said: str) -> None:
    import openai

    with pytest.raises(openai.BadRequestError, match=said):
        client.chat.completions.create(model="digits", messages=messages(*urls), max_tokens=4)


@pytest.mark.parametrize("key", [None, "wrong", KEY + "x"])
def test_the_key_is_asked_for_everywhere(served: Served, key: str | None) -> None:
    body = json.dumps(chat(OK)).encode()
    for path in ("/v1/chat/completions", "/invocations", "/tokenize", "/generative_scoring", "/nowhere"):
        assert served.post(body, path, key)[0] == 401, path
    assert served.post(body, "/invocations")[0] == 200
    assert "without the API key: /health, /load, /metrics, /ping, /version; everything else" in served.out.read_text()


def test_a_request_may_not_be_endless(served: Served) -> None:
    status, text = served.post(b"x" * (4 * 32 * 2**20 + 1))
    assert status == 413 and "larger than" in text


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_line_works_as_printed(served: Served) -> None:
    line = next(x for x in served.out.read_text().splitlines() if x.startswith("  curl"))
    assert shlex.split(line)[0] == "curl"
    env = {**os.environ, "LOSTATTN_API_KEY": KEY, "no_proxy": "*"}
    run = subprocess.run(["sh", "-c", line.replace("curl", "curl -s", 1)], capture_output=True, text=True, env=env)
    assert json.loads(run.stdout)["choices"][0]["message"]["content"]


def test_thirty_two_at_once_and_some_that_leave(served: Served, client: Any) -> None:
    urls = [data_url(png(28 * (1 + i % 4), 28 * (1 + i // 8))) for i in range(32)]

    def ask(url: str) -> str:
        reply = client.chat.completions.create(model="digits", messages=messages(url), max_tokens=4, temperature=0)
        return str(reply.choices[0].message.content)

    def leave(url: str) -> None:
        body = {"model": "digits", "messages": messages(url), "max_tokens": 900, "extra_body": {"ignore_eos": True}}
        stream = client.chat.completions.create(**body, stream=True)
        next(iter(stream))
        stream.close()

    alone = [ask(url) for url in urls]
    with ThreadPoolExecutor(40) as pool:
        leaving = [pool.submit(leave, url) for url in urls[:8]]
        together = list(pool.map(ask, urls))
        for one in leaving:
            one.result()
    assert together == alone
    running = r"vllm:num_requests_running\{[^}]*\} 0\.0"
    until = time.monotonic() + 30
    while not re.search(running, _metrics(served)) and time.monotonic() < until:
        time.sleep(0.5)
    assert re.search(running, _metrics(served)), "requests whose clients left still run"


def _metrics(served: Served) -> str:
    import httpx

    return httpx.get(served.root + "/metrics", timeout=30).text


def test_five_hundred_hostile_requests(served: Served, client: Any) -> None:
    bodies = list(itertools.islice(itertools.chain(attacks(), mutations(seed=7)), 500))
    with ThreadPoolExecutor(8) as pool:
        statuses = [status for status, _ in pool.map(served.post, bodies)]
    broken = [bodies[i][:300] for i, s in enumerate(statuses) if s == 0]
    assert not broken, "these requests got no answer"
    assert statuses.count(200) + sum(400 <= s < 500 for s in statuses) > 480
    assert served.process.poll() is None
    import httpx

    assert httpx.get(served.root + "/health", timeout=30).status_code == 200
    test_a_picture_and_a_question(client)
