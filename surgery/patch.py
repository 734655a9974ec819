"""`patch_checkpoint`: from a source and options to a patched folder."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..patches import Plan
from ..patches.errors import LostattnError
from ..serving.byte_model import read_step_weights
from ..serving.progress import LazyBar
from ..serving.shape import model_shape
from .calibration import Calibration
from .checkpoint.card import card_text
from .checkpoint.loadable import quantisation_notes
from .checkpoint.provenance import versions
from .checkpoint.publish import check_replaceable
from .checkpoint.source import Source, resolve_source
from .checkpoint.write import Written, write_patched
from .demo.builtin import builtin_examples
from .log_lines import Write, deprecated_say
from .model_fit import check_fit
from .planner import Planned, make_plan
from .predict import DecodePrediction, Prediction, predict, predict_decode
from .ranges import Heads
from .spec import PatchSpec, spec_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A source, the plan for it, and what it is predicted to save."""

    source: Source
    planned: Planned
    predictions: list[Prediction] = field(default_factory=list)
    decode: list[DecodePrediction] = field(default_factory=list)


def prepare(
    src: str | Path | Source,
    spec: PatchSpec,
    *,
    revision: str | None = None,
    allow_code: bool = False,
) -> Prepared:
    """Check the source and settle the plan; nothing is written.

    Heads that have to be ranked without a calibration file are ranked on a small built-in set, which loads the model.
    """
    if spec.scores == "fitted" and spec.calibration is None:
        raise LostattnError(
            "scores rule 'fitted' reads its numbers from a calibration: make one with 'lostattn calibrate --fit' and pass "
            "--calibration FILE"
        )
    source = src if isinstance(src, Source) else resolve_source(src, revision, allow_code=allow_code)
    check_fit(source.config, source.tensors)
    planned = make_plan(spec, source.config, source.path, lambda: _calibrate_builtin(source), lambda: source.identity)
    planned.notes.extend([*quantisation_notes(source.config), *source.notes])
    shape = model_shape(source.config)
    weights = read_step_weights(source.path, shape)
    return Prepared(source, planned, predict(planned.plan, shape), predict_decode(planned.plan, shape, weights))


def patch_checkpoint(
    src: str | Path,
    out: str | Path,
    *,
    preset: str = "paper",
    mode: str = "patch_complexity",
    layers: str | int | Iterable[int] | None = None,
    heads: Heads | None = None,
    dynamic: bool = False,
    rank_by: str | None = None,
    calibration: str | Path | None = None,
    scores: str | None = None,
    queries: str | None = None,
    blend: float = 1.0,
    seed: int = 0,
    temperature: float = 1.0,
    options: Mapping[str, str] | None = None,
    keep_agreement: float | None = None,
    kv_budget: float | None = None,
    groups: str | Mapping[int, Iterable[int]] | None = None,
    revision: str | None = None,
    weights: str = "auto",
    force: bool = False,
    allow_code: bool = False,
    full_hash: bool = False,
    say: Write | None = None,
) -> Plan:
    """Patch a checkpoint: the same as `lostattn patch`.

    Args:
        src: folder or Hub id of a plain checkpoint. out: the patched folder to be written.
        preset, mode, layers, heads, rank_by, dynamic, calibration, scores, queries, blend, seed, temperature, options,
            keep_agreement, kv_budget, groups: see `PatchSpec`. An empty list of layers is the empty plan.
            `dynamic=False` leaves it to the preset.
        revision: of a Hub id.
        weights: `auto` (reflink, else hard link, else copy), `link` or `copy`.
        force: replace an existing model folder, atomically.
        allow_code: accept sources that bring Python files.
        full_hash: record sha256 of all weights, however large.
        say: deprecated; gets the lines of the logger `lostattn` while the call runs.

    Returns:
        The plan that the checkpoint carries.

    Raises:
        LostattnError: any mistake, in one sentence; nothing is written then.
    """
    spec = PatchSpec(
        preset=preset,
        mode=mode,
        layers=layers,
        heads=heads,
        rank_by=rank_by,
        dynamic=dynamic or None,
        calibration=None if calibration is None else str(calibration),
        scores=scores,
        queries=queries,
        blend=blend,
        seed=seed,
        temperature=temperature,
        options={} if options is None else options,
        keep_agreement=keep_agreement,
        kv_budget=kv_budget,
        groups=groups,
    )
    with deprecated_say(say):
        written = patch_from_spec(
            src, out, spec, revision=revision, weights=weights, force=force, allow_code=allow_code, full_hash=full_hash
        )
    return written[0].planned.plan


def patch_from_spec(
    src: str | Path | Source,
    out: str | Path,
    spec: PatchSpec,
    *,
    revision: str | None = None,
    weights: str = "auto",
    force: bool = False,
    allow_code: bool = False,
    full_hash: bool = False,
    measured: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> tuple[Prepared, Written]:
    """The same from a spec; also returns what was written."""
    check_replaceable(Path(out), force)  # before anything long is done
    prepared = prepare(src, spec, revision=revision, allow_code=allow_code)
    command, text = command or command_line(), spec_text(spec)
    plan, source = prepared.planned.plan, prepared.source
    original = (
        source.real("README.md").read_text(encoding="utf-8", errors="replace") if "README.md" in source.files else None
    )
    card = card_text(
        plan=plan,
        source=source,
        command=command,
        versions=versions(),
        predicted=_for_card(prepared.predictions),
        measured=measured,
        spec=text,
        original=original,
    )
    written = write_patched(
        source,
        plan,
        out,
        card=card,
        weights=weights,
        force=force,
        command=command,
        spec=text,
        full_hash=full_hash,
    )
    return prepared, written


def command_line() -> str:
    """The command that runs now, as one would type it."""
    name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return shlex.join([name if name != "cli.py" else "lostattn", *sys.argv[1:]])


def _for_card(predictions: list[Prediction]) -> dict[int, dict[str, Any]]:
    return {
        p.visual_tokens: {
            "attention FLOPs saved in prefill": p.attention_flops_saved / p.attention_flops,
            "KV cache saved": p.kv_bytes_saved / p.kv_bytes,
        }
        for p in predictions
    }


def _calibrate_builtin(source: Source) -> Calibration:
    """Rank heads on the built-in set."""
    from .calibrate import calibrate
    from .chat import Chat

    examples = builtin_examples()
    logger.info(
        f"ranking heads on {len(examples)} built-in questions; 'lostattn calibrate' ranks them on your own data"
    )
    try:
        chat = Chat.load(source.path)
    except LostattnError as error:
        raise LostattnError(f"{error}; or give --heads all, lists of heads, --dynamic or --calibration FILE") from error
    what, shown = "built-in pictures of handwritten digits", LazyBar("ranking heads")
    return calibrate(chat, model_shape(source.config).family, examples, what, progress=shown)
