"""`lostattn conform`: it agrees where engines agree, and finds it where they do not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from lostattn.patches.errors import LostattnError
from lostattn.serving.client import Answer, Step, Turn
from lostattn.surgery import conform as module
from lostattn.surgery.chat import Chat
from lostattn.surgery.cli import main
from lostattn.surgery.conform import (
    Case,
    _encode,
    _forced_logprobs,
    builtin_cases,
    conform,
    data_cases,
    tells_apart,
    video_cases,
)

MODEL = Path(__file__).resolve().parents[2] / "surgery" / "demo" / "model"
CASES = builtin_cases()
with_vllm = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


@pytest.fixture(scope="module")
def chat() -> Chat:
    pytest.importorskip("torchvision")
    return Chat.load(MODEL, "float32")


def answer(chat: Chat, case: Case, tokens: int = 4) -> Answer:
    """What a server that conforms would say."""
    inputs = _encode(chat.processor, case)
    out = chat.model.generate(
        **inputs, max_new_tokens=tokens, min_new_tokens=tokens, eos_token_id=None, do_sample=False
    )
    prompt, chosen = inputs["input_ids"][0].tolist(), out[0, inputs["input_ids"].shape[1] :].tolist()
    rows = _forced_logprobs(chat, inputs, chosen)
    steps = [
        Step(token, dict(zip(row.topk(5).indices.tolist(), row.topk(5).values.tolist(), strict=True)))
        for token, row in zip(chosen, rows, strict=True)
    ]
    return Answer("", prompt, steps)


@pytest.fixture
def fake(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """A vLLM that says what is in this list; it holds conforming answers to begin with."""
    answers = [answer(chat, case) for case in CASES]
    monkeypatch.setattr(module, "_ask_vllm", lambda *_: answers)
    return answers


def change(answers: list[Answer], case: int, step: int, **values: Any) -> None:
    steps = list(answers[case].steps)
    old = steps[step]
    steps[step] = Step(values.get("token", old.token), values.get("top", old.top))
    answers[case] = Answer("", answers[case].prompt, steps)


def test_equal_answers_agree(fake: list[Answer]) -> None:
    found = conform(MODEL, CASES, max_tokens=4)
    assert all(r.ok and r.equal == r.tokens == 4 and r.difference < 1e-6 for r in found)
    assert [r.name for r in found] == [c.name for c in CASES]
    assert next(r for r in found if r.name == "text alone").visual == 0 < found[0].visual


def test_forced_rows_are_those_of_a_whole_pass(chat: Chat) -> None:
    inputs = _encode(chat.processor, CASES[4])
    tokens = [7, 3, 9]
    ids = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    kinds = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, 3, dtype=torch.long)], dim=1)
    with torch.no_grad():
        logits = chat.model(**{**inputs, "input_ids": ids, "attention_mask": None, "mm_token_type_ids": kinds}).logits
    expected = torch.log_softmax(logits[0, -4:-1].double(), dim=-1)
    assert (_forced_logprobs(chat, inputs, tokens) - expected).abs().max() < 1e-4


def test_a_wrong_logprob_is_found(fake: list[Answer]) -> None:
    top = fake[2].steps[1].top
    change(fake, 2, 1, top={k: v - 0.01 * (v == min(top.values())) for k, v in top.items()})
    found = conform(MODEL, CASES, max_tokens=4)
    assert [r.ok for r in found].count(False) == 1 and not found[2].ok
    assert found[2].difference == pytest.approx(0.01, abs=1e-4) and found[2].equal == 4


def test_a_wrong_token_is_found(fake: list[Answer]) -> None:
    token = min(fake[0].steps[2].top.items(), key=lambda item: item[1])[0]
    change(fake, 0, 2, token=token)
    found = conform(MODEL, CASES, max_tokens=4)
    assert not found[0].ok and found[0].equal < 4


def test_no_answer_is_no_agreement(fake: list[Answer]) -> None:
    fake[1] = Answer("", fake[1].prompt, [])
    assert not conform(MODEL, CASES, max_tokens=4)[1].ok


def test_other_prompts_are_refused(fake: list[Answer]) -> None:
    prompt = fake[3].prompt
    fake[3] = Answer("", [*prompt[:5], 1 + prompt[5], *prompt[6:], 0], fake[3].steps)
    with pytest.raises(LostattnError, match=rf"tiny picture: the prompts differ.*{len(prompt)} tokens.*different at 5"):
        conform(MODEL, CASES, max_tokens=4)


def test_the_command(fake: list[Answer], tmp_path: Path) -> None:
    good = CliRunner().invoke(main, ["conform", str(MODEL), "--max-tokens", "4"])
    assert good.exit_code == 0 and f"{len(CASES)} of {len(CASES)} prompts agree" in good.stdout
    change(fake, 0, 0, top={k: v + 1 for k, v in fake[0].steps[0].top.items()})
    bad = CliRunner().invoke(main, ["conform", str(MODEL), "--json"])
    assert bad.exit_code == 1 and "do not agree" in bad.stderr
    report = json.loads(bad.stdout)
    assert report["ok"] is False and report["tolerance"] == 1e-3 and report["cases"][0]["difference"] > 0.9
    nowhere = CliRunner().invoke(main, ["conform", str(tmp_path / "none")])
    assert nowhere.exit_code == 2 and nowhere.stderr.count("\n") == 1


def test_rows_of_data_become_cases(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    (tmp_path / "data.jsonl").write_text('{"image": "a.png", "question": "What?"}\n' * 3)
    found = data_cases(tmp_path / "data.jsonl", 2)
    assert [c.name for c in found] == ["row 1", "row 2"]
    assert found[0].turns[0].text == "What?" and found[0].turns[0].images[0].size == (30, 40)


def test_a_picture_that_the_processor_refuses_is_named(chat: Chat) -> None:
    from PIL import Image

    case = Case("row 9", (Turn("user", "What?", (Image.new("RGB", (1, 900)),)),))
    with pytest.raises(LostattnError, match="row 9: the model's processor cannot use it"):
        conform(MODEL, [case])


def test_videos_in_place_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    both = CliRunner().invoke(main, ["conform", str(MODEL), "--videos", "--data", "digits:1"])
    assert both.exit_code == 2 and "leave out --data" in both.stderr
    assert tells_apart(MODEL) and len(video_cases()) == len(video_cases(both=False)) + 1
    asked: list[Case] = []
    monkeypatch.setattr(module, "conform", lambda folder, cases, *_: asked.extend(cases) or [])
    CliRunner().invoke(main, ["conform", str(MODEL), "--videos"])
    assert [c.name for c in asked] == [c.name for c in video_cases()]
    turn = asked[0].turns[0].to_openai()
    assert turn["content"][0]["video_url"]["url"].startswith("data:video/mp4;base64,")


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("conform") / "patched"
    wanted = ["--mode", "patch_complexity", "--layers", "1-5", "--heads", "all"]
    assert CliRunner().invoke(main, ["patch", *wanted, str(MODEL), str(out)]).exit_code == 0
    return out


class TestWithVllm:
    """One server start."""

    pytestmark = with_vllm

    def test_a_patched_model_conforms_and_is_told_from_the_plain(
        self, patched: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        answers: list[Answer] = []
        ask = module._ask_vllm

        def listen(*given: Any) -> list[Answer]:
            answers.extend(ask(*given))
            return answers

        monkeypatch.setattr(module, "_ask_vllm", listen)
        # no videos: transformers and vLLM number the text behind a Qwen2.5-VL video differently, unpatched too
        cases = CASES
        found = conform(patched, cases, max_tokens=12)
        assert all(r.ok and 1 <= r.tokens <= 12 for r in found), found
        for case, said in zip(cases, answers, strict=True):
            inputs = _encode(chat.processor, case)
            assert said.prompt == inputs["input_ids"][0].tolist()
            pictures = any(turn.images or turn.videos for turn in case.turns)
            assert module._judge(chat, case, inputs, said, 1e-3).ok is not pictures
