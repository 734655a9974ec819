"""Model classes with a Shared Attention Prior: two mixins that fit every family of transformers' vision-language models.

The prior is computed once per image where `get_image_features` encodes it, travels as an extra entry of the encoder's
output (so `generate` carries it too), and is remembered on the cache object. The model itself holds no state of a
conversation: several caches may be alive at once, be copied or cropped.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from transformers.cache_utils import Cache

from .attention import NAME
from .call import CacheState, Call, Settings, check_batch, remember
from .context import EncoderCall
from .errors import LostattnError
from .family import decoder_of, get_family
from .install import install, path_for
from .mode import get_mode
from .plan import Plan
from .scores import rescale_unit, shape_prior
from .supplied import supplied_for
from .tap import VISION_NAME, tapped

NO_VIDEO = (
    "SAP has no prior for video tokens: send frames as images, or use the unpatched model for videos "
    "(lostattn unpatch gives it back)"
)


class SapInner:
    """Mixed into the model without head (`...Model`): makes the prior, keeps it on the cache, hands it to the layers."""

    sap_plan: Plan
    sap_settings: Settings

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the signature of `get_image_features`: `generate` reads it to choose the encoder's arguments."""
        super().__init_subclass__(**kwargs)
        base = cls.__mro__[2]

        def get_image_features(self: SapInner, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.sap_plan.inert:
                return base.get_image_features(self, pixel_values, *args, **kwargs)  # type: ignore[attr-defined]
            return self._encode(base, pixel_values, *args, **kwargs)

        get_image_features.__signature__ = inspect.signature(base.get_image_features)  # type: ignore[attr-defined]
        cls.get_image_features = get_image_features  # type: ignore[attr-defined]

    def _encode(self, base: type, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Encode images and attach `sap_prior`, a list of (n,) float32 tensors, one per image or tile."""
        signature = inspect.signature(base.get_image_features)  # type: ignore[attr-defined]
        arguments = dict(signature.bind(self, pixel_values, *args, **kwargs).arguments)
        arguments |= arguments.pop("kwargs", {})
        family, mode = get_family(self.sap_plan.family), get_mode(self.sap_plan.mode)
        supplied = supplied_for(self)  # type: ignore[arg-type]
        listening = mode.listens and supplied is None
        tap = family.listener(self, arguments, self.sap_plan.options["pool"]) if listening else None
        with tapped(tap) if tap is not None else nullcontext():
            out = base.get_image_features(self, pixel_values, *args, **{**kwargs, "return_dict": True})  # type: ignore[attr-defined]
        lengths = family.lengths(self, pixel_values, arguments, [len(features) for features in out.pooler_output])
        given = supplied.for_lengths(lengths) if supplied is not None else None
        if given is None:
            given = mode.weights(EncoderCall(family, self.sap_plan, self, pixel_values, arguments, lengths, tap))
        kind = supplied.kind if supplied is not None else "weights"
        out["sap_prior"] = [self._scores(w.to(pixel_values.device), kind) for w in given]
        if not all(bool(torch.isfinite(p).all()) for p in out["sap_prior"]):
            raise LostattnError(
                "the prior of an image is not finite: its pixels hold NaN, or numbers given to use_prior have mean 0 where "
                "they are divided by it"
            )
        out["sap_exact"] = kind == "scores"
        return out

    def _scores(self, w: torch.Tensor, kind: str) -> torch.Tensor:
        """p of one image, up to the factor that `prob_rescaled` measures in every layer."""
        p = shape_prior(w, self.sap_plan) if kind == "weights" else w
        return rescale_unit(p) if self.sap_plan.scores == "prob_rescaled" and kind != "scores" else p

    def get_video_features(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: a video served without its prior would be half patched in silence."""
        raise LostattnError(NO_VIDEO)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the plain model's forward, with the prior in place."""
        if decoder_of(self).config._attn_implementation != NAME:
            raise LostattnError(
                "the decoder's attention implementation was changed behind the patch: use set_attn_implementation of the "
                "whole patched model, or model.sap_settings.force('eager')"
            )
        if kwargs.get("pixel_values_videos") is not None or (mm_encoder_outputs or {}).get("video") is not None:
            raise LostattnError(NO_VIDEO)
        if pixel_values is not None and not (mm_encoder_outputs or {}).get("image"):
            wanted = inspect.signature(self.get_image_features).parameters  # type: ignore[attr-defined]
            arguments = {k: v for k, v in kwargs.items() if k in wanted}
            image = self.get_image_features(pixel_values, **arguments)  # type: ignore[attr-defined]
            mm_encoder_outputs = {**(mm_encoder_outputs or {}), "image": image}
        state = None
        if not self.sap_plan.inert:
            image = (mm_encoder_outputs or {}).get("image")
            state = self._state(input_ids, inputs_embeds, past_key_values, image)
            rows = (input_ids if input_ids is not None else inputs_embeds).shape[1]  # type: ignore[union-attr]
            last = _last_rows(kwargs.get("attention_mask"), rows)
            kwargs["sap_call"] = None if state is None else self._call(state, rows, past_key_values, last)
        out = super().forward(  # type: ignore[misc]
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        # Without a cache from the caller the decoder makes one; it has to carry the state from now on.
        cache = next((x for x in out if isinstance(x, Cache)), None) if isinstance(out, tuple) else out.past_key_values
        if cache is not None:
            remember(cache, state)
        return out

    def _state(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, cache: Cache | None, image: Any
    ) -> CacheState | None:
        """Prior of all tokens up to the end of this call, or None if no image has been seen."""
        tokens = input_ids if input_ids is not None else inputs_embeds
        assert tokens is not None
        past = int(cache.get_seq_length()) if cache is not None else 0
        state: CacheState | None = getattr(cache, "sap_state", None)
        if state is not None:
            state = state.cropped(past)
        if state is not None:
            check_batch(state, tokens.shape[0])
        if image is None:
            supplied = supplied_for(self)  # type: ignore[arg-type]
            if supplied is not None and not past:
                supplied.for_lengths([])
            return state
        if image.get("sap_prior") is None:
            raise LostattnError(
                "the image was encoded by an unpatched model: encode it with this one's get_image_features"
            )
        visual = self._visual_tokens(input_ids, inputs_embeds, image)
        flat = _repeat_for_beams(image["sap_prior"], visual).to(tokens.device)
        new = torch.full(tokens.shape[:2], torch.nan, device=tokens.device)
        new[visual] = flat
        old = new.new_full((new.shape[0], past), torch.nan)
        exact_old = torch.zeros_like(old, dtype=torch.bool)
        if state is not None:
            old[:, : state.prior.shape[1]] = state.prior
            if state.exact is not None:
                exact_old[:, : state.exact.shape[1]] = state.exact
        exact = torch.cat([exact_old, visual & bool(image.get("sap_exact"))], 1)
        return CacheState(torch.cat([old, new], 1), exact if bool(exact.any()) else None)

    def _visual_tokens(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, image: Any
    ) -> torch.Tensor:
        """Placeholder positions of this call, bool (B, Sq)."""
        token = self.config.image_token_id  # type: ignore[attr-defined]
        if input_ids is not None:
            return input_ids == token
        placeholder = self.get_input_embeddings()(torch.tensor(token, device=inputs_embeds.device))  # type: ignore
        return (inputs_embeds == placeholder).all(-1)

    def _call(self, state: CacheState, rows: int, cache: Cache | None, last: torch.Tensor | None) -> Call:
        past = int(cache.get_seq_length()) if cache is not None else 0
        patched = None
        if self.sap_plan.queries == "last" and last is not None:
            patched = torch.arange(rows, device=last.device) == last[:, None]
        elif self.sap_plan.queries == "last" and rows > 1:
            first = getattr(cache, "sap_prompt_length", past + rows) - 1 - past
            if first > 0:
                patched = torch.arange(rows, device=state.prior.device).expand(state.prior.shape[0], -1) >= first
        elif self.sap_plan.queries == "after_image" and rows > 1:
            visual = torch.nn.functional.pad(~state.prior.isnan(), (0, past + rows - state.prior.shape[1]))[:, past:]
            patched = ~visual if bool(visual.any()) else None
        sliding = [i for i, on in enumerate(getattr(cache, "is_sliding", [])) if on]
        offsets = {i: int(cache.get_mask_sizes(rows, i)[1]) for i in sliding}  # type: ignore[union-attr]
        offsets = {i: start for i, start in offsets.items() if start}
        return Call(state, past, patched, self.sap_plan.queries == "after_image", last, offsets)


class SapGeneration:
    """Mixed into the model with head (`...ForConditionalGeneration`)."""

    inner_class: ClassVar[type]
    _can_compile_fullgraph = False  # layouts are read on the host
    sap_plan: Plan
    sap_settings: Settings

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        plan = Plan.from_json(getattr(config, "sap", None))
        get_family(plan.family).check(config)
        install(self, plan)

    def set_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, but the decoder always runs SAP attention: `eager` forces its eager form, `sdpa` frees it."""
        wanted = attn_implementation
        if isinstance(wanted, dict):  # a dict that names no text part leaves the path as it is
            wanted = wanted.get("text_config", wanted.get(""))
        if wanted is not None:
            self.sap_settings.force(path_for(wanted))
        vision = attn_implementation
        if isinstance(vision, dict):
            vision = vision.get("vision_config", vision.get("", "sdpa"))
        if get_mode(self.sap_plan.mode).listens:
            vision = VISION_NAME
        super().set_attn_implementation({"text_config": NAME, "vision_config": vision}, *args, **kwargs)  # type: ignore[misc]

    def _prefill(
        self, input_ids: torch.Tensor, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kw: Any
    ) -> Any:
        if generation_config.prefill_chunk_size is not None and (model_kwargs.get("mm_encoder_outputs") or {}).get(
            "image"
        ):
            raise LostattnError(
                "prefill_chunk_size drops image features in transformers itself: leave it unset with images"
            )
        return super()._prefill(input_ids, generation_config, model_kwargs, *args, **kw)  # type: ignore[misc]

    def _assisted_decoding(self, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.sap_plan.dynamic:
            raise LostattnError(
                "assisted decoding reads several tokens in one call, but this plan chooses heads anew for every token: "
                "use a plan with static heads, or decode without an assistant"
            )
        cache = kwargs.get("past_key_values")
        if cache is not None:  # rows of drafted tokens are decode rows, not prompt rows
            cache.sap_prompt_length = input_ids.shape[1]
        try:
            return super()._assisted_decoding(input_ids, *args, **kwargs)  # type: ignore[misc]
        finally:
            if cache is not None:
                del cache.sap_prompt_length


def _last_rows(mask: Any, rows: int) -> torch.Tensor | None:
    """Last real row of every sample, (B,), if a 2-D attention mask pads on the right; else None."""
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2 or rows == 1 or bool(mask[:, -1].all()):
        return None
    real = mask[:, -rows:].flip(1).to(torch.int)
    return rows - 1 - real.argmax(1)


def _repeat_for_beams(priors: list[torch.Tensor], visual: torch.Tensor) -> torch.Tensor:
    """One number per placeholder in row order; beams and returned sequences repeat every row, the encoder output not."""
    flat = torch.cat(priors)
    wanted = int(visual.sum())
    times = wanted // max(flat.numel(), 1)
    if times * flat.numel() != wanted or not wanted:
        raise LostattnError(f"the prompt has {wanted} visual tokens but its images make {flat.numel()}")
    if times == 1:
        return flat
    rows = visual.sum(1)[::times].tolist()
    if sum(rows) != flat.numel():
        raise LostattnError(f"the prompt has {wanted} visual tokens but its images make {flat.numel()}")
    return torch.cat([chunk.repeat(times) for chunk in flat.split(rows)])
