"""Asking a server a task's items, several at once, again where it fails for a moment."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from ...patches.errors import LostattnError
from ..client import Answer, Client, NoAnswer, data_url
from ..shown import shown
from ..tasks.task import Item
from .rate import Rate
from .store import Answers, Reply

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Patience:
    """How long a failing server is tried: `tries` per item, `first` seconds before the second, doubled up to `longest`."""

    tries: int = 7
    first: float = 1.0
    longest: float = 30.0

    def pause(self, tried: int, wanted: float = 0.0) -> float:
        """Seconds to wait after so many tries, or what the server wants; jittered, so that requests do not meet again."""
        return max(wanted, min(self.longest, self.first * 2 ** (tried - 1)) * random.uniform(0.75, 1.25))


ONCE = Patience(tries=1)  # a server of our own: if it fails, its log says why


class Asker:
    """One model of one server."""

    def __init__(
        self,
        url: str,
        model: str,
        max_tokens: int,
        *,
        seed: int = 0,
        api_key: str | None = None,
        timeout: float = 1800.0,
        image_token: int | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: base URL of the API, ending in /v1.
            timeout: seconds for one answer: queues are long where the machine is slow.
            image_token: id of the token that stands for a visual token; given, replies say what the prompt was (of vLLM only).

        Raises:
            LostattnError: the client library is missing.
        """
        self._client = Client(url, model, api_key, timeout)
        self.model, self.url, self.max_tokens, self.seed = model, url, max_tokens, seed
        self.image_token, self.patience, self._sleep = image_token, patience or Patience(), sleep

    def ask(self, item: Item) -> Reply:
        """The greedy answer to an item.

        Raises:
            LostattnError: the server refused the item, or still failed after all tries.
        """
        messages = [{"role": "user", "content": content(item)}]
        for tried in range(1, self.patience.tries + 1):
            try:
                result = self._client.ask(
                    messages, self.max_tokens, seed=self.seed, token_ids=self.image_token is not None
                )
                return self._reply(result)
            except NoAnswer as error:
                if not error.passing:
                    raise self._refused(item, error) from error
                problem = error
            except LostattnError as error:
                raise LostattnError(f"item {shown(item.id)}: {error}") from error
            if tried < self.patience.tries:
                self._sleep(self.patience.pause(tried, problem.retry_after))
        raise LostattnError(
            f"{self.model} at {self.url} did not answer item {shown(item.id)} in {self.patience.tries} tries ({problem.said}): "
            "all answers so far are kept, start the server again and repeat the command"
        )

    def _reply(self, answer: Answer) -> Reply:
        if self.image_token is None:
            return Reply(answer.text, answer.finish)
        prompt = hashlib.sha256(json.dumps(answer.prompt).encode()).hexdigest()[:16]
        visual = answer.prompt.count(self.image_token)
        return Reply(answer.text, answer.finish, "", prompt, len(answer.prompt), visual, answer.output_tokens)

    def _refused(self, item: Item, error: NoAnswer) -> LostattnError:
        return LostattnError(
            f"the server refused item {shown(item.id)} (HTTP {error.status}: {error.said}): mend that and repeat the "
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


def ask_all(ask: Callable[[Item], Reply], items: Sequence[Item], answers: Answers, at_once: int, rate: Rate) -> None:
    """Ask what is not answered yet; every answer is kept as soon as it is there. The first error ends it."""
    left = [i for i in range(len(items)) if i not in answers.found]
    for index, reply in concurrently(lambda i: ask(items[i]), left, at_once):
        answers.add({index: reply})
        rate(len(answers.found))


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
