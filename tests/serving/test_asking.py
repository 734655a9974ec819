"""Asking a server that fails, against a fake one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_api import api, text_of
from lostattn.patches.errors import LostattnError
from lostattn.serving.evaluation.asker import Asker, Patience, ask_all
from lostattn.serving.evaluation.rate import Rate
from lostattn.serving.evaluation.store import Answers
from lostattn.serving.tasks.task import Item
from PIL import Image

pytest.importorskip("openai")


def items(n: int) -> list[Item]:
    picture = Image.new("RGB", (8, 8), "red")
    return [Item(str(i), str(i), {}, (0, f"question {i}"), "yes", images=(picture,), row=i) for i in range(n)]


def asker(url: str, slept: list[float], tries: int = 4) -> Asker:
    return Asker(url, "m", 7, seed=5, patience=Patience(tries, 1.0, 3.0), sleep=slept.append)


def test_request_has_texts_and_pictures_in_their_order() -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (9, 9), "blue")
    item = Item("a", "a", {}, ("first ", 1, " then ", 0, " which?"), "A", images=(red, blue))
    with api(lambda _: " A \n") as server:
        reply = asker(server.url, []).ask(item)
        (body,) = server.bodies
    assert (reply.text, reply.finish) == ("A", "stop")
    assert body["model"] == "m" and body["max_tokens"] == 7 and body["temperature"] == 0 and body["seed"] == 5
    assert text_of(body) == "first <image> then <image> which?"
    first, second = (p["image_url"]["url"] for p in body["messages"][0]["content"] if p["type"] == "image_url")
    assert first != second and first.startswith("data:image/png;base64,")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_passing_failures_are_tried_again_after_growing_pauses(status: int) -> None:
    left: list[Any] = [status, status, "yes"]
    slept: list[float] = []
    with api(lambda _: left.pop(0)) as server:
        assert asker(server.url, slept).ask(items(1)[0]).text == "yes"
    assert len(slept) == 2 and 0.75 <= slept[0] <= 1.25 and 1.5 <= slept[1] <= 2.5


def test_pauses_are_bounded_and_obey_the_server() -> None:
    left: list[Any] = [(503, {"Retry-After": "17"}), "yes"]
    slept: list[float] = []
    with api(lambda _: left.pop(0)) as server:
        asker(server.url, slept).ask(items(1)[0])
    assert slept == [17.0]
    assert all(Patience(99, 1.0, 30.0).pause(n) <= 37.5 for n in range(1, 60))


def test_a_refused_item_is_named_and_not_tried_again() -> None:
    with api(lambda _: 400) as server:
        with pytest.raises(LostattnError, match=r"refused item 0 \(HTTP 400: planned failure 400\).*are kept"):
            asker(server.url, []).ask(items(1)[0])
        assert len(server.bodies) == 1


def test_a_server_that_is_gone_ends_it_with_a_sentence_and_nothing_is_lost(tmp_path: Path) -> None:
    asked = items(6)

    def respond(body: dict[str, Any]) -> str | int:
        return "yes" if text_of(body)[-1] in "012" else 503

    slept: list[float] = []
    answers = Answers(tmp_path / "m", {}, asked)
    with api(respond) as server:
        client = asker(server.url, slept, tries=3)
        with pytest.raises(
            LostattnError, match=r"m at http.* did not answer item \d in 3 tries .*start the server again"
        ):
            ask_all(client.ask, asked, answers, 1, Rate("t", 6, 0))
    assert sorted(Answers(tmp_path / "m", {}, asked).found) == [0, 1, 2]
    gone = asker(server.url, slept, tries=2)  # its port is closed now
    with pytest.raises(LostattnError, match=r"in 2 tries \(Connection error"):
        gone.ask(asked[3])
    with api(lambda body: "no") as server:
        again = Answers(tmp_path / "m", {}, asked)
        ask_all(asker(server.url, []).ask, asked, again, 4, Rate("t", 6, 3))
        assert sorted(text_of(b)[-1] for b in server.bodies) == ["3", "4", "5"], "what was answered is not asked again"
    assert [r.text for r in again.replies] == ["yes"] * 3 + ["no"] * 3


def test_something_else_at_the_url_is_told() -> None:
    def respond(_: dict[str, Any]) -> tuple[int, dict[str, str]]:
        return 200, {}

    with api(respond) as server, pytest.raises(LostattnError, match="has no choices: give the URL"):
        asker(server.url, []).ask(items(1)[0])
