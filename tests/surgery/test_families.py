"""`lostattn families`: every registered family, and what it says is what happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lostattn.patches import discover
from lostattn.patches.errors import LostattnError
from lostattn.patches.family import FAMILIES
from lostattn.patches.mode import MODES
from lostattn.serving.engine.versions import check_served, serves
from lostattn.surgery import written
from lostattn.surgery.cli import main
from lostattn.surgery.families import NEVER, TRIED, family_states, markdown_table


def told() -> dict[str, Any]:
    found = CliRunner().invoke(main, ["families", "--json"])
    assert found.exit_code == 0, found.output
    return {row["family"]: row for row in json.loads(found.stdout)}


def test_every_family_appears_with_all_that_is_asked() -> None:
    rows = told()
    assert set(rows) == set(FAMILIES)
    for name, row in rows.items():
        assert row["models"] == FAMILIES[name].title and row["video"] and row["defaults_from"]
        assert row["layers"] == list(FAMILIES[name].layers) and row["heads"] == list(FAMILIES[name].heads)
        assert row["transformers"] == {"runs": True, "modes": sorted(MODES)}
        assert row["towers"] == list(FAMILIES[name].towers) and row["text_models"] == list(FAMILIES[name].text_models)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_vllm_runs_what_it_says(name: str) -> None:
    row = told()[name]["vllm"]
    assert row["runs"] == serves(name) == bool(row["modes"])
    if row["runs"]:
        assert {m for m in MODES if m not in row["modes"]} == {m for m in MODES if MODES[m].needs}
        assert "region" in row["reason"]
    else:
        with pytest.raises(LostattnError) as caught:
            check_served(name)
        assert row["reason"] == str(caught.value)


def test_every_family_says_when_it_was_tried() -> None:
    assert set(TRIED) == set(FAMILIES)
    for name, row in told().items():
        assert bool(row["tried"]["vllm"]) == serves(name) and row["tried"]["transformers"]
        date.fromisoformat(row["tried"]["day"])


def test_the_documents_hold_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    assert markdown_table(family_states()) in text, (
        "python -m lostattn.surgery.families prints the table of docs/families.md"
    )


def test_a_new_family_appears_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "patches"
    shutil.copytree(discover.FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "family_llava.py").read_text(encoding="utf-8")
    text = text.replace('name="llava"', 'name="brand_new", both_ways=True')
    (copy / "family_brand_new.py").write_text(text, encoding="utf-8")
    for module in (discover, written):
        monkeypatch.setattr(module, "FOLDER", copy)
    (row,) = [s for s in family_states() if s.family == "brand_new"]
    assert not row.vllm and "brand_new" in row.vllm_reason and row.prefill == "closed, both ways"
    assert row.tried == NEVER and row.lines[1] == 0
    assert row.defaults_from == "taken over from a relative in the paper"


@pytest.mark.parametrize(("kind", "registered"), [("family", FAMILIES), ("mode", MODES)])
def test_what_is_read_is_what_is_registered(kind: str, registered: Mapping[str, Any]) -> None:
    found = {entry.name: vars(entry) for entry in written.written(kind)}
    assert list(found) == sorted(registered)
    for name, values in found.items():
        real = {key: getattr(registered[name], key) for key in values}
        assert values == real and {"name", "summary" if kind == "mode" else "title"} <= values.keys()


def test_the_table() -> None:
    found = CliRunner().invoke(main, ["families"])
    assert found.exit_code == 0 and all(name in found.stdout for name in FAMILIES)
    assert "vLLM here: " in found.stderr and "1-27" in found.stdout
