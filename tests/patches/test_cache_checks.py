"""State and cache check each other in every call: each way in which they can part is made to happen, and is an error."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any

import pytest
import tiny
import torch
import transformers
from lostattn.patches import LostattnError, use_prior
from lostattn.patches.attention import sap_attention_forward
from lostattn.patches.call import CacheState
from transformers import DynamicCache
from transformers.cache_utils import Cache

NAME = "llava-llama"
TOKEN = torch.tensor([[9]])
NEW = "cache" in inspect.signature(transformers.LlavaForConditionalGeneration.forward).parameters
OURS = "cache" if NEW else "past_key_values"


@pytest.fixture
def model(plain: Any) -> Any:
    return tiny.make_patched(plain(NAME), tiny.make_plan(NAME))


def run(model: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        return model(**kwargs)


def cache_of(out: Any) -> Any:
    return out.cache if NEW else out.past_key_values


@pytest.mark.parametrize("given", ["cache", "past_key_values"])
@pytest.mark.parametrize("name", tiny.ONE_PER_FAMILY)
def test_cached_decoding_equals_a_pass_without_a_cache_by_both_names(name: str, given: str, plain: Any) -> None:
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs = tiny.make_inputs(name)
    cut = inputs["input_ids"].shape[1] - 3
    prompt = {k: v[:, :cut] if k in tiny.PER_TOKEN else v for k, v in inputs.items()}
    cache = DynamicCache(config=model.config.get_text_config())
    parts = [run(model, **prompt, **{given: cache}).logits]
    for i in range(cut, cut + 3):
        parts.append(run(model, input_ids=inputs["input_ids"][:, i : i + 1], **{given: cache}).logits)
    wanted = run(model, **inputs, use_cache=False).logits
    assert (torch.cat(parts, 1) - wanted).abs().max() < tiny.rounding(name)
    assert cache.get_seq_length() == cut + 3 and cache.sap_state.length == cut + 3


@pytest.mark.parametrize("given", ["cache", "past_key_values"])
def test_generate_takes_both_names(model: Any, given: str) -> None:
    inputs = tiny.make_inputs(NAME)
    cache = DynamicCache(config=model.config.get_text_config())
    first = model.generate(**inputs, max_new_tokens=4, do_sample=False, **{given: cache})
    assert torch.equal(first, model.generate(**inputs, max_new_tokens=4, do_sample=False, use_cache=False))
    assert cache.get_seq_length() == first.shape[1] - 1


def test_two_caches_and_what_is_none(model: Any) -> None:
    inputs = tiny.make_inputs(NAME)
    with pytest.raises(LostattnError, match="two caches"):
        run(model.model, **inputs, cache=DynamicCache(), past_key_values=DynamicCache())
    with pytest.raises(LostattnError, match="is a tuple, not a cache"):
        run(model.model, **inputs, **{OURS: ((torch.zeros(1), torch.zeros(1)),)})


def test_arguments_by_position(model: Any) -> None:
    inputs = tiny.make_inputs(NAME)
    order = [n for n in inspect.signature(type(model.model).__mro__[2].forward).parameters if n != "self"]
    assert order[0] == "input_ids"
    given = [inputs.get(name) for name in order[: 1 + max(order.index(name) for name in inputs)]]
    wanted = run(model.model, **inputs).last_hidden_state
    with torch.no_grad():
        assert torch.equal(model.model(*given).last_hidden_state, wanted)


def test_a_text_prefix_that_the_patched_model_has_read(model: Any) -> None:
    inputs, cache = tiny.make_inputs(NAME), DynamicCache(config=model.config.get_text_config())
    run(model, input_ids=inputs["input_ids"][:, :2], **{OURS: cache})
    rest = {**inputs, "input_ids": inputs["input_ids"][:, 2:]}
    got = run(model, **rest, **{OURS: cache}).logits
    assert (got - run(model, **inputs).logits[:, 2:]).abs().max() < 2e-4


@pytest.mark.parametrize("images", [0, 1])
def test_a_cache_that_another_model_has_filled(model: Any, plain: Any, images: int) -> None:
    cache = cache_of(run(plain(NAME), **tiny.make_inputs(NAME, images), use_cache=True))
    with pytest.raises(LostattnError, match="of another model, of which this model kept no state: begin with an empty"):
        run(model, input_ids=TOKEN, **{OURS: cache})


def test_a_cache_of_a_model_with_another_plan(model: Any, plain: Any) -> None:
    other = tiny.make_patched(plain(NAME), tiny.make_plan(NAME, heads={1: (0,)}))
    cache = cache_of(run(other, **tiny.make_inputs(NAME), use_cache=True))
    with pytest.raises(LostattnError, match="another plan"):
        run(model, input_ids=TOKEN, **{OURS: cache})
    twin = tiny.make_patched(plain(NAME), tiny.make_plan(NAME))
    cache = cache_of(run(twin, **tiny.make_inputs(NAME), use_cache=True))
    assert torch.isfinite(run(model, input_ids=TOKEN, **{OURS: cache}).logits).all()


def longer_cache(model: Any, plain: Any, cache: Any) -> None:
    """Tokens that the plain model adds."""
    run(plain(NAME), input_ids=TOKEN, **{OURS: cache})


def shorter_cache(model: Any, plain: Any, cache: Any) -> None:
    """Tokens dropped layer by layer, behind the cache's own methods."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :-2], layer.values[:, :, :-2]


def borrowed_state(model: Any, plain: Any, cache: Any) -> None:
    """The state of a longer cache."""
    longer = cache_of(run(model, **tiny.make_inputs(NAME, 2), use_cache=True))
    cache.sap_state = longer.sap_state


def lost_state(model: Any, plain: Any, cache: Any) -> None:
    """No state at all."""
    del cache.sap_state


def foreign_state(model: Any, plain: Any, cache: Any) -> None:
    """The state of another copy of the code."""
    cache.sap_state = type("CacheState", (), {})()


@pytest.mark.parametrize("change", [longer_cache, shorter_cache, borrowed_state, lost_state, foreign_state])
@pytest.mark.parametrize("images", [0, 1])
def test_a_cache_that_was_changed_behind_its_state(model: Any, plain: Any, change: Any, images: int) -> None:
    cache = cache_of(run(model, **tiny.make_inputs(NAME, images), use_cache=True))
    change(model, plain, cache)
    with pytest.raises(LostattnError, match="begin with an empty cache"):
        run(model, input_ids=TOKEN, **{OURS: cache})


def test_reset_and_crop_are_followed(model: Any) -> None:
    inputs = tiny.make_inputs(NAME)
    wanted = run(model, **inputs).logits
    for copied in (False, True):
        cache = cache_of(run(model, **inputs, use_cache=True))
        cache = copy.deepcopy(cache) if copied else cache
        cache.crop(-3)
        assert cache.sap_state.length == cache.get_seq_length() == inputs["input_ids"].shape[1] - 3
        got = run(model, input_ids=inputs["input_ids"][:, -3:], **{OURS: cache}).logits
        assert (got - wanted[:, -3:]).abs().max() < 2e-4


def test_the_decoder_alone_is_refused(model: Any) -> None:
    with pytest.raises(LostattnError, match="call the whole model"):
        run(model.model.language_model, inputs_embeds=torch.randn(1, 5, 64))


def test_arguments_that_do_not_reach_the_layers(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a transformers would do that hands down only what it knows."""
    decoder = type(model.model.language_model)
    plain = decoder.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("sap_call")
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(decoder, "forward", forward)
    for images in (0, 1):
        with pytest.raises(LostattnError, match=transformers.__version__):
            run(model, **tiny.make_inputs(NAME, images))


@pytest.mark.parametrize("what", ["pixel_values", "mm_encoder_outputs", "attention_mask", "input_ids", "inputs_embeds"])
def test_a_transformers_that_renames_an_argument(model: Any, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    base = type(model.model).__mro__[2]
    plain = base.forward
    signature = inspect.signature(plain)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(self, *args, **{what if k == f"new_{what}" else k: v for k, v in kwargs.items()})

    renamed = [p.replace(name=f"new_{p.name}") if p.name == what else p for p in signature.parameters.values()]
    forward.__signature__ = signature.replace(parameters=renamed)  # type: ignore[attr-defined]
    monkeypatch.setattr(base, "forward", forward)
    with pytest.raises(LostattnError, match=f"has no argument {what} in"):
        run(model, **tiny.make_inputs(NAME))


@pytest.mark.parametrize("hidden", ["name", "class"])
def test_a_transformers_that_renames_the_cache(model: Any, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    """By another name it is found by its class; if the class is another one too, that is an error, never another answer."""
    base = type(model.model).__mro__[2]
    plain, signature = base.forward, inspect.signature(base.forward)
    inputs = tiny.make_inputs(NAME)
    wanted = run(model, **inputs).logits

    def forward(self: Any, *args: Any, kv_memory: Any = None, **kwargs: Any) -> Any:
        cache = kv_memory.inside if isinstance(kv_memory, Box) else kv_memory
        out = plain(self, *args, **kwargs, **{OURS: cache})
        return out

    class Box:  # a cache that is no transformers.Cache any more
        def __init__(self, inside: Any) -> None:
            self.inside = inside

    names = {"cache", "past_key_values"}
    renamed = [p.replace(name="kv_memory") if p.name in names else p for p in signature.parameters.values()]
    forward.__signature__ = signature.replace(parameters=renamed)  # type: ignore[attr-defined]
    monkeypatch.setattr(base, "forward", functools.wraps(forward)(forward))
    cache = DynamicCache(config=model.config.get_text_config())
    given = Box(cache) if hidden == "class" else cache
    cut = inputs["input_ids"].shape[1] - 1
    prompt = {k: v[:, :cut] if k in tiny.PER_TOKEN else v for k, v in inputs.items()}
    first = run(model.model, **prompt, kv_memory=given)
    assert torch.isfinite(first.last_hidden_state).all()
    last = {"input_ids": inputs["input_ids"][:, -1:], "kv_memory": given}
    if hidden == "name":
        got = model.lm_head(run(model.model, **last).last_hidden_state)
        assert (got - wanted[:, -1:]).abs().max() < 2e-4
    else:
        with pytest.raises(LostattnError, match="1 query rows and .* keys"):
            run(model.model, **last)


@pytest.mark.parametrize("what", ["get_seq_length", "get_mask_sizes"])
@pytest.mark.parametrize("how", ["gone", "other arguments"])
def test_a_transformers_whose_caches_answer_otherwise(
    model: Any, monkeypatch: pytest.MonkeyPatch, what: str, how: str
) -> None:
    cache = DynamicCache(config=model.config.get_text_config())
    if how == "gone":
        monkeypatch.delattr(Cache, what)
    else:
        monkeypatch.setattr(Cache, what, lambda self, *, of_layer: 0)
    with pytest.raises(LostattnError, match=f"DynamicCache of transformers .* has no {what}"):
        run(model, **tiny.make_inputs(NAME), **{OURS: cache})


def test_images_encoded_behind_the_patch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a transformers would do that encodes images from an argument of another name."""
    base = type(model.model).__mro__[2]
    plain = base.forward

    @functools.wraps(plain)
    def forward(self: Any, *args: Any, picture: Any = None, **kwargs: Any) -> Any:
        if picture is not None:
            kwargs["mm_encoder_outputs"] = {"image": self.get_image_features(picture)}
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(base, "forward", forward)
    inputs = tiny.make_inputs(NAME)
    text = tiny.make_inputs(NAME, 0)
    with pytest.raises(LostattnError, match="placeholders but no image"):
        run(model.model, picture=inputs.pop("pixel_values"), **inputs)
    with pytest.raises(LostattnError, match="encodes images where"):
        run(model.model, picture=torch.randn(1, 3, 56, 56), **text)


def test_more_keys_than_the_call_knows_of(model: Any) -> None:
    """The attention function itself, called as a layer would that has another cache."""
    layer = model.model.language_model.layers[0].self_attn
    seen: dict[str, Any] = {}

    def watch(module: Any, args: Any, kwargs: Any) -> None:
        seen.update(kwargs)

    handle = layer.register_forward_pre_hook(watch, with_kwargs=True)
    run(model, **tiny.make_inputs(NAME))
    handle.remove()
    call, rows = seen["sap_call"], seen["sap_call"].size
    q, k = torch.randn(1, 4, rows, 16), torch.randn(1, 2, rows, 16)
    sap_attention_forward(layer, q, k, k, None, sap_call=call)
    more = torch.randn(1, 2, rows + 4, 16)
    with pytest.raises(LostattnError, match=f"{rows} query rows and {rows + 4} keys"):
        sap_attention_forward(layer, q, more, more, None, sap_call=call)
    with pytest.raises(LostattnError, match="1 query rows"):
        sap_attention_forward(layer, q[:, :, :1], k, k, None, sap_call=call)


def test_placeholders_without_an_image(model: Any) -> None:
    inputs = tiny.make_inputs(NAME)
    del inputs["pixel_values"]
    with pytest.raises(LostattnError, match="16 image placeholders but no image: give pixel_values"):
        run(model, **inputs)


def test_a_copied_state_stays_its_own() -> None:
    state = CacheState(torch.tensor([[torch.nan, 1.0, 2.0]]), length=5, plan="x")
    assert state.cropped(2).prior.tolist()[0][1] == 1.0 and state.cropped(2).length == 2
    assert not state.cropped(1).has_image and state.has_image and state.length == 5


# --- embeddings that already hold the image ---------------------------------------------------------------------------


def embedded(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Embeddings with the image's features in place, and the scores that the model gives the image."""
    kept = {k: v for k, v in inputs.items() if k in inspect.signature(model.model.get_image_features).parameters}
    image = model.model.get_image_features(**kept)
    features = image.pooler_output
    features = features.flatten(0, 1) if isinstance(features, torch.Tensor) else torch.cat(list(features))
    embeds = model.get_input_embeddings()(inputs["input_ids"].clamp(max=199)).clone()
    embeds[inputs["input_ids"] == tiny.IMAGE] = features.reshape(-1, embeds.shape[-1])
    return embeds, image["sap_prior"]


@pytest.mark.parametrize("name", [n for n in tiny.ONE_PER_FAMILY if not n.startswith(("gemma3", "qwen3_vl"))])
def test_features_in_embeddings_run_patched_where_the_caller_says_where(name: str, plain: Any) -> None:
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs = tiny.make_inputs(name)
    if hasattr(model.model, "rope_deltas"):  # places that Qwen works out from ids alone
        inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
    with torch.no_grad():
        wanted = model(**inputs).logits
        embeds, scores = embedded(model, inputs)
    mask = inputs["input_ids"] == tiny.IMAGE
    rest = {
        k: v for k, v in inputs.items() if k not in ("input_ids", "pixel_values", "pixel_attention_mask", "image_sizes")
    }
    with pytest.raises(LostattnError, match="needs the pixels|say where"):
        run(model, inputs_embeds=embeds, **rest)
    with use_prior(model, scores, kind="scores", mask=mask):
        assert (run(model, inputs_embeds=embeds, **rest).logits - wanted).abs().max() < tiny.rounding(name)
    kinds = {**rest, "mm_token_type_ids": mask.int()}
    with use_prior(model, scores, kind="scores"):
        assert (run(model.model, inputs_embeds=embeds, **kinds).last_hidden_state).isfinite().all()
        got = run(model.model, inputs_embeds=embeds, **kinds).last_hidden_state
        assert (model.lm_head(got) - wanted).abs().max() < tiny.rounding(name)


def test_embeddings_without_a_word_are_refused(model: Any, plain: Any) -> None:
    text = tiny.make_inputs(NAME, 0)
    embeds = model.get_input_embeddings()(text["input_ids"])
    with pytest.raises(LostattnError, match="inputs_embeds may hold the features of images"):
        run(model, inputs_embeds=embeds)
    wanted = run(plain(NAME), inputs_embeds=embeds).logits
    zeros = torch.zeros_like(text["input_ids"])
    assert torch.equal(run(model, inputs_embeds=embeds, mm_token_type_ids=zeros).logits, wanted)
    with use_prior(model, []):
        assert torch.equal(run(model, inputs_embeds=embeds).logits, wanted)


def test_modes_without_pixels_need_no_prior_of_the_caller(plain: Any) -> None:
    model = tiny.make_patched(plain(NAME), tiny.make_plan(NAME, "uniform"))
    inputs = tiny.make_inputs(NAME)
    with torch.no_grad():
        embeds, _ = embedded(model, inputs)
    mask = inputs["input_ids"] == tiny.IMAGE
    got = run(model, inputs_embeds=embeds, mm_token_type_ids=mask.int()).logits
    assert (got - run(model, **inputs).logits).abs().max() < 2e-4


def test_wrong_words_about_embeddings(model: Any) -> None:
    inputs = tiny.make_inputs(NAME)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    mask = inputs["input_ids"] == tiny.IMAGE
    with pytest.raises(LostattnError, match="one per token"), use_prior(model, [torch.rand(16)], mask=mask[:, 1:]):
        run(model, inputs_embeds=embeds)
    with (
        pytest.raises(LostattnError, match="15 numbers but .* 16 visual"),
        use_prior(model, [torch.rand(15)], mask=mask),
    ):
        run(model, inputs_embeds=embeds)
    with pytest.raises(LostattnError, match="bool tensor"), use_prior(model, [torch.rand(16)], mask=mask.int()):
        pass
