"""`lostattn plan` and `lostattn patch`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .base import json_option, print_json, print_table, tell
from .checks import need_readable
from .choices import MODE, PRESET, RANKING, ROWS, SCORE_RULE
from .plan_gpu import gpu_options, print_prediction, take_gpu_options

_OPTIONS = [
    click.option(
        "--spec", "spec_file", type=click.Path(), help="YAML file with the options below; options given here win."
    ),
    click.option(
        "--preset", type=PRESET, help="paper (default), reference (the authors' code), or efficient (whole KV groups)."
    ),
    click.option(
        "--mode", type=MODE, help="Where the prior comes from, see 'lostattn modes'. Default patch_complexity."
    ),
    click.option("--layers", help="1-27, 1,3,5-7, all, or none. Default: the family's, see 'lostattn families'."),
    click.option("--heads", help="all, a percentile band 0.3-0.6, or lists 3:0,1,5;4:2. Default: the family's band."),
    click.option("--groups", help="Whole KV groups by name, instead of layers and heads: 3:0,1;5:1 (layer:KV heads)."),
    click.option(
        "--keep-agreement",
        type=click.FloatRange(0, 1),
        help="Preset efficient: the most KV groups that left this share of the calibration answers as they were.  "
        "[default: 0.99 where the calibration holds a frontier]",
    ),
    click.option(
        "--kv-budget",
        type=click.FloatRange(0, 1),
        help="Preset efficient: the fewest KV groups that leave at most this share of the visual tokens' KV cache.",
    ),
    click.option("--rank-by", type=RANKING, help="What ranks heads for a band: mass (paper) or score (authors' code)."),
    click.option(
        "--dynamic/--static",
        default=None,
        help="Choose the heads of a band anew at every step, or once and for all (default, but for preset reference).",
    ),
    click.option("--calibration", help="File from 'lostattn calibrate' that ranks the heads."),
    click.option("--scores", type=SCORE_RULE, help="How prior numbers become scores."),
    click.option("--queries", type=ROWS, help="Patched query rows."),
    click.option("--blend", type=float, help="1 replaces scores (default), 0 changes nothing, between mixes."),
    click.option("--seed", type=int, help="Seed of mode noise. Default 0."),
    click.option("--temperature", type=float, help="Of the softmax in prob, prob_rescaled, log. Default 1."),
    click.option("--option", "mode_options", multiple=True, metavar="NAME=VALUE", help="Option of the mode."),
    click.option("--revision", help="Branch, tag or commit of a Hub id."),
    click.option("--allow-code", is_flag=True, help="Accept a source that brings Python files (copied, never run)."),
]


def _plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _spec(spec_file: str | None, mode_options: tuple[str, ...], options: dict[str, Any]) -> Any:
    """The spec from file and options."""
    from ..calibration import Calibration
    from ..spec import PatchSpec, read_spec

    spec = read_spec(spec_file) if spec_file is not None else PatchSpec()
    spec = spec.with_changes(**options, options=dict(spec.options) | parse_options(mode_options))
    need_readable(spec)
    if spec.calibration is not None:
        Calibration.read(spec.calibration)
    return spec


def parse_options(mode_options: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE pairs as a dictionary."""
    from ...patches.errors import LostattnError

    options: dict[str, str] = {}
    for item in mode_options:
        name, equals, value = item.partition("=")
        if not equals:
            raise LostattnError(f"--option needs NAME=VALUE, not '{item}'")
        if name in options:
            raise LostattnError(f"--option {name} is given twice ({options[name]}, {value}): give it once")
        options[name] = value
    return options


@click.command(short_help="Print what patch would do, without doing it.")
@click.argument("src")
@_plan_options
@gpu_options
@json_option
def plan(
    src: str,
    spec_file: str | None,
    mode_options: tuple[str, ...],
    revision: str | None,
    allow_code: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Print what `patch` would do to SRC, without doing it.

    With --gpu also what vLLM would take there, by arithmetic; for that a folder with config.json alone is enough.

    \b
    Examples:
      lostattn plan Qwen/Qwen2.5-VL-7B-Instruct --layers 1-27 --heads all
      lostattn plan ./my-llava --preset reference --mode noise --json
      lostattn plan ./qwen2.5-vl --layers all --heads all --gpu h100 --visual-tokens 4096
    """
    from ..checkpoint.source import resolve_source

    gpu = take_gpu_options(options)
    spec = _spec(spec_file, mode_options, options)
    if gpu is not None and _plan_bare(src, revision, spec, gpu, as_json):
        return
    source = resolve_source(src, revision, allow_code=allow_code)
    from ..patch import prepare  # needs torch, which the mistakes above do not

    prepared = prepare(source, spec)
    if gpu is None:
        _print_prepared(prepared, as_json)
        return
    from ..predict_serving import predict_serving

    result = predict_serving(prepared.planned.plan, source.config, source.path, **gpu)
    _print_prepared(prepared, as_json, {"serving": result.to_json()})
    if not as_json:
        print_prediction(result)


def _plan_bare(src: str, revision: str | None, spec: Any, gpu: dict[str, Any], as_json: bool) -> bool:
    """The same of a folder with config.json alone: what vLLM would take on a GPU. False if SRC is another source."""
    from ..model_folder import bare_config

    if (folder := bare_config(src, revision)) is None:
        return False
    from ..describe import describe_plan
    from ..predict_serving import plan_of_config, predict_serving

    settled, notes, config = plan_of_config(folder, spec)
    result = predict_serving(settled, config, None, **gpu)
    if as_json:
        print_json({"plan": settled.to_json(), "notes": notes, "serving": result.to_json()})
        return True
    for text in describe_plan(settled):
        click.echo(text)
    for note in notes:
        tell(f"note: {note}")
    print_prediction(result)
    return True


@click.command(short_help="Write the patched checkpoint of a folder or Hub id.")
@click.argument("src")
@click.argument("out", type=click.Path(path_type=Path))
@_plan_options
@click.option(
    "--weights",
    type=click.Choice(["auto", "link", "copy"]),
    default="auto",
    show_default=True,
    help="auto: reflink, else hard link, else copy.",
)
@click.option(
    "--full-hash", is_flag=True, help="Record sha256 of all weights, even of more than 1 GiB that are linked."
)
@click.option("--force", is_flag=True, help="Replace OUT if it is a model folder.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@json_option
def patch(
    src: str,
    out: Path,
    spec_file: str | None,
    mode_options: tuple[str, ...],
    revision: str | None,
    allow_code: bool,
    weights: str,
    full_hash: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the patched checkpoint of SRC (a folder or a Hub id) to OUT.

    \b
    Examples:
      lostattn patch --mode patch_complexity ./qwen2.5-vl ./qwen2.5-vl-sap
      lostattn patch --preset reference --mode noise --seed 7 llava-hf/llava-1.5-7b-hf ./llava-noise
      lostattn patch --heads 3:0,1,2,3;5:4,5 --layers 3,5 --dry-run ./model ./out
      lostattn patch --preset efficient --calibration qwen.json --keep-agreement 0.98 ./qwen2.5-vl ./qwen2.5-vl-sap
      lostattn patch --spec plan.yaml ./model ./out --force
    """
    from ..checkpoint.publish import check_replaceable
    from ..checkpoint.source import resolve_source

    spec = _spec(spec_file, mode_options, options)
    if not dry_run:
        check_replaceable(out, force)
    source = resolve_source(src, revision, allow_code=allow_code)
    from ..patch import patch_from_spec, prepare  # needs torch, which the mistakes above do not

    if dry_run:
        _print_prepared(prepare(source, spec), as_json)
        tell("dry run: nothing was written")
        return
    prepared, written = patch_from_spec(source, out, spec, weights=weights, force=force, full_hash=full_hash)
    _print_prepared(prepared, as_json, {"out": str(out), "weights": dict(written.placed)})
    placed = ", ".join(f"{n} {how}" for how, n in written.placed.items())
    tell(f"wrote {out} (weight files: {placed}); next: lostattn verify {out}")


def _print_prepared(prepared: Any, as_json: bool, extra: dict[str, Any] | None = None) -> None:
    """Plan, notes and predictions."""
    from ..describe import describe_plan

    settled, predictions = prepared.planned.plan, prepared.predictions
    if as_json:
        print_json(
            {
                "plan": settled.to_json(),
                "notes": prepared.planned.notes,
                "predicted": [p.as_row() for p in predictions],
                "predicted_decode": [p.as_row() for p in prepared.decode],
                "whole_kv_groups": {str(x): list(settled.whole_groups(x)) for x in settled.layers},
                **_frontier_json(prepared.planned),
                **(extra or {}),
            }
        )
        return
    _print_frontier(prepared.planned)
    for text in describe_plan(settled):
        click.echo(text)
    for note in prepared.planned.notes:
        tell(f"note: {note}")
    click.echo("\nPredicted savings (one request, 128 text tokens; KV bytes: for an engine that leaves the slots out):")
    print_table(
        ["visual tokens", "attention FLOPs saved (prefill)", "KV cache saved", "KV bytes before", "KV bytes after"],
        [
            [
                f"{p.visual_tokens:,}",
                f"{100 * p.attention_flops_saved / p.attention_flops:.1f} %",
                f"{100 * p.kv_bytes_saved / p.kv_bytes:.1f} %",
                f"{p.kv_bytes:,}",
                f"{p.kv_bytes - p.kv_bytes_saved:,}",
            ]
            for p in predictions
        ],
    )
    _print_decode(prepared.decode)


def _print_decode(decode: list[Any]) -> None:
    """The decode byte model, where the plan changes it."""
    if not any(p.kv_bytes_saved for p in decode):
        return
    click.echo("\nBytes that one decode step reads (weights once, every request's KV cache):")
    print_table(
        ["visual tokens", "requests", "weights", "KV before", "KV after", "read less"],
        [
            [
                f"{p.visual_tokens:,}",
                p.batch,
                f"{p.weight_bytes:,}",
                f"{p.kv_bytes:,}",
                f"{p.kv_bytes - p.kv_bytes_saved:,}",
                f"{100 * p.saved_share:.1f} %",
            ]
            for p in decode
        ],
    )


def _frontier_json(planned: Any) -> dict[str, Any]:
    return {} if planned.frontier is None else {"frontier": planned.frontier.to_json(), "frontier_steps": planned.steps}


def _print_frontier(planned: Any) -> None:
    """The frontier that chose the plan, the chosen point marked."""
    if planned.frontier is None:
        return
    from ..efficient.frontier import FRONTIER_HEAD, frontier_rows

    click.echo("Measured frontier (every row: all groups up to it together):")
    print_table(FRONTIER_HEAD, frontier_rows(planned.frontier, planned.steps))
    click.echo()
