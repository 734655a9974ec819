"""The half of a patched model without head: it makes the prior, keeps it on the cache, and hands it to the layers.

The prior is computed once per image where `get_image_features` encodes it, travels as an extra entry of the encoder's
output (so `generate` carries it too), and is remembered on the cache object. The model itself holds no state of a
conversation: several caches may be alive at once, be copied or cropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, ClassVar

import torch
import transformers

from .arguments import by_name, cache_among, cache_of_output, rename_cache
from .attention import NAME
from .call import CacheState, Call, Settings, held_by, remember, sizes_of, state_of
from .context import EncoderCall
from .errors import LostattnError
from .family import decoder_of, get_family
from .features import exact_scores, image_features, standardised
from .mode import get_mode
from .plan import Plan
from .scores import rescale_unit, shape_prior
from .supplied import _SUPPLIED_PRIORS, supplied_for
from .supplied_regions import _SUPPLIED_REGIONS
from .tap import tapped

# Inner models whose plain forward is running: images are encoded before that, where the prior can be taken along.
_RUNNING_MODELS: ContextVar[tuple[int, ...]] = ContextVar("lostattn_running_models", default=())

# The inner model that assisted decoding runs for; another patched model is then its assistant.
_DRAFTED_FOR: ContextVar[int | None] = ContextVar("lostattn_drafted_for", default=None)
# Where `use_prior` and `use_regions` leave what they supply.
SLOTS: dict[str, ContextVar] = {"prior": _SUPPLIED_PRIORS, "regions": _SUPPLIED_REGIONS}
# Arguments that say of every token what it is: 1 is an image.
TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")
NO_VIDEO = (
    "SAP has no prior for video tokens: send frames as images, or use the unpatched model for videos "
    "(lostattn unpatch gives it back)"
)


class SapInner:
    """Mixed into the model without head (`...Model`): makes the prior, keeps it on the cache, hands it to the layers."""

    sap_slots: ClassVar[dict[str, ContextVar]] = SLOTS
    sap_plan: Plan
    sap_settings: Settings

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the signature of `get_image_features`: `generate` reads it to choose the encoder's arguments."""
        super().__init_subclass__(**kwargs)
        base = cls.__mro__[2]

        def get_image_features(self: SapInner, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.sap_plan.inert:
                return base.get_image_features(self, pixel_values, *args, **kwargs)  # type: ignore[attr-defined]
            if id(self) in _RUNNING_MODELS.get():
                raise LostattnError(
                    f"transformers {transformers.__version__} encodes images where the patched model cannot see their prior: "
                    "install a tested version, or patch the source again with a newer lostattn"
                )
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
        encoder_call = EncoderCall(family, self.sap_plan, self, pixel_values, arguments, lengths, tap)
        if given is None:
            given = mode.weights(encoder_call)
        kind = supplied.kind if supplied is not None else "weights"
        places = encoder_call.places() if self.sap_plan.scores == "fitted" else [None] * len(given)
        pairs = zip(given, places, strict=True)
        out["sap_prior"] = [self._scores(w.to(pixel_values.device), kind, place) for w, place in pairs]
        if not all(bool(torch.isfinite(p).all()) for p in out["sap_prior"]):
            raise LostattnError(
                "the prior of an image is not finite: its pixels hold NaN, or numbers given to use_prior have mean 0 where "
                "they are divided by it"
            )
        out["sap_exact"] = kind == "scores"
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
        """Refused: a video served without its prior would be half patched in silence."""
        raise LostattnError(NO_VIDEO)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the plain model's forward, with the prior in place.

        Raises:
            LostattnError: what the patched model cannot run as its plan says: another attention behind its back, videos,
                images or caches of another model, features without a word about where the images are.
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
            raise LostattnError(NO_VIDEO)
        if self.sap_plan.inert:
            return plain(**call)
        pixels = call.pop("pixel_values", None)
        if pixels is not None and encoded.get("image") is None:
            wanted = inspect.signature(self.get_image_features).parameters  # type: ignore[attr-defined]
            encoded["image"] = self.get_image_features(pixels, **{k: v for k, v in call.items() if k in wanted})  # type: ignore[attr-defined]
        if encoded:
            call["mm_encoder_outputs"] = encoded
        cache = cache_among(call)
        state = self._state(call, cache, encoded.get("image"))
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

    def _state(self, call: dict[str, Any], cache: Any, image: Any) -> CacheState:
        """What the cache has to remember after this call: the prior of all tokens up to its end."""
        tokens = _tokens(call)
        past = held_by(cache)
        state = state_of(cache, self.sap_plan.digest, tokens.shape[0])
        seen = self._seen_images(call, image, past)
        if seen is None:
            old = tokens.new_empty((tokens.shape[0], 0), dtype=torch.float32)
            state = state or CacheState(old, plan=self.sap_plan.digest)
            return state.extended(tokens.shape[1])
        visual, numbers, given = seen
        new = torch.full(tokens.shape[:2], torch.nan, device=tokens.device, dtype=torch.float32)
        found = _repeat_for_beams(numbers, visual).to(new)
        new[visual] = found if found.dim() == 1 else found[:, 0]
        old = new.new_full((new.shape[0], past), torch.nan)
        exact_old = torch.zeros_like(old, dtype=torch.bool)
        if state is not None:
            old[:, : state.prior.shape[1]] = state.prior
            if state.exact is not None:
                exact_old[:, : state.exact.shape[1]] = state.exact
        exact = torch.cat([exact_old, visual & given], 1)
        prior = torch.cat([old, new], 1)
        kept = exact if bool(exact.any()) else None
        features = _with_features(state, prior, visual, found) if found.dim() == 2 else None
        return CacheState(prior, kept, length=prior.shape[1], plan=self.sap_plan.digest, features=features)

    def _seen_images(
        self, call: dict[str, Any], image: Any, past: int
    ) -> tuple[torch.Tensor, list[torch.Tensor], bool] | None:
        """Visual tokens of this call (B, Sq) bool, scores of every image, and whether they are exact; None: no image."""
        ids, embeds = call.get("input_ids"), call.get("inputs_embeds")
        if image is not None:
            if image.get("sap_prior") is None:
                raise LostattnError(
                    "the image was encoded by an unpatched model: encode it with this one's get_image_features"
                )
            return self._placeholders(ids, embeds), image["sap_prior"], bool(image.get("sap_exact"))
        supplied = supplied_for(self)  # type: ignore[arg-type]
        if ids is None:
            return self._features(call, supplied, past)
        if supplied is not None and not past:
            supplied.for_lengths([])
        drafts = _DRAFTED_FOR.get() not in (None, id(self))  # transformers gives an assistant no images
        if not drafts and ids.shape[1] > 1 and not past and (count := int((ids == self.config.image_token_id).sum())):  # type: ignore[attr-defined]
            raise LostattnError(
                f"the prompt has {count} image placeholders but no image: give pixel_values with it, as the processor does"
            )
        return None

    def _features(
        self, call: dict[str, Any], supplied: Any, past: int
    ) -> tuple[torch.Tensor, list[torch.Tensor], bool] | None:
        """The same for embeddings that may already hold the features of images."""
        visual = supplied.mask if supplied is not None else None
        if visual is None:
            visual = next((call[name] == 1 for name in TOKEN_TYPES if call.get(name) is not None), None)
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
        if not bool(visual.any()):
            return None
        if supplied is not None:
            kind = supplied.kind
            given = supplied.for_count(int(visual.sum()))
        else:
            kind, given = "weights", self._without_pixels(visual)
        return visual, [self._scores(w.to(visual.device), kind) for w in given], kind == "scores"

    def _without_pixels(self, visual: torch.Tensor) -> list[torch.Tensor]:
        """Prior numbers of every run of visual tokens, for modes that look at no pixels."""
        mode = get_mode(self.sap_plan.mode)
        if mode.needs_pixels:
            raise LostattnError(
                f"mode '{mode.name}' needs the pixels of an image, and inputs_embeds bring none: give pixel_values, or the "
                "numbers themselves with use_prior(model, priors)"
            )
        lengths = [n for row in visual for n in _runs(row)]
        return mode.weights(EncoderCall(get_family(self.sap_plan.family), self.sap_plan, self, visual, {}, lengths))

    def _placeholders(self, ids: torch.Tensor | None, embeds: torch.Tensor | None) -> torch.Tensor:
        """Placeholder positions of this call, bool (B, Sq)."""
        token = self.config.image_token_id  # type: ignore[attr-defined]
        if ids is not None:
            return ids == token
        assert embeds is not None
        placeholder = self.get_input_embeddings()(torch.tensor(token, device=embeds.device))  # type: ignore[attr-defined]
        return (embeds == placeholder).all(-1)

    def _call(self, state: CacheState, call: dict[str, Any], cache: Any) -> Call:
        """Facts of this call for the decoder's layers; `state` is the one after it."""
        rows = _tokens(call).shape[1]
        past = state.length - rows
        counts, offsets = _sizes(cache, rows, past, self.sap_plan.layers)
        if not state.has_image:
            return Call(None, past, size=rows, counts=counts)
        last = _last_rows(call.get("attention_mask"), rows)
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


def _tokens(call: dict[str, Any]) -> torch.Tensor:
    """Input ids (B, Sq) or embeddings (B, Sq, D), whichever the call has."""
    found = call.get("input_ids")
    found = call.get("inputs_embeds") if found is None else found
    if found is None:
        raise LostattnError("the call has neither input_ids nor inputs_embeds: give one of them")
    return found


def _runs(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of True in a row (S,) bool."""
    edges = torch.nn.functional.pad(row.int(), (1, 1)).diff()
    return ((edges == -1).nonzero() - (edges == 1).nonzero())[:, 0].tolist()


def _sizes(cache: Any, rows: int, past: int, layers: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
    """Of the patched layers: keys that the cache will hand out where these are not `past + rows`, and their first positions."""
    if cache is None:
        return {}, {}
    sizes = {layer: sizes_of(cache, rows, layer) for layer in layers}
    counts = {layer: count for layer, (count, _) in sizes.items() if count != past + rows}
    return counts, {layer: start for layer, (_, start) in sizes.items() if start}


def _last_rows(mask: Any, rows: int) -> torch.Tensor | None:
    """Last real row of every sample, (B,), if a 2-D attention mask pads on the right; else None."""
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2 or rows == 1 or bool(mask[:, -1].all()):
        return None
    real = mask[:, -rows:].flip(1).to(torch.int)
    return rows - 1 - real.argmax(1)


def _with_features(
    state: CacheState | None, prior: torch.Tensor, visual: torch.Tensor, found: torch.Tensor
) -> torch.Tensor:
    """Features (B, P, F) of all keys up to the end of a call, behind those of earlier calls.

    Args:
        prior: (B, P), of all keys. visual: (B, Sq) bool, of this call. found: (n, 1 + F), of its visual tokens.
    """
    out = prior.new_zeros(*prior.shape, found.shape[1] - 1)
    if state is not None and state.features is not None:
        out[:, : state.features.shape[1]] = state.features
    out[:, prior.shape[1] - visual.shape[1] :][visual] = found[:, 1:]
    return out


def _repeat_for_beams(priors: list[torch.Tensor], visual: torch.Tensor) -> torch.Tensor:
    """What every placeholder was given, in row order; beams and returned sequences repeat every row, the encoder output not.

    Args:
        priors: (n,) per image, or (n, 1 + F) for scores rule `fitted`.
    """
    flat = torch.cat(priors)
    wanted = int(visual.sum())
    times = wanted // max(len(flat), 1)
    if times * len(flat) != wanted or not wanted:
        raise LostattnError(f"the prompt has {wanted} visual tokens but its images make {len(flat)}")
    if times == 1:
        return flat
    rows = visual.sum(1)[::times].tolist()
    if sum(rows) != len(flat):
        raise LostattnError(f"the prompt has {wanted} visual tokens but its images make {len(flat)}")
    return torch.cat([chunk for part in flat.split(rows) for chunk in [part] * times])
