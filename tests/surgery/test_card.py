"""The model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lostattn.patches.plan import Band, Plan
from lostattn.surgery.checkpoint.card import card_text, ranges
from lostattn.surgery.checkpoint.card_metadata import inherited
from lostattn.surgery.checkpoint.provenance import lostattn_version, portable, versions
from lostattn.surgery.checkpoint.source import Source

SOURCE = Source(Path("/home/me/models/llava"), "org/llava", "a" * 40, {"model_type": "llava"}, (), ())
PLAN = Plan(
    "llava",
    "noise",
    "paper",
    "raw",
    "all",
    32,
    32,
    8,
    seed=7,
    options={"shape": "a|b"},
    heads={1: (0, 1), 20: (4, 5, 6, 7, 9, 30), **dict.fromkeys(range(3, 9), tuple(range(32)))},
)


def card(plan: Plan = PLAN, source: Source = SOURCE, **kwargs: Any) -> str:
    defaults = {"command": "lostattn patch a b", "versions": {"torch": "2"}}
    return card_text(plan=plan, source=source, **{**defaults, **kwargs})


def front(text: str) -> dict[str, Any]:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter() -> None:
    values = front(card(original="---\nlicense: other\nlicense_name: x\nlanguage:\n- de\ndatasets: [y]\n---\n# T\n"))
    assert values["base_model"] == "org/llava" and values["base_model_relation"] == "adapter"
    assert values["library_name"] == "transformers" and values["pipeline_tag"] == "image-text-to-text"
    assert {"lostattn", "sap"} <= set(values["tags"])
    assert (values["license"], values["license_name"], values["language"]) == ("other", "x", ["de"])
    assert "datasets" not in values


def test_a_folder_that_is_not_from_the_hub() -> None:
    text = card(source=replace(SOURCE, repo=None, revision=None))
    assert "base_model" not in front(text) and "license" not in front(text)
    assert "states no licence" in text and "local folder, `llava`" in text
    assert "/home" not in text


def test_the_plan_as_a_table() -> None:
    text = card()
    assert "| 1 | 0-1 | none |" in text
    assert "| 3-8 | all 32 | **0-7** |" in text
    assert "| 20 | 4-7, 9, 30 | **1** |" in text
    assert "| option shape | `a\\|b` |" in text and "| seed | 7 |" in text
    assert "in 49 of 256 KV groups" in text


def test_a_band_and_an_empty_plan() -> None:
    band = replace(PLAN, heads=dict.fromkeys(range(18, 24), ()), band=Band(0.2, 0.8, "score"))
    text = card(band)
    assert "| 18-23 | chosen anew in every call: 0.2 to 0.8 quantile, ranked by score |" in text
    assert "in none of 256" in text
    text = card(replace(PLAN, heads={}))
    assert "Nothing is replaced" in text and "| none | none | none |" in text


def test_numbers() -> None:
    text = card(
        predicted={16384: {"attention_flops": 0.5}, 1024: {"attention_flops": 0.25, "kv_bytes": "none"}},
        measured={"accuracy": 0.9, "n": 500},
    )
    assert "| visual tokens | attention flops | kv bytes |" in text
    assert text.index("| 1,024 | 25.0 % | none |") < text.index("| 16,384 | 50.0 % |  |")
    assert "| accuracy | 0.9000 |" in text and "| n | 500 |" in text
    assert "## Measured" not in card() and "## Predicted" not in card()


def test_how_to_load_serve_and_undo() -> None:
    text = card()
    for part in ("import lostattn.patches", "trust_remote_code=True", "lostattn serve", "lostattn unpatch"):
        assert part in text
    assert "2605.05668" in text and "a" * 40 in text and "lostattn patch a b" in text


def test_command_and_spec_cannot_break_out() -> None:
    text = card(command="lostattn patch `x`\n```\n# evil", spec="a: '```'\nsrc: /home/me/secret/x\n")
    assert "````sh\nlostattn patch `x`\n```\n# evil\n````" in text
    assert "secret" not in text


def test_a_hostile_folder_name() -> None:
    text = card(source=replace(SOURCE, repo=None, path=Path('/m/x\n# evil | <script>`"')))
    assert "\n# evil" not in text and "<script>" not in text
    assert 'from_pretrained("x-evil-script-sap")' in text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "# no front matter",
        "---\n",
        "---\n[1]\n---\n",
        "---\nlicense: {a: b}\n---\n",
        "---\nlicense: [1]\n---\n",
        "---\nlicense: &a [*a]\n---\n",
        "---\nlicense: " + "[" * 4000 + "\n---\n",
        "---\n" + "[" * 5000 + "\n---\n",
        "---\nlicense: !!python/object:os.system x\n---\n",
        "---\nlicense: " + "x" * 70_000 + "\n---\n",
        "---\n\x00\n---\n",
        "---\nlicense: ''\n---\n",
    ],
)
def test_front_matter_from_anywhere(text: str | None) -> None:
    assert inherited(text) == {}
    assert "license" not in front(card(original=text))


def test_front_matter_of_windows_and_bom() -> None:
    text = "\ufeff---\r\nlicense: mit\r\nlanguage:\r\n- en\r\n---\r\n# x"
    assert inherited(text) == {"license": "mit", "language": ["en"]}


@pytest.mark.parametrize(
    ("numbers", "text"), [((), ""), ((3,), "3"), ((0, 1, 2, 3, 7), "0-3, 7"), ((1, 3, 4, 9, 10, 11), "1, 3-4, 9-11")]
)
def test_ranges(numbers: tuple[int, ...], text: str) -> None:
    assert ranges(numbers) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lostattn patch /home/me/a b/c ../d ./e", "lostattn patch a b/c ../d ./e"),
        ("--spec=/a/b/s.yaml --out='/x/y/'", "--spec=s.yaml --out='y'"),
        ("~/models/x ~you/z", "x z"),
        ("https://huggingface.co/org/x org/x 1/2", "https://huggingface.co/org/x org/x 1/2"),
        ("src: /data/x, /data/y", "src: x, y"),
        ("--token hf_abcdefghijklmnop", "--token hf_***"),
        ("/", "/"),
    ],
)
def test_portable(text: str, wanted: str) -> None:
    assert portable(text) == wanted


def test_versions() -> None:
    assert versions()["lostattn"] == lostattn_version() and all(isinstance(v, str) for v in versions().values())
