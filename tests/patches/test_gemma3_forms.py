"""Gemma 3 inside the model: windows shorter than an image and than the way between two, chunks, padding, batches, caches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from transformers import StaticCache

WINDOWS = (3, 12, 20, 512)  # an image has 9 tokens
Plain = Callable[[str], Any]
Inputs = dict[str, torch.Tensor]


def models(plain: Plain, window: int, **plan: Any) -> tuple[Any, Any]:
    """A patched model with that window, and its eager copy in float64."""
    base = copy.deepcopy(plain("gemma3"))
    base.config.text_config.sliding_window = window
    model = tiny.make_patched(base, tiny.make_plan("gemma3", **plan))
    exact = tiny.exact(model)
    exact.sap_settings.force("eager")
    return model, exact


def prompt(gaps: tuple[int, ...], seed: int = 0) -> Inputs:
    """Text of these lengths, an image between each two."""
    g = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    for i, gap in enumerate(gaps):
        ids += [tiny.IMAGE] * 9 * (i > 0) + torch.randint(3, 140, (gap,), generator=g).tolist()
    input_ids = torch.tensor([ids])
    inputs = tiny.TINY["gemma3"].inputs(input_ids, len(gaps) - 1, g)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **inputs}


def logits(model: Any, inputs: Inputs, **more: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**inputs, **more).logits
    return found


@pytest.mark.parametrize("queries", ["all", "after_image"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("gaps", [(3, 30, 15), (0, 2, 1, 40), (25, 1)], ids=str)
def test_prompts(gaps: tuple[int, ...], window: int, queries: str, plain: Plain) -> None:
    model, exact = models(plain, window, queries=queries)
    inputs = prompt(gaps)
    wanted = logits(exact, inputs)
    assert (logits(model, inputs) - wanted).abs().max() < tiny.rounding("gemma3")
    assert set(model.sap_settings.counts) == {"closed"}
    assert (wanted - logits(plain("gemma3"), inputs))[0, -1].abs().max() > 1e-3 or window < min(gaps[1:])


@pytest.mark.parametrize("window", WINDOWS)
def test_chunks_of_text_behind_images(window: int, plain: Plain) -> None:
    """Several rows on a cache, until windows have left the images behind."""
    model, exact = models(plain, window)
    model.sap_settings.force("closed")
    inputs = prompt((3, 14, 30))
    wanted = logits(exact, inputs)
    first = 3 + 9 + 14 + 9 + 2
    head = {k: v[:, :first] if k in tiny.PER_TOKEN else v for k, v in inputs.items()}
    with torch.no_grad():
        out = model(**head, use_cache=True)
        found = [out.logits]
        for size in (1, 5, 2, 1, 19):
            start = sum(x.shape[1] for x in found)
            ids = inputs["input_ids"][:, start : start + size]
            found.append(model(input_ids=ids, past_key_values=out.past_key_values).logits)
    assert (torch.cat(found, 1) - wanted).abs().max() < tiny.rounding("gemma3")
    assert set(model.sap_settings.counts) == {"closed"}


@pytest.mark.parametrize("window", WINDOWS)
def test_batches(window: int, plain: Plain) -> None:
    """Images at the same places run in closed form; padding takes the any-mask form, with the same logits."""
    model, _ = models(plain, window)
    prompts = [prompt((3, 14, 9), seed) for seed in range(3)]
    alone = [logits(model, p) for p in prompts]
    model.sap_settings.counts.clear()
    batch = logits(model, {k: torch.cat([p[k] for p in prompts]) for k in prompts[0]})
    assert (batch - torch.cat(alone)).abs().max() < tiny.rounding("gemma3")
    assert set(model.sap_settings.counts) == {"closed"}
    padded = logits(model, tiny.left_pad([prompts[0], prompt((8, 20, 9))]))
    assert (padded[:1, -prompts[0]["input_ids"].shape[1] :] - alone[0]).abs().max() < tiny.rounding("gemma3")
    assert set(model.sap_settings.counts) == {"closed", "any_mask"}


@pytest.mark.parametrize("window", WINDOWS)
def test_a_second_image_in_a_later_turn(window: int, plain: Plain) -> None:
    """Whatever mask transformers makes of it, the forms agree."""
    model, exact = models(plain, window)
    turns = [prompt((3, 6)), prompt((2, 7), seed=1)]
    found = []
    for one in (model, exact):
        with torch.no_grad():
            out = one(**turns[0], use_cache=True)
            both = torch.cat([t["attention_mask"] for t in turns], 1)
            found.append(one(**{**turns[1], "attention_mask": both}, past_key_values=out.past_key_values).logits)
    assert (found[0] - found[1]).abs().max() < tiny.rounding("gemma3")


@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
@pytest.mark.parametrize("window", WINDOWS)
def test_generation(window: int, cache: str, plain: Plain) -> None:
    model, exact = models(plain, window)
    inputs = prompt((3, 14, 5))
    how: dict[str, Any] = {
        "max_new_tokens": 24,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    wanted = torch.stack(exact.generate(**inputs, **how).logits)
    if cache == "static":
        how["past_key_values"] = StaticCache(model.config.get_text_config(), max_cache_len=80)
    got = torch.stack(model.generate(**inputs, **how, **({"use_cache": False} if cache == "none" else {})).logits)
    assert (got - wanted).abs().max() < 2 * tiny.rounding("gemma3")
    assert "closed" in model.sap_settings.counts


def test_prompts_without_token_types_are_causal(plain: Plain) -> None:
    """transformers then shows image tokens what lies in front of them alone; a window that cuts images takes any-mask form."""
    for window, forms in ((512, {"closed"}), (12, {"closed", "any_mask"})):
        model, exact = models(plain, window)
        inputs = {k: v for k, v in prompt((3, 14, 9)).items() if k != "token_type_ids"}
        assert (logits(model, inputs) - logits(exact, inputs)).abs().max() < tiny.rounding("gemma3")
        assert set(model.sap_settings.counts) == forms
