"""Asking a server one question at a time or many at once, with what the answer was computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from ...patches.errors import LostattnError
from ..cause import cause
from ..client import connect

SECONDS = 1800.0  # for one answer: queues are long where the machine is slow
T = TypeVar("T")
R = TypeVar("R")


class Endpoint(Protocol):
    """What asking needs of a server."""

    @property
    def url(self) -> str: ...

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Reply:
    """An answer.

    `prompt` names the prompt's token ids, `visual` counts the image tokens among them, `id` is the server's name for the
    answer.
    """

    text: str
    finish: str
    prompt: str
    prompt_tokens: int
    visual: int
    output_tokens: int
    id: str = ""


class Client:
    """One server, asked through the official client: temperature 0, a picture in front of the text."""

    def __init__(self, server: Endpoint, image_token: int) -> None:
        """Connect to nothing yet.

        Args:
            image_token: id of the token that stands for a visual token.

        Raises:
            LostattnError: the client library is missing.
        """
        self._client, openai = connect(server.url, None, SECONDS)
        self._errors, self._name, self._image_token = openai.OpenAIError, server.name, image_token

    def ask(self, picture: str, text: str, max_tokens: int, **extra: Any) -> Reply:
        """One answer.

        Args:
            picture: data URL.
            extra: further fields of the request, for example `ignore_eos=True`.

        Raises:
            LostattnError: the server refused or ended.
        """
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]
        try:
            found = self._client.chat.completions.create(
                model=self._name, messages=[{"role": "user", "content": content}],
                temperature=0, max_completion_tokens=max_tokens, seed=0,
                extra_body={"return_token_ids": True, **extra},
            )  # fmt: skip
        except self._errors as error:
            raise LostattnError(f"{self._name} did not answer: {_said(error)}") from error
        return _reply(found.model_dump(), self._image_token)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()


def _said(error: BaseException) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])[:300]
    return cause(error)


def _reply(raw: dict[str, Any], image_token: int) -> Reply:
    ids = raw.get("prompt_token_ids")
    if not isinstance(ids, list):
        raise LostattnError(
            "the server does not return prompt token ids, without which prompts cannot be compared: use vLLM 0.32 or newer"
        )
    choice = raw["choices"][0]
    return Reply(
        text=(choice["message"].get("content") or "").strip(),
        finish=str(choice.get("finish_reason")),
        prompt=hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16],
        prompt_tokens=len(ids),
        visual=ids.count(image_token),
        output_tokens=int((raw.get("usage") or {}).get("completion_tokens") or 0),
        id=str(raw["id"]),
    )


def concurrently(work: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[tuple[T, R]]:
    """Results as they come, `at_once` under way at a time; the first error ends it, and nothing more is begun."""
    waiting = iter(items)
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        under_way: dict[Future[R], T] = {pool.submit(work, item): item for item in islice(waiting, at_once)}
        try:
            while under_way:
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    item = under_way.pop(future)
                    yield item, future.result()
                    for following in islice(waiting, 1):
                        under_way[pool.submit(work, following)] = following
        finally:
            for future in under_way:
                future.cancel()
