"""Questions to an OpenAI-style server, with the token ids and log-probabilities of what it answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from ..patches.errors import LostattnError
from .cause import cause


@dataclass(frozen=True)
class Turn:
    """One message: who says it, pictures, and the text behind them."""

    role: str
    text: str
    images: tuple[Image.Image, ...] = ()

    def to_openai(self) -> dict[str, Any]:
        """The message as the API takes it, pictures as PNG data URLs."""
        if self.role != "user":
            return {"role": self.role, "content": self.text}
        pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in self.images]
        return {"role": self.role, "content": [*pictures, {"type": "text", "text": self.text}]}

    def to_template(self) -> dict[str, Any]:
        """The message as chat templates of transformers take it."""
        pictures = [{"type": "image"}] * len(self.images)
        return {"role": self.role, "content": [*pictures, {"type": "text", "text": self.text}]}


@dataclass(frozen=True)
class Step:
    """One generated token and the most probable ones at its place, natural logarithms."""

    token: int
    top: dict[int, float]


@dataclass(frozen=True)
class Answer:
    """A greedy answer: its text, the token ids of the prompt as the server saw it, and the steps."""

    text: str
    prompt: list[int]
    steps: list[Step]


class Client:
    """Asks one model of one server, with the official `openai` package."""

    def __init__(self, url: str, model: str, api_key: str | None = None, timeout: float = 600.0) -> None:
        """Args: url: base URL of the API, ending in /v1; timeout: seconds for one answer."""
        self.model = model
        self._client, self._openai = connect(url, api_key, timeout)

    def ask(self, turns: Sequence[Turn], max_tokens: int, top: int = 5, past_end: bool = False) -> Answer:
        """The greedy answer to a conversation.

        Args:
            top: how many log-probabilities per step (vLLM's default limit is 20).
            past_end: go on to `max_tokens` whatever the model wants (an option of vLLM).

        Raises:
            LostattnError: what the server or the connection says.
        """
        try:
            reply = self._client.chat.completions.create(
                model=self.model,
                messages=[t.to_openai() for t in turns],
                max_tokens=max_tokens,
                temperature=0.0,
                logprobs=True,
                top_logprobs=top,
                extra_body={"return_token_ids": True, "return_tokens_as_token_ids": True, "ignore_eos": past_end},
            )
        except self._openai.OpenAIError as error:
            raise LostattnError(f"the server did not answer ({cause(error)}): see its log") from error
        return _read(reply)


def connect(url: str, api_key: str | None, timeout: float) -> tuple[Any, Any]:
    """The official client for a base URL ending in /v1, without retries of its own, and the module `openai`.

    Args:
        timeout: seconds for one answer.

    Raises:
        LostattnError: the package openai is missing.
    """
    try:
        import openai
    except ImportError as error:
        raise LostattnError(
            "asking a server needs the package openai, which comes with vLLM: pip install openai"
        ) from error
    here = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")  # no proxies to this machine
    http = openai.DefaultHttpxClient(trust_env=not here)
    return openai.OpenAI(
        base_url=url, api_key=api_key or "none", timeout=timeout, max_retries=0, http_client=http
    ), openai


def data_url(image: Image.Image) -> str:
    """A picture as a PNG data URL, without loss."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _read(reply: Any) -> Answer:
    choice = reply.choices[0]
    prompt, tokens = getattr(reply, "prompt_token_ids", None), getattr(choice, "token_ids", None)
    if not isinstance(prompt, list) or not isinstance(tokens, list) or choice.logprobs is None:
        raise LostattnError(
            "the server's answer brings no token ids or log-probabilities: it is no vLLM of a known version"
        )
    steps = [
        Step(token, {_token_id(t.token): t.logprob for t in place.top_logprobs})
        for token, place in zip(tokens, choice.logprobs.content, strict=True)
    ]
    return Answer(choice.message.content or "", prompt, steps)


def _token_id(text: str) -> int:
    """`token_id:42` as 42."""
    return int(text.rpartition(":")[2])
