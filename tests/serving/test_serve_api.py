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

import numpy as np
import pytest
from fuzz_door import fuzz, plain_answer, summary
from hostile import OK, attacks, bomb, chat, data_url, mutations, png
from lostattn.patches.errors import LostattnError
from lostattn.serving.images import open_image
from pictures import deep_png, encoded, ramp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
ROOT = Path(__file__).resolve().parents[2]
KEY = "sesame-open"
DEEP = {f"grey {b}": encoded(np.kron(ramp(b), np.ones((12, 12))).astype(np.uint16)) for b in (10, 12, 16)}
DEEP |= {"colour 12": deep_png(np.stack([np.kron(ramp(12), np.ones((12, 12)))] * 3, -1), 2)}
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
    command += ["--max-num-batched-tokens", "128"]  # long prompts are read in pieces
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
    assert "20 of 32 heads in 5 of 8 layers; 10 of 16 KV groups are whole" in text
    assert re.search(r"^4096 +6\d% +6\d%$", text, re.MULTILINE), text


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
        ([data_url(b"no picture")], "no picture that Pillow can read"),
        ([data_url(png()[:60])], "cut off, damaged"),
        ([data_url(png(1001, 1000))], "1001 x 1000 pixels, more than 1000000"),
        ([data_url(bomb(30_000, 30_000))], "decompression bomb"),
        ([OK] * 4, r"At most 3 image"),
        (["file:///etc/passwd"], "reads no files"),
        (["http://127.0.0.1/x.png"], "fetches no URLs"),
        (["https://media.invalid/x.png"], "fetches no URLs"),
        (["data:image/png,abc"], "must be base64"),
        (["data:image/png;base64,@@@@"], "base64 of the data URL is damaged"),
        (["data:image/png"], "needs a comma"),
        ([data_url(png(2275, 10))], r"2275 x 10 pixels .*absolute aspect ratio must be smaller than 200, got 227.5"),
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


def answer(client: Any, *urls: str, **more: Any) -> Any:
    """Text and log-probabilities of an answer."""
    asked = {"max_tokens": 3, "temperature": 0, "logprobs": True, "top_logprobs": 5} | more
    reply = client.chat.completions.create(model="digits", messages=messages(*urls), **asked)
    return reply.choices[0].message.content, [p.logprob for p in reply.choices[0].logprobs.content]


@pytest.mark.parametrize("form", ["BASE64", "Base64", "charset=utf-8;base64", " base64 "])
def test_data_urls_in_every_form(client: Any, form: str) -> None:
    assert answer(client, f"data:image/png;{form},{OK.partition(',')[2]}") == answer(client, OK)


@pytest.mark.parametrize("name", DEEP)
def test_pictures_are_opened_as_ask_opens_them(client: Any, asked: Any, name: str) -> None:
    opened = open_image(DEEP[name])
    text, logprobs = answer(client, data_url(DEEP[name]))
    wanted, same = answer(client, data_url(encoded(opened)))
    assert text == wanted and logprobs == pytest.approx(same, abs=1e-4)
    assert asked.answer(opened, QUESTION, max_new_tokens=3) == text


@pytest.fixture(scope="module")
def asked(served: Served) -> Any:
    """The same model as `lostattn ask` uses it."""
    from lostattn.surgery.chat import Chat

    return Chat.load(served.out.parent / "model", dtype="float32")


def test_a_processors_refusal_is_the_one_of_ask(asked: Any, served: Served) -> None:
    status, text = served.post(json.dumps(chat(data_url(png(2275, 10)))).encode())
    with pytest.raises(LostattnError) as error:
        asked.encode(open_image(png(2275, 10)), QUESTION)
    assert status == 400 and json.loads(text)["error"]["message"] == str(error.value)


def named(picture: str | None, name: Any) -> dict[str, Any]:
    """A chat request with a picture that has a name."""
    body = chat(OK)
    part = body["messages"][0]["content"][0]
    part |= {"uuid": name, "image_url": {"url": picture} if picture else None}
    return body


@pytest.mark.parametrize("name", ["a", "", 7, ["a"]])
@pytest.mark.parametrize("picture", [OK, None])
def test_pictures_have_no_names(served: Served, name: Any, picture: str | None) -> None:
    body = named(picture, name)
    content = body["messages"][0]["content"]
    several = {**body, "messages": [body["messages"], body["messages"]]}
    parts = {k: v for k, v in body.items() if k != "max_tokens"}
    later = {
        **body,
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, *body["messages"]],
    }
    bodies = [("/v1/chat/completions", body), ("/v1/chat/completions", later), ("/v1/chat/completions/batch", several)]
    for path, one in [*bodies, ("/tokenize", parts), ("/invocations", body)]:
        status, text = served.post(json.dumps(one).encode(), path)
        assert status == 400 and ("leave uuid out" in text or "validation error" in text), (path, text)
    embeds = [{"type": f"{kind}_embeds", f"{kind}_embeds": None, "uuid": name} for kind in ("image", "audio", "video")]
    for part in embeds:
        status, _ = served.post(
            json.dumps(chat() | {"messages": [{"role": "user", "content": [part, *content[1:]]}]}).encode()
        )
        assert status == 400


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_names_of_pictures_do_not_cross_clients(served: Served, path: str) -> None:
    """An endpoint that has no such names may leave them out: then the picture counts."""

    def ask(picture: bytes, name: str | None) -> tuple[int, str]:
        text = {"type": "text", "text": QUESTION}
        part: dict[str, Any] = {"type": "input_image", "detail": "auto", "image_url": data_url(picture)}
        body: dict[str, Any] = {"model": "digits", "temperature": 0}
        if path == "/v1/messages":
            source = {"type": "base64", "media_type": "image/png", "data": data_url(picture).partition(",")[2]}
            part, body["max_tokens"] = {"type": "image", "source": source}, 3
        else:
            text["type"], body["max_output_tokens"] = "input_text", 3
        part |= {"uuid": name} if name else {}
        turn = [{"role": "user", "content": [part, text]}]
        status, said = served.post(json.dumps(body | {"messages": turn, "input": turn}).encode(), path)
        usage = json.loads(said).get("usage") if status == 200 else {}
        return status, usage.get("input_tokens", said)

    small, large = ask(png(56, 56), None), ask(png(280, 280), None)
    assert small[0] == large[0] == 200 and small[1] != large[1]
    found = [ask(png(56, 56), "name"), ask(png(280, 280), "name")]
    assert found == [small, large] or all(status == 400 and "leave uuid out" in said for status, said in found)


def test_a_seed_in_a_prompt_that_is_read_in_pieces(client: Any) -> None:
    import openai

    ask = {"model": "digits", "messages": messages(data_url(png(112, 112)), text=QUESTION * 20), "max_tokens": 8}
    more = {"temperature": 1.5, "extra_body": {"ignore_eos": True}}
    texts = [client.chat.completions.create(**ask, **more, seed=s).choices[0].message.content for s in (3, 3, 4, 5, 6)]
    assert texts[0] == texts[1] and len(set(texts)) > 1
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**ask, **more, seed=2**70)


def test_a_refused_request_takes_nothing_from_the_next(client: Any) -> None:
    import openai

    fresh = data_url(png(84, 140))
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        answer(client, fresh, max_tokens=10**6)
    assert answer(client, fresh)[0]


def test_the_server_is_not_controlled_by_requests(served: Served) -> None:
    assert served.post(b'{"new_data_parallel_size": 2, "drain_timeout": 100}', "/scale_elastic_ep")[0] == 403


def test_drawn_requests_leave_the_engine_alive(served: Served) -> None:
    """LOSTATTN_FUZZ gives another number of requests."""
    before = plain_answer(served.root, KEY)
    said = fuzz(served.root, int(os.environ.get("LOSTATTN_FUZZ", "150")), seed=1, key=KEY)
    assert before in ("yes", "no") and plain_answer(served.root, KEY) == before, summary(said)
    lost = [s for s in said if s.status == 0 or "EngineCore" in s.text]
    assert not lost, summary(lost)
    assert sum(s.status == 200 for s in said) > len(said) / 10, summary(said)


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
