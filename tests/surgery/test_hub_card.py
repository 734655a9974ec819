"""The model card as it is pushed: base, licence, measured results; and small parts of the Hub side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from hub_server.client import mistake
from hub_server.server import Hub
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.surgery.hub.errors import explain, passes
from lostattn.surgery.hub.names import check_ref, check_repo, size_text
from lostattn.surgery.hub.results import Result as Row
from lostattn.surgery.hub.results import read_results
from lostattn.surgery.hub.session import hub_session

pytest_plugins = ["hub_server.fixtures"]
Run = Callable[..., Result]
ROW = {
    "dataset": "VMCBench",
    "dataset_id": "org/VMCBench",
    "split": "dev",
    "metric": "accuracy",
    "value": 0.74,
    "n": 1000,
    "low": 0.71,
    "high": 0.77,
    "base": 0.743,
}


def pushed_card(hub: Hub, name: str = "me/tiny") -> tuple[dict[str, Any], str]:
    text = hub.store.files(name)["README.md"].decode()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def edit(folder: Path, old: str, new: str) -> None:
    card = folder / "README.md"
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))


def test_results_become_a_model_index_and_a_table(hub: Hub, run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"results": [ROW, {**ROW, "metric": "agreement", "value": 0.9}]}))
    push = ("push", folder, "me/tiny", "--private", "--results", tmp_path / "r.json")
    assert run(*push).exit_code == 0
    values, body = pushed_card(hub)
    (index,) = values["model-index"]
    assert index["name"] == "tiny" and "model_name" not in values and "eval_results" not in values
    assert index["results"][0]["dataset"] == {"name": "VMCBench", "type": "org/VMCBench", "split": "dev"}
    metric = index["results"][0]["metrics"][0]
    assert (metric["type"], metric["value"], metric["args"]["n"]) == ("accuracy", 0.74, 1000)
    assert metric["name"] == "accuracy (n = 1000, 95 % interval 0.71 to 0.77)"
    assert "| VMCBench | accuracy | 0.74 | 0.71 to 0.77 | 1,000 | 0.743 |" in body
    assert body.index("## Evaluation") < body.index("## Load and serve")
    assert run("pull", "me/tiny", "back").exit_code == 0 and run("verify", "back").exit_code == 0
    again = run("push", "back", "me/tiny", "--results", tmp_path / "r.json")
    assert "no commit is needed" in again.stderr, "the same results replace themselves"
    from huggingface_hub import ModelCard

    assert len(ModelCard(hub.store.files("me/tiny")["README.md"].decode()).data.eval_results) == 2


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("{", "not JSON"),
        ({}, "holds no results"),
        ([], "holds no results"),
        ([3], "row 1"),
        ([{**ROW, "more": 1}], "unknown keys more"),
        ([{**ROW, "value": "x"}], "wrong value: 'x'"),
        ([{**ROW, "value": float("nan")}], "wrong value"),
        ([{**ROW, "n": 0}], "wrong n"),
        ([{**ROW, "n": True}], "wrong n"),
        ([{**ROW, "dataset": ""}], "wrong dataset"),
        ([{"metric": "accuracy"}], "wrong dataset: None (it is missing)"),
        ([{**ROW, "low": "x"}], "wrong low"),
    ],
)
def test_wrong_results(run: Run, folder: Path, tmp_path: Path, rows: Any, says: str) -> None:
    (tmp_path / "r.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    assert says in mistake(run("push", folder, "me/tiny", "--dry-run", "--results", tmp_path / "r.json"))


def test_the_licence_of_the_base_is_kept(hub: Hub, run: Run, folder: Path) -> None:
    push = ("push", folder, "me/tiny", "--private")
    edit(folder, "license: apache-2.0", "license: mit")
    assert "README.md says license mit, but tiny-llava is under apache-2.0" in mistake(run(*push))
    edit(folder, "license: mit\n", "")
    assert "says license nothing" in mistake(run(*push)) and hub.store.repos == {}
    edit(folder, "library_name: transformers\n", "library_name: transformers\nlicense: apache-2.0\nmine: [1, 2]\n")
    edit(folder, "## Limits", "Words of my own.\n\n## Limits")
    assert run(*push).exit_code == 0
    values, body = pushed_card(hub)
    assert values["license"] == "apache-2.0" and values["mine"] == [1, 2] and "Words of my own." in body
    assert run("pull", "me/tiny", "back").exit_code == 0 and run("verify", "back").exit_code == 0


@pytest.mark.parametrize("there", [True, False])
def test_a_licence_that_only_the_hub_knows(
    hub: Hub, run: Run, tiny_llava: Path, src: Path, tmp_path: Path, there: bool
) -> None:
    from lostattn.surgery import patch_checkpoint

    files = {p.name: p.read_bytes() for p in tiny_llava.iterdir() if p.is_file()}
    if not there:
        files["README.md"] = b"# nothing\n"
    hub.store.fill("org/base", files, owner="org")
    (src / "README.md").unlink()
    patch_checkpoint(src, tmp_path / "out", layers="1", heads="all")
    found = run("push", tmp_path / "out", "me/tiny", "--private", "--base-repo", "org/base")
    values, body = pushed_card(hub)
    assert values.get("license") == ("apache-2.0" if there else None) and values["base_model"] == "org/base"
    assert ("states no licence" in body) != there and ("no licence of the base" in found.stderr) != there


@pytest.mark.parametrize(
    ("front", "says"),
    [
        ("", "no readable front matter"),
        ("---\n[1\n---\n", "no readable front matter"),
        ("---\n3: 4\n---\n", "front matter"),
        ("---\nlicense: apache-2.0\nmodel-index: [3]\n---\n", "model-index"),
    ],
)
def test_cards_that_the_hub_could_not_read(hub: Hub, run: Run, folder: Path, front: str, says: str) -> None:
    (folder / "README.md").write_text(f"{front}# Mine\n")
    assert says in mistake(run("push", folder, "me/tiny", "--private")) and hub.store.repos == {}


def test_a_file_beside_the_model_stays_at_home(hub: Hub, run: Run, folder: Path) -> None:
    (folder / ".env").write_text("KEY=hf_other")
    found = run("push", folder, "me/tiny", "--private")
    assert ".env is not part of what was patched and stays here" in found.stderr
    assert ".env" not in hub.store.files("me/tiny")


@given(
    st.lists(
        st.builds(
            Row,
            dataset=st.text(min_size=1, max_size=9),
            metric=st.text(min_size=1, max_size=9),
            value=st.floats(allow_nan=False, allow_infinity=False),
            n=st.integers(1, 10**9),
        ),
        min_size=1,
    )
)
def test_rows_and_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    path = tmp_path_factory.mktemp("rows") / "r.json"
    path.write_text(json.dumps([{k: v for k, v in vars(row).items() if v is not None} for row in rows]))
    assert read_results(path, None, "x") == tuple(rows)  # type: ignore[arg-type]


@given(st.text(max_size=30))
def test_any_name_is_a_repository_or_one_sentence(text: str) -> None:
    for check in (check_repo, lambda name: check_ref(name, "--tag")):
        try:
            check(text)
        except LostattnError as error:
            assert ": " in str(error)
        else:
            assert ".." not in text and " " not in text and not text.startswith(("/", "-"))


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (4_976_698_672, "4.98 GB")]
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_the_client_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    from huggingface_hub.utils import _http

    logger = logging.getLogger("huggingface_hub")
    before = (_http._GLOBAL_CLIENT_FACTORY, logger.handlers[:], logger.propagate, logger.level)
    with hub_session(5):
        logger.warning("'x' thrown while requesting PUT https://storage/x?X-Signature=SIGNED")
        logger.warning("Retrying in 2s [Retry 1/5].")
    assert caplog.messages == ["the Hub or the network falters: trying again in 2 s"]
    assert before == (_http._GLOBAL_CLIENT_FACTORY, logger.handlers, logger.propagate, logger.level)


def test_errors_of_the_disk_are_not_taken_for_the_network() -> None:
    import errno

    assert "the disk is full" in explain(OSError(errno.ENOSPC, "No space left on device"), "a/b")
    assert "permission denied" in explain(PermissionError(errno.EACCES, "Permission denied", "/x"), "a/b")
    assert not passes(OSError(errno.ENOSPC, "full"))
