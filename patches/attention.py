"""The attention function that patched models run in transformers; here, and only here, a form is chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import logging

from .anymask import any_mask_attention
from .attention_inputs import AttentionInputs, PriorScores, causal
from .call import Call, LayerPlan
from .closed import closed_attention
from .eager import attend, eager_attention, raw_scores
from .errors import LostattnError
from .heads import in_band, mass_ranking, score_ranking
from .plan import Band
from .scores import mean_raw_score
from .summary import visual_summary
from .trace import current_trace

logger = logging.get_logger(__name__)

# One name per copy of this module: a copy that came with a checkpoint must not replace the installed one.
NAME = "sap_" + __name__.replace(".", "_")


def sap_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sap_call: Call | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention of one decoder layer (transformers' attention interface).

    Args:
        query: (B, H, Sq, D). key, value: (B, Hkv, K, D).
        sap_call: facts of this forward call.

    Returns:
        output (B, Sq, H, Dv) and, on the eager path, weights (B, H, Sq, K).

    Raises:
        LostattnError: a patched layer was not told of the call, or got other rows or keys than the model knows of.
    """
    layer = cast(LayerPlan, module.sap_layer)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layer.active:
        if sap_call is None:
            raise LostattnError(
                f"patched layer {module.layer_idx} ran without the patched model's forward, which knows where images are: call "
                "the whole model; if that is what you did, transformers "
                f"{transformers.__version__} does not hand arguments down to its layers as tested versions do"
            )
        sap_call.check(module.layer_idx, query.shape[2], key.shape[2])  # type: ignore[arg-type]
    if not layer.active or sap_call is None or sap_call.state is None:
        if layer.settings.path == "eager":
            return _plain_eager(query, key, value, attention_mask, scale, dropout)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    if dropout:
        raise LostattnError("patched layers have no attention dropout: set attention_dropout to 0 or call model.eval()")
    if attention_mask is not None and attention_mask.shape[-1] < key.shape[2]:
        key, value = key[:, :, : attention_mask.shape[-1]], value[:, :, : attention_mask.shape[-1]]
    inputs = collect_inputs(module.layer_idx, layer, sap_call, query, key, value, attention_mask, scale)  # type: ignore[arg-type]
    path, reason = choose_path(layer, sap_call, inputs)
    layer.settings.counts[path] += 1
    if reason:
        logger.warning_once(f"SAP attention runs in its any-mask form, which saves no time: {reason}")
    weights = None
    if path == "closed":
        out = closed_attention(_with_summary(inputs, sap_call, module.layer_idx, layer))  # type: ignore[arg-type]
    elif path == "any_mask":
        out = any_mask_attention(inputs)
    else:
        out, weights = eager_attention(inputs)
    return out.transpose(1, 2).contiguous(), weights


def choose_path(layer: LayerPlan, call: Call, inputs: AttentionInputs) -> tuple[str, str]:
    """Which form computes this call, and, if a faster one had to be passed over, why.

    Raises:
        LostattnError: the closed form is forced but cannot compute this call.
    """
    forced = layer.settings.path
    by_plan, by_call = _plan_obstacle(layer, call), _call_obstacle(inputs)
    if forced == "closed" and (by_plan or by_call):
        raise LostattnError(f"the closed form was forced but cannot run here: {by_plan or by_call}")
    if forced != "auto":
        return forced, ""
    if by_plan or by_call:
        return "any_mask", "" if by_plan else by_call
    return ("closed" if closed_pays(inputs) else "any_mask"), ""


def _plan_obstacle(layer: LayerPlan, call: Call) -> str:
    """What in the plan needs scores of visual keys; `lostattn plan` has told it."""
    if layer.band is not None:
        return "the heads of this plan are chosen anew in every call"
    if layer.blend != 1.0:
        return "blend is below 1, so scores of visual keys are needed"
    if call.rows is not None and not call.visual_rows_plain:
        return "only some of the query rows are patched"
    return ""


def _call_obstacle(inputs: AttentionInputs) -> str:
    """What in this call keeps the closed form from running."""
    scores = inputs.scores
    parts = (inputs.q, inputs.k, inputs.v, scores.prior, scores.level, scores.by_group)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in parts):
        return "gradients are needed"
    if inputs.scores.level is not None and inputs.scores.exact is not None:
        return "some priors were given as exact scores beside calibrated levels"
    if inputs.layout is None:
        return "padding, a window that cuts images, or images at different places within the batch"
    return ""


def closed_pays(inputs: AttentionInputs) -> bool:
    """Whether the closed form is expected to be faster than scoring everything, by shape (`lostattn bench attention`)."""
    if inputs.q.shape[2] > 1:
        return True
    group = inputs.q.shape[1] // inputs.k.shape[1]
    touched = {h // group for h in inputs.head_list()}
    whole = len(touched) * group == len(inputs.head_list())
    assert inputs.layout is not None
    # other groups have to read their keys anyway: then one written-out pass over all is hard to beat
    return whole and inputs.layout.visual.numel() >= (512 if len(touched) == inputs.k.shape[1] else 4096)


def collect_inputs(
    index: int,
    layer: LayerPlan,
    call: Call,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> AttentionInputs:
    """Collect one attention call; chooses the heads of a dynamic band and measures what `prob_rescaled` needs."""
    total = call.past + q.shape[2]
    if index not in call.offsets and k.shape[2] > total:  # a static cache has room behind the last key
        k, v = k[:, :, :total], v[:, :, :total]
    layout = call.seen(index, mask, q.shape[2], k.shape[2])
    mask = mask[..., : k.shape[2]] if mask is not None else None
    prior, exact = call.keys(index, k.shape[2], q.device)
    prior = prior.double() if q.dtype == torch.float64 else prior
    keep = None if mask is None else _visible(mask, k.shape[2], call.last)
    if layer.rescale:
        factor = mean_raw_score(q, k, scale, keep)[:, None].to(prior.dtype)
        # NaN on text keys must not be multiplied: its gradient would reach the queries and keys behind the factor
        scaled = torch.where(prior.isnan(), prior, prior.nan_to_num(0.0) * factor)
        prior = scaled if exact is None else torch.where(exact, prior, scaled)
    heads, levels, weights = layer.on(q.device, q.dtype)
    by_group = None
    if weights is not None:
        features = call.features(index, k.shape[2], q.device)
        assert features is not None
        by_group = weights @ features.to(weights.dtype).transpose(1, 2)  # (B, Hkv, K)
    scores = PriorScores(prior, levels, exact, by_group)
    if layer.band is not None:
        ranked = q[:, :, -1:] if call.last is None else _rows_at(q, call.last)
        heads = _band_heads(index, layer, layer.band, ranked, k, prior, keep, scale)
    assert heads is not None
    layout = layout if layout is None else layout.to(q.device)
    rows_patched = call.rows if call.rows is None else call.rows.to(q.device)
    mask = None if layout is not None and layout.plain else mask
    return AttentionInputs(q, k, v, scale, scores, heads, layer.blend, mask, rows_patched, layout, layer.listed)


def _band_heads(
    index: int,
    layer: LayerPlan,
    band: Band,
    q: torch.Tensor,
    k: torch.Tensor,
    prior: torch.Tensor,
    keep: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Heads in the band, bool (B, H), ranked by the last real query row q (B, H, 1, D) of every sample.

    A row without text keys ranks nothing and chooses no head (in the authors' code it is 0/0, with the same effect).
    """
    visual = ~prior.isnan()
    visible = torch.ones_like(visual) if keep is None else keep
    exact = torch.promote_types(q.dtype, torch.float32)
    raw = raw_scores(q.to(exact), k.to(exact), scale)[:, :, 0]
    text = visible & ~visual
    if band.rank_by == "mass":
        ranking = mass_ranking(raw, text, visible)
    else:
        before = (visual.cumsum(-1) == 0) if layer.two_sided else None
        ranking = score_ranking(raw, text, before)
    heads = in_band(ranking, band) & text.any(-1, keepdim=True)
    if (trace := current_trace()) is not None:
        trace.add(index, ranking, heads, prior)
    return heads


def _rows_at(q: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Row last[b] of every sample of q (B, H, Sq, D): (B, H, 1, D)."""
    return q[torch.arange(len(last), device=q.device), :, last.to(q.device)][:, :, None]


def _visible(mask: torch.Tensor, keys: int, rows: torch.Tensor | None) -> torch.Tensor:
    """Keys that the last real query row of every sample may see, bool (B, K)."""
    last = mask[:, 0, -1, :keys]
    if rows is not None:
        last = mask.expand(len(rows), -1, -1, -1)[torch.arange(len(rows)), 0, rows.to(mask.device), :keys]
    return last if last.dtype == torch.bool else last > torch.finfo(last.dtype).min / 2


def _with_summary(inputs: AttentionInputs, call: Call, index: int, layer: LayerPlan) -> AttentionInputs:
    """At a decode step, bring the summary of all visual values, from the cache's state if it is there already."""
    if inputs.q.shape[2] > 1 or layer.rescale or inputs.layout is None:
        return inputs
    if index in call.offsets or inputs.layout.window is not None:  # a window moves on, and its summary with it
        return inputs
    assert call.state is not None
    result = call.state.summaries.get(index)
    if result is None:
        result = call.state.summaries[index] = visual_summary(inputs.scores.of_groups(), inputs.v, inputs.layout)
    return replace(inputs, summary=result)


def _plain_eager(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float, dropout: float
) -> tuple[torch.Tensor, torch.Tensor]:
    if mask is None:
        if 1 < q.shape[2] < k.shape[2]:  # first call on an empty static cache
            k, v = k[:, :, : q.shape[2]], v[:, :, : q.shape[2]]
        mask = causal(q.shape[2], k.shape[2], q.device)
    out, weights = attend(raw_scores(q, k, scale), mask[..., : k.shape[2]], v, dropout)
    return out.transpose(1, 2).contiguous(), weights


AttentionInterface.register(NAME, sap_attention_forward)
# Without a mask function of the same name transformers passes no mask at all: padding would be attended to.
AttentionMaskInterface.register(NAME, sdpa_mask)
