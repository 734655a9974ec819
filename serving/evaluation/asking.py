"""Asking an OpenAI-style server a task's items, several at once, again where it fails for a moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...patches.errors import LostattnError
from ..cause import cause, short_words
from ..client import connect, data_url
from ..judging.client import concurrently
from ..shown import shown
from ..tasks.task import Item
from .rate import Rate
from .store import Answers, Reply

BUSY = (408, 409, 425, 429)  # worth another try, as are 500 and above


@dataclass(frozen=True)
class Patience:
    """How long a failing server is tried: `tries` per item, `first` seconds before the second, doubled up to `longest`."""

    tries: int = 7
    first: float = 1.0
    longest: float = 30.0

    def pause(self, tried: int, wanted: float = 0.0) -> float:
        """Seconds to wait after so many tries, or what the server wants; jittered, so that requests do not meet again."""
        return max(wanted, min(self.longest, self.first * 2 ** (tried - 1)) * random.uniform(0.75, 1.25))


class Asker:
    """One model of one server."""

    def __init__(
        self, url: str, model: str, max_tokens: int, *, seed: int = 0, api_key: str | None = None,
        timeout: float = 600.0, patience: Patience | None = None, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """Connect to nothing yet.

        Args:
            url: base URL of the API, ending in /v1.
            timeout: seconds for one answer.

        Raises:
            LostattnError: the client library is missing.
        """
        self._client, self._openai = connect(url, api_key, timeout)
        self.model, self.url = model, url
        self._fixed = {"model": model, "max_tokens": max_tokens, "temperature": 0.0, "seed": seed}
        self.patience, self._sleep = patience or Patience(), sleep

    def ask(self, item: Item) -> Reply:
        """The greedy answer to an item.

        Raises:
            LostattnError: the server refused the item, or still failed after all tries.
        """
        messages = [{"role": "user", "content": content(item)}]
        for tried in range(1, self.patience.tries + 1):
            try:
                found = self._client.chat.completions.create(messages=messages, **self._fixed)
                choice = found.choices[0]
                return Reply((choice.message.content or "").strip(), str(choice.finish_reason))
            except self._openai.APIStatusError as error:
                if error.status_code not in BUSY and error.status_code < 500:
                    raise self._refused(item, error) from error
                problem, wanted = error, _retry_after(error)
            except self._openai.OpenAIError as error:  # no connection, no answer in time
                problem, wanted = error, 0.0
            except (IndexError, TypeError, AttributeError) as error:
                raise LostattnError(
                    f"item {shown(item.id)}: the server's answer has no choices: give the URL of an OpenAI-style API, "
                    "ending in /v1"
                ) from error
            if tried < self.patience.tries:
                self._sleep(self.patience.pause(tried, wanted))
        raise LostattnError(
            f"{self.model} at {self.url} did not answer item {shown(item.id)} in {self.patience.tries} tries ({_said(problem)}): "
            "all answers so far are kept, start the server again and repeat the command"
        )

    def _refused(self, item: Item, error: Any) -> LostattnError:
        return LostattnError(
            f"the server refused item {shown(item.id)} (HTTP {error.status_code}: {_said(error)}): mend that and repeat the "
            "command, all answers so far are kept"
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()


def content(item: Item) -> list[dict[str, Any]]:
    """The prompt's texts and pictures in their order, as the API takes them; pictures as PNG data URLs."""
    pictures = item.pictures()
    return [
        {"type": "image_url", "image_url": {"url": data_url(pictures[part])}}
        if isinstance(part, int)
        else {"type": "text", "text": part}
        for part in item.prompt
    ]


def _retry_after(error: Any) -> float:
    try:
        return min(60.0, max(0.0, float(error.response.headers.get("retry-after", 0))))
    except (TypeError, ValueError):
        return 0.0


def _said(error: Any) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return short_words(str(message))[:300] if isinstance(message, str) else cause(error)


def ask_all(ask: Callable[[Item], Reply], items: Sequence[Item], answers: Answers, at_once: int, rate: Rate) -> None:
    """Ask what is not answered yet; every answer is kept as soon as it is there. The first error ends it."""
    left = [i for i in range(len(items)) if i not in answers.found]
    for index, reply in concurrently(lambda i: ask(items[i]), left, at_once):
        answers.add({index: reply})
        rate(len(answers.found))
