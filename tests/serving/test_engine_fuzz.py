"""The vLLM engine under drawn loads: every greedy answer is that of the same request alone, whatever runs beside it.

The ordinary suite runs eight settings, one for each kind of plan. `LOSTATTN_FUZZ=200` runs settings 0 to 199, `LOSTATTN_FUZZ=3-3`
setting 3 alone; a setting is a function of its number.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

import fuzz_engine as fuzz  # noqa: E402
from engines import run_driver  # noqa: E402
from lostattn.surgery.patch import patch_from_spec  # noqa: E402
from lostattn.surgery.spec import PatchSpec  # noqa: E402
from served import write_checkpoint  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def numbers() -> list[int]:
    """Settings to run."""
    first, dash, last = os.environ.get("LOSTATTN_FUZZ", str(len(fuzz.PLANS))).partition("-")
    return list(range(int(first), int(last) + 1)) if dash else list(range(int(first)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen2.5-VL under every plan that is needed."""
    root = tmp_path_factory.mktemp("fuzz")
    write_checkpoint("qwen2_5_vl", root / "base")
    for kind in {fuzz.draw_setting(n)["kind"] for n in numbers()}:
        options = {"mode": "patch_complexity", **fuzz.PLANS[kind]}
        patch_from_spec(root / "base", root / fuzz.folder_name(kind), PatchSpec(**options))
    return root


def test_every_greedy_answer_is_that_of_the_request_alone(folders: Path, tmp_path: Path) -> None:
    settings = [fuzz.draw_setting(n) for n in numbers()]
    kinds = {kind: [s for s in settings if s["kind"] == kind] for kind in dict.fromkeys(s["kind"] for s in settings)}
    jobs = [{"folder": str(folders / fuzz.folder_name(kind)), "settings": mine} for kind, mine in kinds.items()]
    wrong, seen = [], []
    for mine, found in zip(kinds.values(), run_driver("drive_fuzz.py", jobs, tmp_path), strict=True):
        for setting, result in zip(mine, found["settings"], strict=True):
            wrong += judge(setting, result, found["alone"])
            seen.append(result)
    assert not wrong, "\n".join(wrong)
    if len(settings) >= len(fuzz.PLANS):  # else a lone setting may lack some of it
        assert sum(r["seen"]["preempted"] for r in seen) > 0, "nothing was preempted"
        assert sum(row["cached"] for r in seen for row in r["rows"] if row) > 0, "no prefix was found again"
        assert not all(all(r["seen"]["ended"]) for r in seen), "nothing was aborted"


def judge(setting: dict[str, Any], result: dict[str, Any], alone: dict[str, Any]) -> list[str]:
    """What is wrong with a setting's answers, one sentence each, with the command that runs it again."""
    wrong = []
    for i, (request, row) in enumerate(zip(setting["requests"], result["rows"], strict=True)):
        if request["aborted"] is None and (row is None or len(row["tokens"]) != request["tokens"]):
            wrong.append(f"request {i} ended without its {request['tokens']} tokens")
        elif row is None or request["temperature"]:
            continue
        elif (said := fuzz.difference(row, alone[fuzz.alone(request)])) is not None:
            wrong.append(f"request {i}: {said}")
    if result["seen"]["free"] != result["seen"]["blocks"] - 1:
        wrong.append(f"{result['seen']['blocks'] - 1 - result['seen']['free']} blocks were never given back")
    told = f"LOSTATTN_FUZZ={setting['number']}-{setting['number']}, plan '{setting['kind']}', {setting['options']}"
    return [f"{sentence} ({told})" for sentence in wrong]


def test_settings_are_a_function_of_their_number() -> None:
    assert [fuzz.draw_setting(n) for n in range(40)] == [
        json.loads(json.dumps(fuzz.draw_setting(n))) for n in range(40)
    ]
    drawn = [fuzz.draw_setting(n) for n in range(200)]
    assert {s["kind"] for s in drawn} == set(fuzz.PLANS)
    for option, values in (("block_size", {32, 64}), ("scheduling_policy", {"fcfs", "priority"})):
        assert {s["options"][option] for s in drawn} == values
    budgets = {s["options"]["max_num_batched_tokens"] for s in drawn}
    assert min(budgets) == 17 and max(budgets) == 2048


def test_a_wrong_answer_is_told() -> None:
    right = {"prompt": [1], "tokens": [5, 6, 7], "logprobs": [-1.0, -1.0, -1.0], "gaps": [1.0, 0.0, 1.0]}
    assert fuzz.difference({**right, "tokens": [5, 6], "logprobs": [-1.0, -1.0]}, right) is None
    assert fuzz.difference({**right, "tokens": [5, 9, 9]}, right) is None, "a tie"
    assert "token 0 is 9" in str(fuzz.difference({**right, "tokens": [9, 6, 7]}, right))
    assert "token 2 is 9" in str(fuzz.difference({**right, "tokens": [5, 6, 9]}, right))
    assert "logprob of token 1" in str(fuzz.difference({**right, "logprobs": [-1.0, -1.1, -1.0]}, right))
    assert fuzz.difference({**right, "prompt": [2]}, right) == "another prompt"
    setting = {
        "number": 3,
        "kind": "mixed",
        "options": {},
        "requests": [{"pictures": [0, 0], "prompt": "x", "tokens": 3, "aborted": None, "temperature": 0.0}],
    }
    fine = {"rows": [right], "seen": {"free": 9, "blocks": 10}}
    known = {fuzz.alone(setting["requests"][0]): right}
    assert judge(setting, fine, known) == []
    assert "LOSTATTN_FUZZ=3-3" in judge(setting, {**fine, "rows": [None]}, known)[0]
    assert "2 blocks" in judge(setting, {**fine, "seen": {"free": 7, "blocks": 10}}, known)[0]
