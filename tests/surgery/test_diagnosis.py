"""`lostattn diagnose`: what is captured, controls that leave no trace, resumption, the report."""

from __future__ import annotations

import hashlib
import json

import pytest
import tiny
import torch
from lostattn.patches import LostattnError
from lostattn.patches.family import decoder_of
from lostattn.surgery.chat import Chat, stack
from lostattn.surgery.demo.builtin import builtin_examples
from lostattn.surgery.demo.demo import MODEL
from lostattn.surgery.diagnosis.capture import NORMS, captured
from lostattn.surgery.diagnosis.controls import FFN, QKV, noise_update, noise_weights, without_rope
from lostattn.surgery.diagnosis.diagnose import DiagnosisSettings, diagnose
from lostattn.surgery.diagnosis.samples import MEASURES, Sample, measure_sample
from lostattn.surgery.diagnosis.summary import mean_of, verdict
from lostattn.surgery.measures import measure_step


@pytest.fixture(scope="module")
def chat():
    torch.set_num_threads(1)
    return Chat.load(MODEL, "float32")


def digest(model):
    found = hashlib.sha256()
    for name, x in sorted(model.state_dict().items()):
        found.update(name.encode() + x.contiguous().numpy().tobytes())
    return found.hexdigest()


def feed_forward(layer, states):
    """What a layer's feed-forward part adds, by the layer's own modules."""
    before = next(getattr(layer, n) for n in NORMS if hasattr(layer, n))
    behind = [getattr(layer, n) for n in ("post_feedforward_layernorm", "post_mlp_layernorm") if hasattr(layer, n)]
    return torch.nn.Sequential(before, layer.mlp, *behind)(states)


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("name", tiny.ONE_PER_FAMILY)
def test_captured_states_are_the_residual_stream(name, patched):
    model = tiny.make_plain(name)
    if patched:
        model = tiny.make_patched(model, tiny.make_plan(name))
    seen = []
    inputs, decoder = tiny.make_inputs(name), decoder_of(model.model)
    with torch.no_grad(), captured(model, seen.append):
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    assert [s.layer for s in seen] == list(range(len(decoder.layers)))
    # a deepstack adds to visual positions between layers, which transformers' hidden states do not show
    shown = inputs["input_ids"][0] != tiny.IMAGE if hasattr(decoder, "_deepstack_process") else slice(None)
    for i, states in enumerate(seen):
        assert torch.equal(states.before[:, shown], hidden[i][:, shown])
        assert torch.allclose(
            states.after, states.attention + feed_forward(decoder.layers[i], states.attention), atol=1e-5
        )
    before = len(seen)
    model(**tiny.make_inputs(name))
    assert len(seen) == before  # the hooks are gone


def test_weight_controls_restore_every_bit(chat):
    before = digest(chat.model)
    for names in (QKV, FFN):
        with noise_weights(chat.model, names) as replaced:
            assert len(replaced) == 3 * 8
            assert digest(chat.model) != before
        assert digest(chat.model) == before
        with pytest.raises(RuntimeError), noise_weights(chat.model, names):
            raise RuntimeError
        assert digest(chat.model) == before


def test_noise_weights_keep_moments_and_share_no_noise(chat):
    layers = chat.model.model.language_model.layers
    old = layers[1].self_attn.k_proj.weight.detach().clone()
    with noise_weights(chat.model, QKV, seed=3):
        k, v, k2 = (
            layers[i].self_attn.get_submodule(n).weight.clone()
            for i, n in ((1, "k_proj"), (1, "v_proj"), (2, "k_proj"))
        )
    assert abs(k.std() / old.std() - 1) < 0.05 and abs(k.mean() - old.mean()) < 0.05 * old.std()
    for other in (v, k2):
        assert abs(torch.corrcoef(torch.stack([k.flatten(), other.flatten()]))[0, 1]) < 0.1


def test_noise_update_has_the_moments_of_the_update():
    before, after = torch.randn(200, 50), torch.randn(200, 50) * 3 + 1
    noise = noise_update(before, after, 0) - before
    update = (after - before).double()
    assert abs(noise.mean() - update.mean()) < 0.1
    assert abs(noise.std() / update.std() - 1) < 0.05


def test_without_rope_is_position_zero_everywhere(chat):
    example = builtin_examples(1)[0]
    inputs = chat.encode(example.open(), example.question)
    zero = torch.zeros(3, 1, inputs["input_ids"].shape[1], dtype=torch.long)
    with torch.no_grad():
        wanted = chat.model(**inputs, position_ids=zero).logits
        with without_rope(chat.model):
            assert torch.allclose(chat.model(**inputs).logits, wanted, atol=1e-4)
        with without_rope(chat.model, [1]):
            both = chat.model(**stack([inputs, inputs])).logits
        assert torch.allclose(both[0], chat.model(**inputs).logits[0], atol=1e-4)
    assert torch.allclose(both[1], wanted[0], atol=1e-4)


@pytest.mark.parametrize("tokens", ["all", "visual", "text"])
def test_a_sample_is_what_the_measures_say(chat, tokens):
    example = builtin_examples(1)[0]
    sample = measure_sample(chat, example, tokens, True, 0)
    inputs = chat.encode(example.open(), example.question)
    visual = inputs["input_ids"][0] == chat.model.config.image_token_id
    rows = {"all": slice(None), "visual": visual, "text": ~visual}[tokens]
    seen = []
    with torch.no_grad(), captured(chat.model, seen.append):
        chat.model(**inputs)
    for i, states in enumerate(seen):
        step = measure_step(states.attention[0, rows], states.after[0, rows])
        wanted = torch.tensor([float(getattr(step, m)) for m in MEASURES])
        assert torch.allclose(torch.tensor(sample.rows["feed_forward"][i]), wanted, rtol=1e-3, atol=1e-5)
    assert set(sample.rows) == {"attention", "feed_forward", "noise_delta", "noise_qkv", "noise_ffn"}
    assert all(len(t) == 8 for t in sample.rows.values())
    assert sample.rope[0] is None and all(x > 0 for x in sample.rope[1:])
    with pytest.raises(LostattnError, match="all, visual, text"):
        DiagnosisSettings(tokens="image")


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    examples = builtin_examples(4)
    whole = diagnose([MODEL], examples, tmp_path / "a", DiagnosisSettings(), "test")
    from lostattn.surgery.diagnosis import diagnose as module

    real, calls = module.measure_sample, []

    def cut(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "measure_sample", cut)
    with pytest.raises(KeyboardInterrupt):
        diagnose([MODEL], examples, tmp_path / "b", DiagnosisSettings(), "test")
    resumed = diagnose([MODEL], examples, tmp_path / "b", DiagnosisSettings(), "test")
    assert len(calls) == 3 + 2
    assert resumed["models"] == whole["models"]
    other = diagnose([MODEL], examples[:2], tmp_path / "b", DiagnosisSettings(tokens="text"), "test")
    assert other["models"]["model"]["samples"] == 2


def test_an_interrupted_run_of_a_patched_model_counts_every_call(tmp_path, monkeypatch):
    """The report of a run that was cut is that of one that was not; numbers of an older kind are measured anew."""
    from lostattn.surgery import patch_checkpoint
    from lostattn.surgery.diagnosis import diagnose as module

    torch.set_num_threads(1)
    patch_checkpoint(MODEL, tmp_path / "sap", layers="1-5", heads="all", mode="uniform")
    examples = builtin_examples(3)
    whole = diagnose([tmp_path / "sap"], examples, tmp_path / "a", DiagnosisSettings(), "test")
    lines = (tmp_path / "a" / "sap.samples.jsonl").read_text().splitlines()
    (tmp_path / "a" / "sap.samples.jsonl").write_text("\n".join(lines[:3]) + "\n")
    resumed = diagnose([tmp_path / "sap"], examples, tmp_path / "a", DiagnosisSettings(), "test")
    assert resumed["models"] == whole["models"] and sum(whole["models"]["sap"]["paths"].values()) == 3 * 5
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    measured, real = [], module.measure_sample
    monkeypatch.setattr(module, "measure_sample", lambda *args: measured.append(1) or real(*args))
    diagnose([tmp_path / "sap"], examples, tmp_path / "a", DiagnosisSettings(), "test")
    assert len(measured) == 3


def test_report(tmp_path):
    from click.testing import CliRunner
    from lostattn.surgery import patch_checkpoint
    from lostattn.surgery.cli import main

    patch_checkpoint(MODEL, tmp_path / "sap", layers="1-5", heads="all")
    arguments = ["diagnose", str(tmp_path / "sap"), "--compare", str(MODEL), "--data", "builtin", "--samples", "3"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out"), "--controls", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report["models"]) == ["model", "sap"] and report["models"]["sap"]["paths"]["closed"] > 0
    page = (tmp_path / "out" / "diagnose.html").read_text()
    assert page.count("<svg") == 2 and "http:" not in page and "https:" not in page
    assert (tmp_path / "out" / "diagnose.csv").read_text().count("\n") == 495
    assert "MixIG minus" in (tmp_path / "out" / "diagnose.md").read_text()
    twice = CliRunner().invoke(
        main, ["diagnose", str(MODEL), str(MODEL), "--data", "builtin", "--out", str(tmp_path / "x")]
    )
    assert twice.exit_code == 2 and "same folder name" in twice.stderr


def test_intervals_and_verdicts():
    x = mean_of([1.0, 2.0, 3.0, 4.0])
    assert x.mean == 2.5 and abs(x.high - x.mean - 1.96 * (5 / 3) ** 0.5 / 2) < 1e-9
    assert mean_of([1.0]).low is None
    modules = {
        m: {"rid": {"mean": r}, "mixig": {"mean": g}}
        for m, r, g in (("attention", 0.1, 0.2), ("feed_forward", 0.3, 0.1))
    }
    lines = verdict({"modules": modules, "rope": {"mean": 0.06}})
    assert all("as the paper says" in line for line in lines)
    modules["attention"]["rid"]["mean"] = 0.9
    assert sum("against the paper" in line for line in verdict({"modules": modules, "rope": {"mean": 0.06}})) == 2
    assert Sample().rows == {}
