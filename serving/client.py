"""The one client of OpenAI-style servers: greedy answers to messages, with what they were computed from where it is wanted."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from PIL import Image

from ..patches.errors import LostattnError
from .cause import cause, short_words

BUSY = (408, 409, 425, 429)  # worth another try, as are 500 and above


class Endpoint(Protocol):
    """What asking needs of a server: its base URL, ending in /v1, and the name of its model."""

    @property
    def url(self) -> str: ...

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Turn:
    """One message: who says it, pictures, videos (the bytes of their files), and the text behind them."""

    role: str
    text: str
    images: tuple[Image.Image, ...] = ()
    videos: tuple[bytes, ...] = ()

    def to_openai(self) -> dict[str, Any]:
        """The message as the API takes it, pictures as PNG data URLs, videos as they are."""
        if self.role != "user":
            return {"role": self.role, "content": self.text}
        pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in self.images]
        videos = [{"type": "video_url", "video_url": {"url": video_url(video)}} for video in self.videos]
        return {"role": self.role, "content": [*pictures, *videos, {"type": "text", "text": self.text}]}

    def to_template(self) -> dict[str, Any]:
        """The message as chat templates of transformers take it."""
        seen = [{"type": "image"}] * len(self.images) + [{"type": "video"}] * len(self.videos)
        return {"role": self.role, "content": [*seen, {"type": "text", "text": self.text}]}


@dataclass(frozen=True)
class Step:
    """One generated token and the most probable ones at its place, natural logarithms."""

    token: int
    top: dict[int, float]


@dataclass(frozen=True)
class Answer:
    """A greedy answer.

    Attributes:
        finish: `stop`, or `length` where it hit the limit of tokens.
        prompt: token ids of the prompt as the server saw it; empty unless they were asked for.
        steps: empty unless log-probabilities were asked for.
        output_tokens: how many were generated, as far as the server counts them.
        id: the server's name for the answer.
    """

    text: str
    prompt: list[int]
    steps: list[Step]
    finish: str = "stop"
    output_tokens: int = 0
    id: str = ""


class NoAnswer(LostattnError):
    """The server refused or failed.

    Attributes:
        said: what it, or the connection, says.
        status: of HTTP; None where there was no answer at all.
        retry_after: seconds that the server wants to be left alone.
    """

    def __init__(self, said: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(f"the server did not answer ({said}): see its log")
        self.said, self.status, self.retry_after = said, status, retry_after

    @property
    def passing(self) -> bool:
        """Whether another try may succeed."""
        return self.status is None or self.status in BUSY or self.status >= 500


class Client:
    """Asks one model of one server, with the official `openai` package."""

    def __init__(self, url: str, model: str, api_key: str | None = None, timeout: float = 600.0) -> None:
        """Connect to nothing yet.

        Args:
            url: base URL of the API, ending in /v1.
            timeout: seconds for one answer.

        Raises:
            LostattnError: the package openai is missing.
        """
        self.model, self.url = model, url
        self._client, self._openai = _connect(url, api_key, timeout)

    def ask(
        self,
        messages: Sequence[dict[str, Any]],
        max_tokens: int,
        *,
        seed: int = 0,
        token_ids: bool = False,
        top: int = 0,
        **extra: Any,
    ) -> Answer:
        """The greedy answer to a conversation.

        Args:
            token_ids: bring the prompt's token ids (an option of vLLM).
            top: how many log-probabilities per step, with token ids (vLLM's default limit is 20).
            extra: further fields of the request, for example `ignore_eos=True`.

        Raises:
            NoAnswer: what the server or the connection says.
            LostattnError: something else answers at the URL, or it does not bring what was asked for.
        """
        if token_ids or top:
            extra |= {"return_token_ids": True}
        more: dict[str, Any] = {"logprobs": True, "top_logprobs": top} if top else {}
        if top:
            extra |= {"return_tokens_as_token_ids": True}
        try:
            reply = self._client.chat.completions.create(
                model=self.model,
                messages=list(messages),
                max_tokens=max_tokens,
                temperature=0.0,
                seed=seed,
                extra_body=extra or None,
                **more,
            )
        except self._openai.APIStatusError as error:
            raise NoAnswer(_said(error), error.status_code, _retry_after(error)) from error
        except self._openai.OpenAIError as error:  # no connection, no answer in time
            raise NoAnswer(_said(error)) from error
        return _read(reply, token_ids or bool(top), bool(top))

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()


def _connect(url: str, api_key: str | None, timeout: float) -> tuple[Any, Any]:
    """The official client, without retries of its own, and the module `openai`."""
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


def video_url(video: bytes) -> str:
    """A video's file as a data URL; servers look at the bytes to find what kind it is."""
    return "data:video/mp4;base64," + base64.b64encode(video).decode()


def _said(error: Any) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return short_words(str(message))[:300] if isinstance(message, str) else cause(error)


def _retry_after(error: Any) -> float:
    try:
        return min(60.0, max(0.0, float(error.response.headers.get("retry-after", 0))))
    except (TypeError, ValueError):
        return 0.0


def _read(reply: Any, want_ids: bool, want_steps: bool) -> Answer:
    try:
        choice = reply.choices[0]
        text, finish = (choice.message.content or "").strip(), str(choice.finish_reason)
    except (IndexError, TypeError, AttributeError) as error:
        raise LostattnError(
            "the server's answer has no choices: give the URL of an OpenAI-style API, ending in /v1"
        ) from error
    prompt = getattr(reply, "prompt_token_ids", None)
    if want_ids and not isinstance(prompt, list):
        raise LostattnError(
            "the server's answer brings no token ids, without which prompts cannot be compared: use vLLM 0.32 or newer"
        )
    steps = _steps(choice) if want_steps else []
    counted = int(getattr(reply.usage, "completion_tokens", 0) or 0)
    return Answer(text, prompt or [], steps, finish, counted, str(reply.id or ""))


def _steps(choice: Any) -> list[Step]:
    tokens = getattr(choice, "token_ids", None)
    if not isinstance(tokens, list) or choice.logprobs is None:
        raise LostattnError("the server's answer brings no log-probabilities: it is no vLLM of a known version")
    return [
        Step(token, {_token_id(t.token): t.logprob for t in place.top_logprobs})
        for token, place in zip(tokens, choice.logprobs.content, strict=True)
    ]


def _token_id(text: str) -> int:
    """`token_id:42` as 42."""
    return int(text.rpartition(":")[2])
