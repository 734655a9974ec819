"""Patched models under `generate`: batches, beams, caches of every kind, state that must not leak."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from lostattn.patches import LostattnError
from lostattn.patches.plan import Band
from transformers import DynamicCache, StaticCache

# random models may say the placeholder itself, which transformers then counts as an image
GREEDY = {"do_sample": False, "max_new_tokens": 8, "suppress_tokens": [tiny.IMAGE, tiny.VIDEO]}
WATCH = {**GREEDY, "output_logits": True, "return_dict_in_generate": True}


@pytest.fixture(params=tiny.ONE_PER_FAMILY)
def name(request):
    return request.param


@pytest.fixture
def model(name, plain):
    return tiny.make_patched(plain(name), tiny.make_plan(name))


def logits(output):
    return torch.stack(output.logits, 1)


def new_tokens(model, inputs, **kwargs):
    return model.generate(**inputs, **kwargs)[:, inputs["input_ids"].shape[1] :]


@pytest.fixture
def near(name):
    return lambda a, b: (a - b).abs().max() < tiny.rounding(name)


@pytest.mark.parametrize("mode", ["patch_complexity", "vision_attention", "noise"])
def test_left_padded_batch_equals_single_prompts(name, mode, plain, near):
    model = tiny.make_patched(plain(name), tiny.make_plan(name, mode))
    prompts = [
        tiny.make_inputs(name, images=1, seed=1),
        tiny.make_inputs(name, images=2, seed=2),
        tiny.make_inputs(name, images=0),
    ]
    got = logits(model.generate(**tiny.left_pad(prompts), **WATCH))
    for i, prompt in enumerate(prompts):
        assert near(got[i], logits(model.generate(**prompt, **WATCH))[0])
    assert not near(got[0], logits(plain(name).generate(**prompts[0], **WATCH))[0])


def test_the_cached_run_equals_the_run_without_cache(name, model, near):
    inputs = tiny.make_inputs(name, 2)
    cached = logits(model.generate(**inputs, **WATCH))
    assert near(cached, logits(model.generate(**inputs, **WATCH, use_cache=False)))
    assert model.sap_settings.counts["closed"] > 0


@pytest.mark.parametrize("queries", ["all", "after_image", "last"])
def test_beams(name, queries, plain):
    model = tiny.make_patched(plain(name), tiny.make_plan(name, queries=queries))
    prompts = [tiny.make_inputs(name, images=1, seed=1), tiny.make_inputs(name, images=2, seed=2)]
    batch = new_tokens(model, tiny.left_pad(prompts), **GREEDY, num_beams=3)
    for i, prompt in enumerate(prompts):
        assert torch.equal(batch[i], new_tokens(model, prompt, **GREEDY, num_beams=3)[0])
    if (
        queries != "last" and not model._is_stateful
    ):  # without a cache every step sees a longer prompt, so "last" means another row
        assert torch.equal(batch, new_tokens(model, tiny.left_pad(prompts), **GREEDY, num_beams=3, use_cache=False))


def test_returned_sequences(name, model):
    inputs = tiny.left_pad([tiny.make_inputs(name, images=1, seed=1), tiny.make_inputs(name, images=2, seed=2)])
    torch.manual_seed(0)
    drawn = model.generate(**inputs, max_new_tokens=3, do_sample=True, num_return_sequences=2)
    assert drawn.shape[0] == 4


def test_static_cache(name, model, near, plain):
    inputs = tiny.left_pad([tiny.make_inputs(name, images=1, seed=1), tiny.make_inputs(name, images=2, seed=2)])
    told = dict(inputs)
    if name == "gemma4":  # transformers 5.19 makes the masks for a static cache without a look at where images are
        ways = [plain(name).generate(**inputs, **WATCH, cache_implementation=way) for way in ("static", "dynamic")]
        if not near(*map(logits, ways)):
            del told["mm_token_type_ids"]
    wanted = logits(model.generate(**told, **WATCH))
    assert near(logits(model.generate(**inputs, **WATCH, cache_implementation="static")), wanted)
    single = tiny.make_inputs(name)
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=128)
    first = logits(model.generate(**single, **WATCH, past_key_values=cache))
    cache.reset()
    text = tiny.make_inputs(name, images=0)
    after_reset = logits(model.generate(**text, **WATCH, past_key_values=cache))
    assert near(after_reset, logits(model.generate(**text, **WATCH)))
    cache.reset()
    assert near(logits(model.generate(**single, **WATCH, past_key_values=cache)), first)


@pytest.mark.parametrize("queries", ["all", "last"])
def test_assisted_decoding_equals_greedy(name, queries, plain):
    model = tiny.make_patched(plain(name), tiny.make_plan(name, queries=queries))
    inputs = tiny.make_inputs(name, 2)
    if model._is_stateful:  # transformers takes no token back from a state of fixed size
        with pytest.raises(ValueError, match="stateful"):
            new_tokens(model, inputs, **GREEDY, prompt_lookup_num_tokens=3)
        return
    wanted = new_tokens(model, inputs, **GREEDY)
    assert torch.equal(new_tokens(model, inputs, **GREEDY, prompt_lookup_num_tokens=3), wanted)
    assert torch.equal(new_tokens(model, inputs, **GREEDY, assistant_model=copy.deepcopy(model)), wanted)
    assert torch.equal(new_tokens(model, inputs, **GREEDY, assistant_model=plain(name)), wanted)


def test_assisted_decoding_with_a_dynamic_band_is_refused(plain):
    name = "llava-llama"
    plan = tiny.make_plan(name, heads={1: ()}, band=Band(0.3, 0.6, "score"), queries="last")
    with pytest.raises(LostattnError, match="static heads"):
        tiny.make_patched(plain(name), plan).generate(**tiny.make_inputs(name), **GREEDY, prompt_lookup_num_tokens=3)


def test_chunked_prefill_with_images_is_refused(name, model):
    with pytest.raises(LostattnError, match="prefill_chunk_size"):
        model.generate(**tiny.make_inputs(name), **GREEDY, prefill_chunk_size=8)


def _extended(name, inputs, ids):
    out = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for key in ("mm_token_type_ids", "token_type_ids"):
        if key in inputs:
            out[key] = (ids == tiny.IMAGE).int()
    return out


def test_continued_chat_with_text(name, model, near):
    inputs = tiny.make_inputs(name)
    cache = DynamicCache(config=model.config.get_text_config())
    turn = model.generate(**inputs, **GREEDY, past_key_values=cache)
    ids = torch.cat([turn, torch.tensor([[5, 6, 7, 8]])], 1)
    kept = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, **WATCH)
    assert near(logits(kept), logits(model.generate(**_extended(name, inputs, ids), **WATCH)))


def test_continued_chat_with_a_new_image(plain, near):
    """Only where plain transformers can do it: Qwen2.5-VL itself places the second image wrongly."""
    name = "llava-llama"
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs, second = tiny.make_inputs(name, seed=1), tiny.make_inputs(name, seed=2)
    cache = DynamicCache(config=model.config.get_text_config())
    turn = model.generate(**inputs, **GREEDY, past_key_values=cache)
    ids = torch.cat([turn, second["input_ids"]], 1)
    kept = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=second["pixel_values"],
        past_key_values=cache,
        **WATCH,
    )
    both = {**_extended(name, inputs, ids), "pixel_values": torch.cat([inputs["pixel_values"], second["pixel_values"]])}
    assert near(logits(kept), logits(model.generate(**both, **WATCH)))


def test_copied_cropped_and_parallel_caches(name, model, near):
    a, b = tiny.make_inputs(name, seed=1), tiny.make_inputs(name, seed=2)
    token = torch.tensor([[9]])

    def step(cache, ids=token):
        with torch.no_grad():
            return model(input_ids=ids, past_key_values=cache).logits[:, -1]

    with torch.no_grad():
        cache_a, cache_b = (model(**x, use_cache=True).past_key_values for x in (a, b))
        copied = copy.deepcopy(cache_a)
        alone = step(model(**a, use_cache=True).past_key_values)
        assert near(step(cache_b), step(model(**b, use_cache=True).past_key_values))  # the other cache is alive
        assert near(step(copied), alone)
        if model._is_stateful:  # transformers crops no state of fixed size
            return
        step(cache_a, torch.tensor([[5, 6, 7]]))
        cache_a.crop(-3)
        assert near(step(cache_a), alone)
        # crop into the image and read on: as if the prompt had ended there
        length = 8
        cache_a.crop(length - cache_a.get_seq_length())
        cut = {k: v[:, :length] if k in tiny.PER_TOKEN else v for k, v in a.items()}
        if name == "llava-llama":
            cut["pixel_values"] = a["pixel_values"]
            with pytest.raises((ValueError, RuntimeError)):  # transformers wants whole images
                model(**cut)
        assert torch.isfinite(step(cache_a)).all()
        cache_a.crop(2 - cache_a.get_seq_length())
        prompt = a["input_ids"][:, :2]
        if not hasattr(model.model, "rope_deltas"):  # with them, positions are taken from the state of the last prompt
            assert near(step(cache_a), model(input_ids=torch.cat([prompt, token], 1)).logits[:, -1])


def test_text_after_an_image_is_plain(name, model, plain):
    text = tiny.make_inputs(name, images=0, before=30, after=30)
    model.generate(**tiny.make_inputs(name), **GREEDY)
    fresh = copy.deepcopy(plain(name))
    assert torch.equal(logits(model.generate(**text, **WATCH)), logits(fresh.generate(**text, **WATCH)))


def test_manual_loop_without_passing_a_cache(name, model, near):
    inputs = tiny.make_inputs(name)
    with torch.no_grad():
        out = model(**inputs)
        token = out.logits[:, -1:].argmax(-1)
        again = model(input_ids=token, past_key_values=out.past_key_values).logits[:, -1]
    assert near(again, logits(model.generate(**inputs, **WATCH))[:, 1])


@pytest.mark.parametrize("copied", [False, True])
def test_samples_moved_inside_a_cache_take_their_prior_along(name, model, copied, near):
    if model._is_stateful:
        pytest.skip("transformers moves no state of fixed size inside a cache")
    prompts = [tiny.make_inputs(name, images=1, seed=1), tiny.make_inputs(name, images=2, seed=2)]
    tokens = torch.tensor([[9], [11]])

    def fresh():
        cache = model(**tiny.left_pad(prompts), use_cache=True).past_key_values
        return copy.deepcopy(cache) if copied else cache

    def step(cache, ids):
        mask = torch.cat([tiny.left_pad(prompts)["attention_mask"][rows], torch.ones(len(ids), 1).long()], 1)
        extra = {"position_ids": torch.zeros(3, len(ids), 1).long()} if hasattr(model.model, "rope_deltas") else {}
        return model(input_ids=ids, attention_mask=mask, past_key_values=cache, **extra).logits[:, -1]

    with torch.no_grad():
        rows = [0, 1]
        wanted = step(fresh(), tokens)
        cache, rows = fresh(), [1, 0]
        cache.batch_select_indices(torch.tensor(rows))
        assert near(step(cache, tokens[rows]), wanted[rows])
        cache, rows = fresh(), [0, 0, 1, 1]
        cache.batch_repeat_interleave(2)
        assert near(step(cache, tokens[rows]), wanted[rows])
        cache, rows = fresh(), [0]
        with pytest.raises(LostattnError, match="2 samples but the input has 1"):
            step(cache, tokens[:1])


def test_embeddings_instead_of_ids(plain, near):
    name = "llava-llama"
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs = tiny.make_inputs(name)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with torch.no_grad():
        got = model(
            inputs_embeds=embeds, pixel_values=inputs["pixel_values"], attention_mask=inputs["attention_mask"]
        ).logits
        assert near(got, model(**inputs).logits)


def test_sliding_window_decoder(plain, near):
    """A Mistral decoder whose window is shorter than the prompt: the any-mask form takes over, and says so."""
    name = "llava-mistral"
    plain_model = copy.deepcopy(plain(name))
    plain_model.config.text_config.sliding_window = 12
    model = tiny.make_patched(plain_model, tiny.make_plan(name))
    exact = tiny.exact(model)
    exact.sap_settings.force("eager")
    inputs = tiny.make_inputs(name, 2)
    got, wanted = logits(model.generate(**inputs, **WATCH)), logits(exact.generate(**inputs, **WATCH))
    assert near(got, wanted)
    assert "any_mask" in model.sap_settings.counts
    assert near(got, logits(model.generate(**inputs, **WATCH, use_cache=False)))
