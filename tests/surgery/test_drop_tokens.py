"""Token pruning masks what would be dropped: held against a decoder that really loses the tokens."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from lostattn.surgery.efficient.drop_tokens import TokenDrop, drop_for, dropping


def pruned_logits(model: Any, inputs: dict[str, torch.Tensor], drop: TokenDrop) -> torch.Tensor:
    """Logits of the last token: layers from `drop.layer` on run on the tokens that are left, nothing else."""
    text = model.model.language_model
    seen: dict[str, Any] = {}

    def keep(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        seen.setdefault("states", []).append((named.get("hidden_states", arguments[0] if arguments else None), named))

    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in text.layers]
    model.set_attn_implementation("eager")
    out = model(**inputs, use_cache=False, output_attentions=True)
    for hook in hooks:
        hook.remove()
    states, named = seen["states"][drop.layer]
    visual = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    weight = out.attentions[drop.layer - 1][0, :, -1].mean(0)[visual]
    lowest = visual[weight.argsort()[: round(drop.share * len(visual))]]
    left = torch.tensor([i for i in range(states.shape[1]) if i not in lowest.tolist()])
    cos, sin = named["position_embeddings"]
    where = [i for i in range(cos.ndim) if cos.shape[i] == states.shape[1]][-1]
    cos, sin = cos.index_select(where, left), sin.index_select(where, left)
    mask = torch.full((len(left), len(left)), -torch.inf, dtype=states.dtype).triu(1)[None, None]
    states = states[:, left]
    for layer in text.layers[drop.layer :]:
        states = layer(states, attention_mask=mask, position_embeddings=(cos, sin))
        states = states[0] if isinstance(states, tuple) else states
    model.set_attn_implementation("sdpa")
    return model.lm_head(text.norm(states))[0, -1]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen2_vl"])
@pytest.mark.parametrize("drop", [TokenDrop(1, 0.5), TokenDrop(1, 0.9)], ids=lambda d: d.key)
def test_masked_is_dropped(name: str, drop: TokenDrop) -> None:
    model = tiny.make_plain(name).double().eval()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in tiny.make_inputs(name).items()}
    if len(inputs["input_ids"]) > 1:
        pytest.skip("the oracle takes one prompt")
    plain = model(**inputs, use_cache=False).logits
    with torch.no_grad():
        wanted = pruned_logits(model, inputs, drop)
        with dropping(model, drop):
            found = model(**inputs, use_cache=False).logits[0, -1]
            again = model(**inputs, use_cache=True)
        assert torch.equal(model(**inputs, use_cache=False).logits, plain), "the model is plain again"
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again.logits[0, -1], wanted, rtol=1e-4, atol=1e-5)
    assert (found - plain[0, -1]).abs().max() > 1e-6


def test_generation_goes_on_without_the_dropped() -> None:
    """Token by token beside a cache is the same as all at once."""
    model = tiny.make_plain("qwen2_5_vl").double().eval()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in tiny.make_inputs("qwen2_5_vl").items()}
    inputs = {k: v[:1] if k in ("input_ids", "attention_mask", "mm_token_type_ids") else v for k, v in inputs.items()}
    with dropping(model, TokenDrop(1, 0.0)), torch.no_grad():
        same = model(**inputs, use_cache=False).logits
    with torch.no_grad():
        torch.testing.assert_close(same, model(**inputs, use_cache=False).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [8, 28, 32])
@pytest.mark.parametrize("saved", [0.25, 0.5, 0.75])
def test_equal_savings(saved: float, layers: int) -> None:
    drop = drop_for(saved, layers)
    assert drop.saved(layers) == pytest.approx(saved) and drop.layer in (1, 2) and drop.share <= 1
