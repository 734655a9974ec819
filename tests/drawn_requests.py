"""Requests drawn from an API's own schema (openapi.json): reproducible by seed and number, most of them nearly right.

Every request starts as one that the endpoint takes, with text, pictures or long prompts; then some parameters of its
schema get a value that the schema allows, a value at the edge of it, or something else altogether.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from hostile import bomb, chat, data_url, png
from PIL import Image

NUMBERS = [0, 1, -1, 2, 3, 0.5, 1.0, 1e-9, 64, 1000, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**64, -(2**63), 1e308, -0.0]
TEXTS = [
    "",
    "x",
    "a\nb",
    "\u0000",
    "\u202e\uffff",
    "<|image_pad|>",
    "<|im_start|>",
    "{}",
    "[",
    "none",
    "auto",
    "json",
    "x" * 300,
]
JUNK: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    "",
    "x",
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    float("inf"),
    [None],
    {"a": None},
    [[]],
]
HEADERS = {
    "x-data-parallel-rank": ["0", "1", "-1", "7", "x", "9" * 30],
    "x-request-id": ["same", "", "a/b", "x" * 300],
    "x-session-id": ["s", ""],
    "priority": ["0", "-5", "9" * 25],
    "accept": ["text/event-stream", "*/*"],
    "x-vllm-priority": ["1", "9" * 25],
}


@dataclass(frozen=True)
class Drawn:
    """One request."""

    number: int
    path: str
    body: bytes
    headers: dict[str, str]


def _picture(mode: str, size: tuple[int, int], top: int = 255) -> str:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    values = (np.arange(np.prod(shape)).reshape(shape) * 37) % (top + 1)
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint16 if top > 255 else np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


PICTURES = [
    data_url(png()),
    _picture("RGB", (112, 84)),
    _picture("L", (84, 28)),
    _picture("I;16", (56, 56), 4095),
    _picture("RGB", (2275, 10)),
    _picture("RGB", (1, 1)),
    _picture("L", (28, 900)),
    _picture("RGB", (300, 300)),
    data_url(png()[:60]),
    data_url(b"no picture"),
    data_url(bomb(30_000, 30_000)),
    "http://127.0.0.1:1/x.png",
    "data:,",
    "",
]


def requests(schema: dict[str, Any], seed: int, count: int, more: dict[str, Any] | None = None) -> Iterator[Drawn]:
    """So many requests to all POST endpoints of a schema that take a body.

    Args:
        more: endpoints that the schema leaves out, each with the name of the component that its body follows, or None.
    """
    endpoints = {**_bodies(schema), **(more or {})}
    paths = sorted(endpoints)
    generating = [p for p in paths if p.endswith(("completions", "responses", "messages", "batch"))]
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        path = paths[number % len(paths)] if draw.random() < 0.5 else draw.choice(generating)
        yield _request(Schema(schema, draw), draw, number, path, endpoints[path])


def _bodies(schema: dict[str, Any]) -> dict[str, Any]:
    """Endpoint -> schema of its JSON body."""
    found = {}
    for path, methods in schema["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" in content and "{" not in path:
            found[path] = content["application/json"]["schema"]
    return found


def _request(schema: Schema, draw: random.Random, number: int, path: str, wanted: Any) -> Drawn:
    body = _start(path, draw)
    if isinstance(wanted, str):
        wanted = {"$ref": f"#/components/schemas/{wanted}"}
    known = schema.properties(wanted or {}) or schema.properties({"$ref": "#/components/schemas/ChatCompletionRequest"})
    for name in draw.sample(sorted(set(known) - {"model"}), min(len(known) - 1, draw.choice([0, 1, 1, 1, 2, 2, 4]))):
        body[name] = draw.choice(JUNK) if draw.random() < 0.1 else schema.value(known[name])
    if draw.random() < 0.04:
        body.pop(draw.choice(sorted(body)))
    headers = {n: draw.choice(v) for n, v in HEADERS.items() if draw.random() < 0.06}
    return Drawn(number, path, json.dumps(body).encode(), headers)


def _start(path: str, draw: random.Random) -> dict[str, Any]:
    """A request that the endpoint takes."""
    start = next((make for end, make in STARTS.items() if path.endswith(end)), _chat)
    body = start(draw)
    if draw.random() < 0.4:
        body |= {"temperature": draw.choice([0.3, 1.0]), "seed": draw.choice([0, 1, 7, 2**31, -1])}
    if draw.random() < 0.2:
        body["stream"] = True
    return body


def _text(draw: random.Random) -> str:
    """A question, short or so long that it is read in pieces, or too long for the model."""
    return "Is there a 7 in the image? " * draw.choice([1, 1, 1, 2, 12, 30, 30, 400])


def _urls(draw: random.Random) -> list[str]:
    return [
        draw.choice(PICTURES if draw.random() < 0.2 else PICTURES[:4])
        for _ in range(draw.choice([0, 1, 1, 1, 2, 3, 4]))
    ]


def _chat(draw: random.Random) -> dict[str, Any]:
    body = chat(*_urls(draw), text=_text(draw), max_tokens=draw.choice([1, 2, 4, 8]))
    for part in body["messages"][0]["content"]:
        if draw.random() < 0.03:
            part["uuid"] = draw.choice(["same", "", 7, None])
        if draw.random() < 0.02 and part["type"] == "image_url":
            part["image_url"] = None
    return body


def _batch(draw: random.Random) -> dict[str, Any]:
    body = _chat(draw)
    return {**body, "messages": [body["messages"], _chat(draw)["messages"]]}


def _completion(draw: random.Random) -> dict[str, Any]:
    prompt = draw.choice([_text(draw), [_text(draw), "x"], [1, 2, 3], [[5, 6], [7]], "", [10**9], [-1]])
    return {"model": "digits", "prompt": prompt, "max_tokens": draw.choice([1, 2, 4])}


def _responses(draw: random.Random) -> dict[str, Any]:
    content = [{"type": "input_image", "image_url": u, "detail": "auto"} for u in _urls(draw)]
    if content and draw.random() < 0.1:
        content[0]["uuid"] = "same"
    message = {"role": "user", "content": [*content, {"type": "input_text", "text": _text(draw)}]}
    return {"model": "digits", "input": draw.choice([[message], _text(draw)]), "max_output_tokens": 4}


def _messages(draw: random.Random) -> dict[str, Any]:
    content: list[Any] = [{"type": "text", "text": _text(draw)}]
    for url in _urls(draw):
        data = url.partition(",")[2]
        content.insert(0, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
    return {"model": "digits", "max_tokens": 4, "messages": [{"role": "user", "content": content}]}


def _tokenize(draw: random.Random) -> dict[str, Any]:
    return draw.choice(
        [{"model": "digits", "prompt": _text(draw)}, {k: v for k, v in _chat(draw).items() if k != "max_tokens"}]
    )


def _scoring(draw: random.Random) -> dict[str, Any]:
    items = [_text(draw), [1, 2]][: draw.choice([1, 2])]
    return {
        "model": "digits",
        "query": _text(draw),
        "items": items,
        "label_token_ids": draw.choice([[1], [1, 2], [10**9], []]),
    }


def _generate(draw: random.Random) -> dict[str, Any]:
    parameters = draw.choice([{}, {"max_tokens": 2}, {"temperature": 1.0, "seed": 3, "max_tokens": 2}, {"n": 2}])
    return {
        "model": "digits",
        "token_ids": draw.choice([[1, 2, 3], list(range(300)), [], [-5]]),
        "sampling_params": parameters,
    }


STARTS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "/chat/completions": _chat,
    "/chat/completions/batch": _batch,
    "/v1/completions": _completion,
    "/v1/responses": _responses,
    "/v1/messages": _messages,
    "/count_tokens": _messages,
    "/tokenize": _tokenize,
    "/generative_scoring": _scoring,
    "/detokenize": lambda draw: {"model": "digits", "tokens": draw.choice([[1, 2], [], [-1], [10**9], [2**70]])},
    "/generate": _generate,
}


class Schema:
    """Values for a JSON schema."""

    def __init__(self, whole: dict[str, Any], draw: random.Random) -> None:
        self.whole, self.draw = whole, draw

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema without a reference at its top."""
        while "$ref" in schema:
            schema = self.whole["components"]["schemas"].get(schema["$ref"].rpartition("/")[2], {})
        return schema

    def properties(self, schema: dict[str, Any]) -> dict[str, Any]:
        """All properties that an object of the schema may have."""
        schema = self.resolve(schema)
        found = dict(schema.get("properties", {}))
        for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            found |= self.properties(part)
        return found

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """A value that the schema allows, now and then one at or beyond its edges."""
        draw, schema = self.draw, self.resolve(schema)
        if choices := [s for kind in ("anyOf", "oneOf") for s in schema.get(kind, ())]:
            return self.value(draw.choice(choices), depth)
        if "allOf" in schema:
            return self.value(draw.choice(schema["allOf"]), depth)
        if "enum" in schema or "const" in schema:
            return draw.choice(schema.get("enum") or [schema["const"]])
        kind = schema.get("type", draw.choice(["string", "integer", "object", "array"]))
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            count = draw.choice([0, 1, 1, 2, 5]) if depth < 4 else 0
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
        return {"null": None, "boolean": draw.random() < 0.5, "string": draw.choice(TEXTS)}.get(
            kind, self._number(schema, kind)
        )

    def _number(self, schema: dict[str, Any], kind: str) -> Any:
        edges = [
            schema[k] for k in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "default") if k in schema
        ]
        numbers = [n for n in [*edges, *edges, 1, 2, 5, 20, *NUMBERS] if n is not None]
        found = self.draw.choice(numbers)
        return int(found) if kind == "integer" and isinstance(found, float) and abs(found) < 1e300 else found

    def _object(self, schema: dict[str, Any], depth: int) -> Any:
        if depth > 4:
            return {}
        known, needed = schema.get("properties", {}), schema.get("required", [])
        found = {n: self.value(s, depth + 1) for n, s in known.items() if n in needed or self.draw.random() < 0.3}
        if not known and isinstance(extra := schema.get("additionalProperties", {}), dict):
            found |= {self.draw.choice(["a", "5", "-1", "image"]): self.value(extra, depth + 1)}
        return found
