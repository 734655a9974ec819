"""`lostattn eval` through a server that others started: a fake one that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_api import api, text_of
from lostattn.serving.evaluation import asker as asking
from lostattn.surgery.cli import main
from lostattn.surgery.demo.digits import held_out
from resumed import assert_same

pytest.importorskip("openai")
N = 12


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries."""
    monkeypatch.setattr(asking.Patience, "pause", lambda self, tried, wanted=0.0: 0.0)


def lostattn(url: str, out: Path, *more: object, models: tuple[str, ...] = ("good", "org/bad")) -> Result:
    arguments = ["eval", *models, "--task", "digits", "--limit", N, "--backend", url, "--out", out, *more]
    found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn")
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
    return found


GOLD = {q.question: q.answer for q in held_out(N)}


def respond(body: dict[str, Any]) -> str:
    """Model `good` knows nearly all answers; the other says nothing that could be read."""
    return GOLD[text_of(body).replace("<image>", "")] if body["model"] == "good" else "I cannot say."


def test_models_of_a_server_are_compared(tmp_path: Path) -> None:
    with api(respond) as server:
        found = lostattn(server.url, tmp_path / "out", "--json")
        assert len(server.bodies) == 2 * N and {b["max_tokens"] for b in server.bodies} == {16}
    assert found.exit_code == 0, found.output
    good, bad = json.loads(found.stdout)["results"]
    assert (
        good["model"] == "good" and bad["model"] == "org_bad" and bad["unparsed"] == N and bad["accuracy"]["share"] == 0
    )
    assert good["paths"] == {"": N} and "not known" in (tmp_path / "out" / "eval.md").read_text()


def test_a_server_that_dies_costs_nothing(tmp_path: Path) -> None:
    count = [0]

    def dying(body: dict[str, Any]) -> str | int:
        count[0] += 1
        return 503 if count[0] > 17 else respond(body)

    with api(dying) as server:
        url = server.url
        cut = lostattn(url, tmp_path / "cut", "--concurrency", 1)
    assert cut.exit_code == 2 and "did not answer item 6 in 7 tries" in cut.stderr and "are kept" in cut.stderr
    assert not (tmp_path / "cut" / "eval.json").exists()
    assert len((tmp_path / "cut" / "digits" / "org_bad.part.jsonl").read_text().splitlines()) == 5
    port = int(url.split(":")[2].split("/")[0])
    asked: list[str] = []
    for place in ("cut", "whole"):
        with api(respond, port) as server:
            assert lostattn(url, tmp_path / place).exit_code == 0
            asked.append(str(len(server.bodies)))
    assert asked == [str(N - 5), str(2 * N)]
    assert_same(tmp_path / "cut", tmp_path / "whole")


def test_keys_are_sent_but_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lostattn", "eval", "--api-key", "s3cr3t", "--out", "x"])
    with api(respond) as server:
        found = lostattn(server.url, tmp_path / "out", "--api-key", "s3cr3t", models=("good",))
        assert found.exit_code == 0 and server.keys == {"Bearer s3cr3t"}
        refused = lostattn(server.url.replace("//", "//user:pw@"), tmp_path / "other", models=("good",))
    assert refused.exit_code == 2 and "holds a password" in refused.stderr
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert b"--api-key ..." in written and b"s3cr3t" not in written and "s3cr3t" not in found.output


@pytest.mark.parametrize("name", ["../../x", "..", "a b/ü:c"])
def test_names_of_models_stay_in_the_folder(name: str, tmp_path: Path) -> None:
    with api(lambda body: "yes") as server:
        assert lostattn(server.url, tmp_path / "in" / "out", models=(name,)).exit_code == 0
        assert {b["model"] for b in server.bodies} == {name}
    assert [p.name for p in tmp_path.iterdir()] == ["in"] and [p.name for p in (tmp_path / "in").iterdir()] == ["out"]
