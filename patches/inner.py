"""The half of a patched model without head: it makes the prior, keeps it on the cache, and hands it to the layers.

The prior is computed once per image where `get_image_features` encodes it, travels as an extra entry of the encoder's
output (so `generate` carries it too), and is remembered on the cache object. The model itself holds no state of a
conversation: several caches may be alive at once, be copied or cropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, ClassVar

import torch
import transformers

from .arguments import by_name, cache_among, cache_of_output, rename_cache
from .attention import NAME
from .call import CacheState, Call, PathSettings, held_by, remember, state_of
from .context import EncoderCall
from .decoder import decoder_layers
from .errors import LostattnError
from .family import decoder_of, get_family
from .features import exact_scores, image_features, standardised
from .mode import get_mode
from .placing import Seen, cache_sizes, in_rows, last_rows, runs_of, tokens_of
from .plan import Plan
from .scores import rescale_unit, shape_prior
from .supplied import _SUPPLIED_PRIORS, supplied_for
from .supplied_regions import _SUPPLIED_REGIONS
from .tap import tapped

# Inner models whose plain forward is running: images are encoded before that, where the prior can be taken along.
_RUNNING_MODELS: ContextVar[tuple[int, ...]] = ContextVar("lostattn_running_models", default=())
# Inner models that are encoding: some encode videos by their own function for images.
_ENCODING_MODELS: ContextVar[tuple[int, ...]] = ContextVar("lostattn_encoding_models", default=())

# The inner model that assisted decoding runs for; another patched model is then its assistant.
_DRAFTED_FOR: ContextVar[int | None] = ContextVar("lostattn_drafted_for", default=None)
# Where `use_prior` and `use_regions` leave what they supply.
SLOTS: dict[str, ContextVar] = {"prior": _SUPPLIED_PRIORS, "regions": _SUPPLIED_REGIONS}
# Arguments that say of every token what it is: 1 is an image, 2 a video.
TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")
# What is encoded, and the argument that brings its pixels.
KINDS_OF_PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


class SapInner:
    """Mixed into the model without head (`...Model`): makes the prior, keeps it on the cache, hands it to the layers."""

    sap_slots: ClassVar[dict[str, ContextVar]] = SLOTS
    sap_plan: Plan
    sap_settings: PathSettings

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the signatures of `get_image_features` and `get_video_features`: `generate` chooses arguments by them."""
        super().__init_subclass__(**kwargs)
        base = cls.__mro__[2]
        for kind in KINDS_OF_PIXELS:
            if hasattr(base, f"get_{kind}_features"):
                setattr(cls, f"get_{kind}_features", _encoder_of(kind, getattr(base, f"get_{kind}_features")))

    def _encode(self, kind: str, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Encode images or videos and attach `sap_prior`, a list of (n,) float32 tensors, one per image, tile or video."""
        result = dict(inspect.signature(plain).bind(self, *args, **kwargs).arguments)
        result |= result.pop("kwargs", {})
        pixels = result.pop(KINDS_OF_PIXELS[kind])
        family, mode = get_family(self.sap_plan.family).of(kind), get_mode(self.sap_plan.mode)
        arguments = {**family.arguments_of(result), "pixel_values": pixels}
        supplied = supplied_for(self)  # type: ignore[arg-type]
        listening = mode.listens and supplied is None
        tap = family.listener(self, arguments, self.sap_plan.options["pool"]) if listening else None
        with plain_encoder(self), tapped(tap) if tap is not None else nullcontext():
            out = plain(self, *args, **{**kwargs, "return_dict": True})
        lengths = family.lengths(self, pixels, arguments, [len(features) for features in out.pooler_output])
        given = supplied.for_lengths(lengths, kind) if supplied is not None else None
        encoder_call = EncoderCall(family, self.sap_plan, self, pixels, arguments, lengths, tap)
        if given is None:
            given = mode.weights(encoder_call)
        kind_of_numbers = supplied.kind if supplied is not None else "weights"
        places = encoder_call.places() if self.sap_plan.scores == "fitted" else [None] * len(given)
        pairs = zip(given, places, strict=True)
        out["sap_prior"] = [self._scores(w.to(pixels.device), kind_of_numbers, place) for w, place in pairs]
        if not all(bool(torch.isfinite(p).all()) for p in out["sap_prior"]):
            raise LostattnError(
                f"the prior of {'an image' if kind == 'image' else 'a video'} is not finite: its pixels hold NaN, or numbers "
                "given to use_prior have mean 0 where they are divided by it"
            )
        out["sap_exact"] = kind_of_numbers == "scores"
        return out

    def _scores(self, w: torch.Tensor, kind: str, place: torch.Tensor | None = None) -> torch.Tensor:
        """p of one image, (n,), up to the factor that `prob_rescaled` measures in every layer; for `fitted` (n, 1 + F)."""
        plan = self.sap_plan
        if plan.scores == "fitted":
            if kind == "scores":
                return exact_scores(w, plan)
            return image_features(standardised(w) if kind == "weights" else w, place, plan)
        p = shape_prior(w, plan) if kind == "weights" else w
        return rescale_unit(p) if plan.scores == "prob_rescaled" and kind != "scores" else p

    def get_video_features(self, *args: Any, **kwargs: Any) -> Any:
        """Of a model that has no videos: refused, since a video without its prior would be half patched in silence."""
        get_family(self.sap_plan.family).of("video")
        raise LostattnError(f"{type(self).__name__} has no encoder for videos")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the plain model's forward, with the prior in place.

        Raises:
            LostattnError: what the patched model cannot run as its plan says: another attention behind its back, videos of
                a family that has none, images or caches of another model, features without a word about where the images are.
        """
        if decoder_of(self).config._attn_implementation != NAME:
            raise LostattnError(
                "the decoder's attention implementation was changed behind the patch: use set_attn_implementation of the "
                "whole patched model, or model.sap_settings.force('eager')"
            )
        plain = super().forward  # type: ignore[misc]
        base = type(self).__mro__[2].forward  # type: ignore[attr-defined]
        call = by_name(base, self, args, kwargs)
        encoded = dict(call.get("mm_encoder_outputs") or {})
        if call.get("pixel_values_videos") is not None or encoded.get("video") is not None:
            get_family(self.sap_plan.family).of("video")
        if self.sap_plan.inert:
            return plain(**call)
        for kind, name in KINDS_OF_PIXELS.items():
            pixels = call.pop(name, None)
            if pixels is not None and encoded.get(kind) is None:
                encode = getattr(self, f"get_{kind}_features")
                wanted = inspect.signature(encode).parameters
                encoded[kind] = encode(**{name: pixels}, **{k: v for k, v in call.items() if k in wanted})
        if encoded:
            call["mm_encoder_outputs"] = encoded
        cache = cache_among(call)
        state = self._state(call, cache, encoded)
        call = rename_cache(base, call)
        call["sap_call"] = self._call(state, call, cache)
        token = _RUNNING_MODELS.set((*_RUNNING_MODELS.get(), id(self)))
        try:
            out = plain(**call)
        finally:
            _RUNNING_MODELS.reset(token)
        # Without a cache from the caller the decoder makes one; it has to carry the state from now on.
        cache = cache_of_output(out) if cache is None else cache
        if cache is not None:
            remember(cache, state)
        return out

    def _state(self, call: dict[str, Any], cache: Any, encoded: dict[str, Any]) -> CacheState:
        """What the cache has to remember after this call: the prior of all tokens up to its end."""
        tokens = tokens_of(call)
        past = held_by(cache)
        state = state_of(cache, self.sap_plan.digest, tokens.shape[0])
        seen = self._seen(call, encoded, past)
        if not seen:
            old = tokens.new_empty((tokens.shape[0], 0), dtype=torch.float32)
            state = state or CacheState(old, plan=self.sap_plan.digest)
            return state.extended(tokens.shape[1])
        prior = torch.full(
            (tokens.shape[0], past + tokens.shape[1]), torch.nan, device=tokens.device, dtype=torch.float32
        )
        exact = torch.zeros_like(prior, dtype=torch.bool)
        features = prior.new_zeros(*prior.shape, len(self.sap_plan.features)) if self.sap_plan.features else None
        if state is not None:
            for whole, kept in ((prior, state.prior), (exact, state.exact), (features, state.features)):
                if whole is not None and kept is not None:
                    whole[:, : kept.shape[1]] = kept
        for part in seen:
            result = in_rows(part).to(prior)
            prior[:, past:][part.visual] = result if result.dim() == 1 else result[:, 0]
            exact[:, past:] |= part.visual & part.exact
            if features is not None:
                features[:, past:][part.visual] = result[:, 1:]
        given = exact if bool(exact.any()) else None
        return CacheState(prior, given, length=prior.shape[1], plan=self.sap_plan.digest, features=features)

    def _seen(self, call: dict[str, Any], encoded: dict[str, Any], past: int) -> list[Seen]:
        """Images and videos that this call brings; none: text alone."""
        supplied = supplied_for(self)  # type: ignore[arg-type]
        ids, seen = call.get("input_ids"), []
        for kind, out in encoded.items():
            if out is None:
                continue
            if out.get("sap_prior") is None:
                raise LostattnError(
                    f"the {kind} was encoded by an unpatched model: encode it with this one's get_{kind}_features"
                )
            if not len(out.pooler_output):
                raise LostattnError(
                    f"transformers cannot repeat this model's {kind}s for beams or returned sequences: ask for one sequence"
                )
            visual = self._placeholders(kind, ids, call.get("inputs_embeds"))
            seen.append(Seen(visual, out["sap_prior"], bool(out.get("sap_exact")), kind))
        if len(seen) == 2 and bool((seen[0].visual & seen[1].visual).any()):
            raise LostattnError(
                "this model marks the places of images and videos by one token, so transformers cannot tell them apart in one "
                "prompt: send either images or videos"
            )
        if seen:
            for kind in set(KINDS_OF_PIXELS) - {one.kind for one in seen}:
                if supplied is not None and not past:
                    supplied.for_lengths([], kind)
            return seen
        if ids is None:
            one = self._features(call, supplied, past)
            return [] if one is None else [one]
        if not past:
            self._check_no_item(ids, supplied)
        return []

    def _check_no_item(self, ids: torch.Tensor, supplied: Any) -> None:
        """Refuse placeholders, and supplied numbers, of images and videos that a first call does not bring."""
        if supplied is not None:
            supplied.for_lengths([])
            supplied.for_lengths([], "video")
        if _DRAFTED_FOR.get() not in (None, id(self)) or ids.shape[1] == 1:  # transformers gives an assistant no images
            return
        family = get_family(self.sap_plan.family)
        for kind in KINDS_OF_PIXELS:
            if kind == "video" and family.videos is None:
                continue
            if count := int((ids == family.of(kind).placeholder(self.config)).sum()):  # type: ignore[attr-defined]
                raise LostattnError(
                    f"the prompt has {count} {kind} placeholders but no {kind}: give {KINDS_OF_PIXELS[kind]} with it, as the "
                    "processor does"
                )

    def _features(self, call: dict[str, Any], supplied: Any, past: int) -> Seen | None:
        """The same for embeddings that may already hold the features of images and videos."""
        visual = supplied.mask if supplied is not None else None
        if visual is None:
            visual = next((call[name] for name in TOKEN_TYPES if call.get(name) is not None), None)
        rows = call["inputs_embeds"].shape[:2]
        if past and rows[1] == 1:  # a decode step
            return None
        if visual is None:
            if supplied is not None and not supplied.tensors:
                return None
            raise LostattnError(
                "inputs_embeds may hold the features of images: say where with mm_token_type_ids (0 text, 1 image) or with "
                "use_prior(model, priors, mask=...); if there is no image, mm_token_type_ids of zeros says so"
            )
        visual = visual.to(call["inputs_embeds"].device)
        if visual.shape != rows:
            raise LostattnError(
                f"the mask of visual tokens is {list(visual.shape)}, inputs_embeds have {list(rows)} tokens: give one per token"
            )
        videos = visual.dtype != torch.bool and bool((visual == 2).any())
        visual = visual if visual.dtype == torch.bool else (visual == 1) | (visual == 2)
        if not bool(visual.any()):
            return None
        if supplied is not None:
            kind = supplied.kind
            given = supplied.for_count(int(visual.sum()))
        else:
            kind, given = "weights", self._without_pixels(visual, videos)
        return Seen(visual, [self._scores(w.to(visual.device), kind) for w in given], kind == "scores")

    def _without_pixels(self, visual: torch.Tensor, videos: bool) -> list[torch.Tensor]:
        """Prior numbers of every run of visual tokens, for modes that look at no pixels."""
        mode = get_mode(self.sap_plan.mode)
        if mode.needs_pixels or videos:
            why = (
                "nobody knows which runs of tokens are one video" if videos else f"mode '{mode.name}' needs the pixels"
            )
            raise LostattnError(
                f"{why} where inputs_embeds bring no pixels: give pixel_values, or the numbers themselves with "
                "use_prior(model, priors)"
            )
        lengths = [n for row in visual for n in runs_of(row)]
        return mode.weights(EncoderCall(get_family(self.sap_plan.family), self.sap_plan, self, visual, {}, lengths))

    def _placeholders(self, kind: str, ids: torch.Tensor | None, embeds: torch.Tensor | None) -> torch.Tensor:
        """Placeholder positions of this call's images or videos, bool (B, Sq)."""
        token = get_family(self.sap_plan.family).of(kind).placeholder(self.config)  # type: ignore[attr-defined]
        if ids is not None:
            return ids == token
        assert embeds is not None
        placeholder = self.get_input_embeddings()(torch.tensor(token, device=embeds.device))  # type: ignore[attr-defined]
        return (embeds == placeholder).all(-1)

    def _call(self, state: CacheState, call: dict[str, Any], cache: Any) -> Call:
        """Facts of this call for the decoder's layers; `state` is the one after it."""
        rows = tokens_of(call).shape[1]
        past = state.length - rows
        layers = decoder_layers(self.config.get_text_config())  # type: ignore[attr-defined]
        counts, offsets = cache_sizes(cache, rows, past, {i: layers[i].source for i in self.sap_plan.layers})
        if not state.has_image:
            return Call(None, past, size=rows, counts=counts)
        last = last_rows(call.get("attention_mask"), rows)
        patched = self._patched_rows(state, rows, past, cache, last)
        between = self.sap_plan.queries == "after_image"
        return Call(state, past, patched, between, last, offsets, rows, counts)

    def _patched_rows(
        self, state: CacheState, rows: int, past: int, cache: Any, last: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Query rows that the plan patches, bool (B, Sq), or None for all."""
        queries, device = self.sap_plan.queries, state.prior.device
        if queries == "last" and last is not None:
            return torch.arange(rows, device=last.device) == last[:, None]
        if queries == "last" and rows > 1:
            first = getattr(cache, "sap_prompt_length", past + rows) - 1 - past
            if first > 0:
                return torch.arange(rows, device=device).expand(state.prior.shape[0], -1) >= first
        if queries == "after_image" and rows > 1:
            visual = torch.nn.functional.pad(~state.prior.isnan(), (0, past + rows - state.prior.shape[1]))[:, past:]
            return ~visual if bool(visual.any()) else None
        return None


@contextmanager
def plain_encoder(inner: Any) -> Iterator[None]:
    """A block in which a patched model's own encoder functions are those of the plain model: no prior is made."""
    token = _ENCODING_MODELS.set((*_ENCODING_MODELS.get(), id(inner)))
    try:
        yield
    finally:
        _ENCODING_MODELS.reset(token)


def _encoder_of(kind: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """A patched model's function for `plain`, which encodes images or videos."""

    def encode(self: SapInner, *args: Any, **kwargs: Any) -> Any:
        if self.sap_plan.inert or id(self) in _ENCODING_MODELS.get():
            return plain(self, *args, **kwargs)
        if id(self) in _RUNNING_MODELS.get():
            raise LostattnError(
                f"transformers {transformers.__version__} encodes {kind}s where the patched model cannot see their prior: "
                "install a tested version, or patch the source again with a newer lostattn"
            )
        return self._encode(kind, plain, *args, **kwargs)

    encode.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
    return encode
