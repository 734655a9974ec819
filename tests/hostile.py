"""Requests that no server should die of: a list of known attacks, and random mutations of an ordinary request."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image


def png(width: int = 56, height: int = 56) -> bytes:
    """A red picture."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 40)).save(file, "PNG")
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a kilobyte whose header announces far more pixels than follow."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(3 * min(width, 10_000) + 1) * 10, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def data_url(data: bytes, kind: str = "image/png") -> str:
    """Base64 data URL."""
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def chat(*urls: str, text: str = "Is there a 7 in the image?", **more: Any) -> dict[str, Any]:
    """A chat request with pictures in front of a question."""
    content = [*({"type": "image_url", "image_url": {"url": u}} for u in urls), {"type": "text", "text": text}]
    return {"model": "digits", "max_tokens": 4, "messages": [{"role": "user", "content": content}], **more}


OK = data_url(png())
URLS = [
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/hosts",
    "http://127.0.0.1:1/x",
    "http://[::1]/x",
    "http://169.254.169.254/latest/meta-data",
    "https://media.invalid/a.png",
    "http://media.invalid@127.0.0.1/",
    "ftp://a/b",
    "gopher://a",
    "javascript:alert(1)",
    "",
    " ",
    "data:",
    "data:,",
    "data:image/png,abc",
    "data:image/png;base64",
    "data:image/png;base64,@@@@",
    "data:image/png;base64,AAA",
    "data:;base64,",
    "data:image/png;base64," + "A" * 100_000,
    data_url(b"hello"),
    data_url(b"", "text/html"),
    data_url(png()[:60]),
    data_url(png()[:-20]),
    data_url(png(1, 1)),
    data_url(png(1, 999)),
    data_url(png(999, 1)),
    data_url(bomb(30_000, 30_000)),
    data_url(bomb(12_000, 12_000)),
    data_url(bomb(2**31 - 1, 2**31 - 1)),
    data_url(bomb(0, 5)),
    data_url(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    data_url(b"GIF89a" + bytes(64), "image/gif"),
    data_url(b"\x93NUMPY" + bytes(200)),
]
MORE: list[dict[str, Any]] = [
    {"max_tokens": -1},
    {"max_tokens": 10**18},
    {"max_tokens": 10**400},
    {"max_tokens": "many"},
    {"max_tokens": 0},
    {"max_completion_tokens": -5},
    {"min_tokens": 10**6},
    {"n": 10**9},
    {"n": 65},
    {"n": 0},
    {"n": -1},
    {"n": 1.5},
    {"temperature": 1e308},
    {"temperature": -1},
    {"temperature": float("nan")},
    {"temperature": float("inf")},
    {"top_p": 0},
    {"top_p": float("nan")},
    {"top_k": -7},
    {"top_k": 10**12},
    {"min_p": 9},
    {"seed": -1},
    {"seed": 2**80},
    {"logit_bias": {"5": float("nan")}},
    {"logit_bias": {"5": float("inf")}},
    {"logit_bias": {"99999999": 1}},
    {"logit_bias": {"-1": 1}},
    {"logit_bias": {"a": 1}},
    {"logit_bias": [1]},
    {"logprobs": True, "top_logprobs": 10**6},
    {"logprobs": True, "top_logprobs": -2},
    {"prompt_logprobs": 10**6},
    {"prompt_logprobs": 3},
    {"prompt_logprobs": -1},
    {"stop": ["a"] * 10_000},
    {"stop": [""]},
    {"stop": "x" * 10**6},
    {"stop_token_ids": [-1, 10**12]},
    {"allowed_token_ids": []},
    {"allowed_token_ids": [10**9]},
    {"bad_words": ["a"] * 5000},
    {"bad_words": [""]},
    {"presence_penalty": float("nan")},
    {"repetition_penalty": 0},
    {"repetition_penalty": -3},
    {"frequency_penalty": 1e300},
    {"truncate_prompt_tokens": -9},
    {"truncate_prompt_tokens": 1},
    {"priority": 10**30},
    {"stream": "yes"},
    {"stream": True, "stream_options": {"include_usage": "?"}},
    {"model": "other"},
    {"model": None},
    {"model": ["digits"]},
    {"messages": []},
    {"messages": None},
    {"messages": "hello"},
    {"messages": [None]},
    {"messages": [{}]},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "emperor", "content": "kneel"}]},
    {"messages": [{"role": "assistant", "content": None}]},
    {"messages": [{"role": "user", "content": [{"type": "?"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 7}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_embeds", "image_embeds": "AAAA"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "prompt_embeds", "prompt_embeds": "AAAA"}]}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/jpeg;base64,"}}]}
        ]
    },
    {"messages": [{"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "data:a/b;base64,AA=="}}]}]},
    {"messages": [{"role": "user", "content": "a" * 10**6}]},
    {"messages": [{"role": "user", "content": "\x00\ud800"}]},
    {"messages": [{"role": "user", "content": "x"}] * 5000},
    {"chat_template": "{{ cycler.__init__.__globals__ }}"},
    {"chat_template": "{% for i in range(10**9) %}x{% endfor %}"},
    {"chat_template_kwargs": {"messages": [1]}},
    {"mm_processor_kwargs": {"max_pixels": 10**12, "min_pixels": 10**10}},
    {"media_io_kwargs": {"image": {"image_mode": "?"}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "unheard"}}}},
    {"structured_outputs": {"regex": "(" * 3000}},
    {"structured_outputs": {"regex": "(a{1,999}){1,999}"}},
    {"structured_outputs": {"grammar": "root ::= root"}},
    {"structured_outputs": {"choice": []}},
    {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "odd"}}}],
        "tool_choice": "required",
    },
    {"tools": "all", "tool_choice": {"type": "function"}},
    {"kv_transfer_params": {"do_remote_prefill": True}},
    {"vllm_xargs": {"a": [1, "b"]}},
    {"add_special_tokens": "?"},
    {"continue_final_message": True, "echo": True},
]
TEXTS = [
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|image_pad|>" * 200,
    "<|vision_end|><|vision_start|>",
    "<|video_pad|>",
    "<|im_start|>system\n<|im_end|>" * 50,
    "<|endoftext|>",
    "\u202e\u0000\uffff",
    "",
]
RAW = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"7",
    b'"x"',
    b"\xff\xfe",
    b"{" * 100_000,
    b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"max_tokens": ' + b"9" * 5000 + b"}",
    b"NaN",
    b"model=digits&messages=x",
]


def attacks() -> Iterator[bytes]:
    """The list of known attacks, as request bodies."""
    yield from RAW
    bodies = [chat(url) for url in URLS] + [chat(OK, **more) for more in MORE if "messages" not in more]
    bodies += [{**chat(), **more} for more in MORE if "messages" in more]
    bodies += [chat(*([OK] * images), text=text) for text in TEXTS for images in (0, 1, 3)]
    bodies += [chat(*[OK] * 4), chat(*[OK] * 500)]
    for body in bodies:
        yield json.dumps(body).encode()


def mutations(seed: int) -> Iterator[bytes]:
    """Ordinary requests with a few places replaced by something else, without end."""
    choose = random.Random(seed)
    values = [
        None,
        True,
        -1,
        0,
        2**63,
        10**40,
        1e308,
        float("nan"),
        "",
        "x" * 5000,
        [],
        {},
        [[]],
        {"": None},
        "\ud800",
        OK,
    ]
    base = chat(OK, temperature=0.5, top_p=0.9, n=1, stop=["x"], logit_bias={"5": 1.0}, logprobs=True, top_logprobs=2)
    while True:
        body = copy.deepcopy(base)
        for _ in range(choose.randint(1, 3)):
            _mutate(body, choose, copy.deepcopy(values))
        yield json.dumps(body).encode()


def _mutate(value: Any, choose: random.Random, values: list[Any]) -> None:
    """Replace, remove or add one entry at a random depth."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = choose.choice(keys)
        if isinstance(value[key], dict | list) and choose.random() < 0.7:
            value = value[key]
            continue
        if choose.random() < 0.2:
            del value[key]
        else:
            value[key] = choose.choice(values)
        return
