"""A patched model proves itself on versions that nobody has tested it with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from hub_configs import PAPER
from lostattn.patches import LostattnError, load_patched, selfcheck
from lostattn.patches.attention import sap_attention_forward
from lostattn.patches.call import Call
from lostattn.patches.compat import NEWEST_TESTED, tested_range
from lostattn.patches.family import get_family
from lostattn.patches.mode import MODES
from lostattn.patches.plan import Band, Plan
from lostattn.patches.selfcheck import SWITCH, prove, self_check
from packaging.specifiers import SpecifierSet
from transformers import DynamicCache

FUTURE = f"{NEWEST_TESTED[0]}.{NEWEST_TESTED[1] + 1}.0"


def config_of(name: str, plan: Plan) -> Any:
    raw = {k: v for k, v in tiny.CONFIGS[name]().to_dict().items() if k != "model_type"}
    return get_family(plan.family).config_class(**raw, sap=plan.to_json())


@pytest.fixture
def future(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "__version__", FUTURE)
    monkeypatch.setattr(selfcheck, "_PROVED", set())


@pytest.mark.parametrize("queries", ["all", "after_image", "last"])
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_every_family_passes(name: str, queries: str) -> None:
    for changes in ({}, {"blend": 0.5}, {"scores": "log", "levels": {1: (0.1, 0.2)}, "heads": {1: (0, 3)}}):
        plan = tiny.make_plan(name, queries=queries, **changes)
        assert self_check(config_of(name, plan), plan) == ""


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_a_band_pass(mode: str) -> None:
    for changes in ({}, {"heads": {1: ()}, "band": Band(0.3, 0.6)}):
        plan = tiny.make_plan("qwen2_5_vl", mode, **changes)
        assert self_check(config_of("qwen2_5_vl", plan), plan) == ""


@pytest.mark.parametrize("model", PAPER)
def test_published_configurations_pass(model: str) -> None:
    raw = {k: v for k, v in PAPER[model].items() if k not in ("model_type", "architectures")}
    family = get_family(PAPER[model]["model_type"])
    config = family.config_class(**raw)
    text = config.get_text_config()
    heads, kv = text.num_attention_heads, text.num_key_value_heads or text.num_attention_heads
    last = text.num_hidden_layers - 1
    plan = Plan(family.name, "uniform", "paper", "raw", "all", last + 1, heads, kv, heads={last: tuple(range(heads))})
    assert self_check(config, plan) == ""


def forget_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder whose cached steps see their own keys alone."""
    update = DynamicCache.update

    def own(self: Any, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        found = update(self, keys, values, *args, **kwargs)
        return found if keys.shape[2] > 1 else (keys, values)

    monkeypatch.setattr(DynamicCache, "update", own)


def swap_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached keys of right number and wrong order."""
    update = DynamicCache.update

    def turned(self: Any, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        k, v = update(self, keys, values, *args, **kwargs)
        return (k, v) if keys.shape[2] > 1 else (k, v.flip(2))

    monkeypatch.setattr(DynamicCache, "update", turned)


def skip_the_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention that passes the patched function by."""
    from lostattn.patches.attention import NAME
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    monkeypatch.setitem(AttentionInterface._global_mapping, NAME, sdpa_attention_forward)


def drop_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes the encoder's output and forgets it."""
    base = transformers.models.llava.modeling_llava.LlavaModel
    plain = base.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("mm_encoder_outputs", None)
        return plain(self, *args, **kwargs)

    forward.__wrapped__ = plain  # type: ignore[attr-defined]
    monkeypatch.setattr(base, "forward", forward)


def drop_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that get a call without an image."""

    def no_image(module: Any, *args: Any, sap_call: Call, **kwargs: Any) -> Any:
        module.sap_layer.settings.counts["closed"] += 1
        return sap_attention_forward(module, *args, sap_call=Call(None, sap_call.past), **kwargs)

    from lostattn.patches.attention import NAME
    from transformers import AttentionInterface

    monkeypatch.setitem(AttentionInterface._global_mapping, NAME, no_image)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (forget_the_past, "it cannot be run .LostattnError: layer 0 got 1 query rows and 1 keys"),
        (swap_values, "cached decoding differs from a pass without a cache by"),
        (skip_the_patch, "its patched layers ran 0 times instead of"),
        (drop_features, "the image's features does not reach|the image's features"),
        (drop_prior, "the prior does not reach the decoder"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_what_a_future_transformers_may_do(
    change: Any, problem: str, future: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny.make_plan("llava-llama")
    change(monkeypatch)
    with pytest.raises(LostattnError, match=problem) as error:
        prove(config_of("llava-llama", plan), plan)
    text = str(error.value)
    assert FUTURE in text and f"{SWITCH}=0" in text and "pip install" in text
    assert ".".join(map(str, NEWEST_TESTED)) in text


def test_loading_proves_once_and_can_be_told_not_to(
    future: None, monkeypatch: pytest.MonkeyPatch, plain: Any, tmp_path: Path
) -> None:
    model = tiny.make_patched(plain("llava-llama"), tiny.make_plan("llava-llama"))
    model.save_pretrained(tmp_path)
    calls = []
    monkeypatch.setattr(selfcheck, "self_check", lambda *args: calls.append(args) or "")
    load_patched(tmp_path)
    load_patched(tmp_path)
    assert len(calls) == 1
    monkeypatch.setattr(selfcheck, "_PROVED", set())
    monkeypatch.setattr(selfcheck, "self_check", lambda *args: "it is broken")
    with pytest.raises(LostattnError, match="fails the self-check: it is broken"):
        load_patched(tmp_path)
    monkeypatch.setenv(SWITCH, "0")
    assert load_patched(tmp_path).sap_plan.heads
    monkeypatch.delenv(SWITCH)
    monkeypatch.setattr(transformers, "__version__", f"{NEWEST_TESTED[0]}.{NEWEST_TESTED[1]}.7")
    load_patched(tmp_path)


def test_the_self_check_leaves_no_trace(future: None) -> None:
    plan = tiny.make_plan("llava-llama")
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    torch.set_default_dtype(torch.bfloat16)
    try:
        prove(config_of("llava-llama", plan), plan)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("version", ["5.18.2", "5.19.0", "5.24.3", "5.25.0.dev0", "6.0.0rc1"])
def test_which_versions_are_taken(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lostattn.patches import compat
    from lostattn.patches.compat import check_versions

    monkeypatch.setattr(compat.transformers, "__version__", version)
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    if version.startswith("5.18"):
        with pytest.raises(LostattnError, match="pip install 'transformers>=5.19,<"):
            check_versions()
    else:
        check_versions()


def test_the_range_is_that_of_the_project() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    (wanted,) = [d for d in project["project"]["dependencies"] if d.startswith("transformers")]
    assert SpecifierSet(wanted.removeprefix("transformers")) == SpecifierSet(
        tested_range().removeprefix("transformers")
    )
