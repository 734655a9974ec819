"""`lostattn calibrate`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from .base import Counter, json_option, print_json, print_table, tell
from .choices import DTYPE, MODE
from .data_option import data_option


@click.command(short_help="Measure every head of a model on pictures and questions.")
@click.argument("src")
@data_option("image and question", required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Calibration file to be written.")
@click.option("--samples", type=click.IntRange(1), default=256, show_default=True, help="At most so many questions.")
@click.option(
    "--sensitivity", is_flag=True, help="Also measure what patching each whole KV group alone does to the output."
)
@click.option("--frontier", is_flag=True, help="Also search which KV groups can go together (implies --sensitivity).")
@click.option(
    "--fit",
    is_flag=True,
    help="Also fit the scores of some whole KV groups (scores rule fitted): --groups or --frontier.",
)
@click.option("--groups", help="KV groups to fit, such as 3:0,1;5:1 (layer:KV heads).")
@click.option(
    "--kv-budget", help="Fit what the frontier lets go at these shares of the visual KV cache, such as 0.75,0.5."
)
@click.option("--rounds", type=click.IntRange(1), help="Passes of a fit over the questions at most.  [default: 20]")
@click.option("--mode", type=MODE, help="Mode of the plans that are measured.  [default: patch_complexity]")
@click.option("--option", "mode_options", multiple=True, metavar="NAME=VALUE", help="Option of the mode.")
@click.option("--seed", type=click.IntRange(0), help="Of mode noise.  [default: 0]")
@click.option("--width", type=click.IntRange(1), help="Groups tried at every step of the search.  [default: 4]")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Answers are compared so far.  [default: 16]")
@click.option("--dtype", type=DTYPE, default="auto", show_default=True, help="Of the weights; auto: as stored.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@click.option("--allow-code", is_flag=True, help="Accept a source that brings Python files (never run).")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def calibrate(
    src: str,
    data: str,
    out: Path,
    samples: int,
    dtype: str,
    device: str,
    revision: str | None,
    allow_code: bool,
    force: bool,
    as_json: bool,
    **of_groups: Any,
) -> None:
    """Measure every head of SRC on image-question pairs: both rankings, visual mass, log level.

    With --frontier also every whole KV group: its KL and agreement when patched alone, and a greedy search that measures
    groups together. With --fit also weights and levels that bring the patched model's answers nearest to the original's,
    by gradient descent; a quarter of the questions says when to stop. An interrupted run goes on where it stopped.

    \b
    Examples:
      lostattn calibrate ./qwen2.5-vl --data questions.jsonl --out qwen.calibration.json
      lostattn patch --calibration qwen.calibration.json ./qwen2.5-vl ./qwen2.5-vl-sap
      lostattn calibrate ./qwen2.5-vl --data questions.jsonl --frontier --out qwen.calibration.json
      lostattn patch --preset efficient --calibration qwen.calibration.json ./qwen2.5-vl ./qwen2.5-vl-efficient
      lostattn calibrate ./qwen2.5-vl --data questions.jsonl --frontier --fit --kv-budget 0.5 --out qwen.calibration.json
      lostattn patch --preset efficient --scores fitted --kv-budget 0.5 --calibration qwen.calibration.json ./qwen2.5-vl ./out
    """
    from ...serving.disk import disk_errors, write_json
    from ..checkpoint.source import resolve_source
    from ..data import find_place, read_examples
    from ..efficient.fits import check_enough

    _check_out(out, force)
    _refuse_unused(**of_groups)
    source = resolve_source(src, revision, allow_code=allow_code)
    place = find_place(data)
    examples = read_examples(place, samples)
    if of_groups["fit"]:
        check_enough(len(examples))
    from ...serving.shape import model_shape  # these need torch, which the mistakes above do not
    from ..calibrate import calibrate as measure
    from ..chat import Chat
    from ..model_fit import check_fit
    from .fits import fit_options, print_fits, run_fits
    from .frontier import print_groups

    wanted = _group_options(**of_groups)
    of_fit = fit_options(model_shape(source.config), **of_groups)
    check_fit(source.config, source.tensors)
    chat = Chat.load(source.path, dtype, device)
    partial = out.with_name(out.name + ".partial")
    result = measure(
        chat, model_shape(source.config).family, examples, place.name, partial, Counter("calibrating"), source.identity
    )
    partials = [partial]
    if wanted is not None and (of_groups["frontier"] or of_groups["sensitivity"]):
        partials.append(out.with_name(out.name + ".groups.partial"))
        result = replace(result, frontier=_measure(chat, source, result, examples, wanted, partials[-1]))
    if of_fit is not None and wanted is not None:
        fits, more = run_fits(chat, source, result, examples, wanted, of_fit, out)
        result, partials = replace(result, fits=fits), [*partials, *more]
    with disk_errors(f"cannot write {out}"):
        write_json(out, result.to_json())
        for path in partials:
            path.unlink()
    if as_json:
        print_json(result.to_json())
        return
    _print_mass(result)
    if result.frontier is not None:
        print_groups(result.frontier)
    print_fits(result, model_shape(source.config).kv_groups)
    options = "--preset efficient " if of_groups["frontier"] or result.fits else ""
    if of_fit is not None:
        options += f"--scores fitted {of_fit.option()}"
    tell(f"wrote {out}; next: lostattn patch {options}--calibration {out} {src} OUT")


def _check_out(out: Path, force: bool) -> None:
    from ...patches.errors import LostattnError

    if out.is_dir():
        raise LostattnError(f"{out} is a folder: give the name of a file as --out")
    if out.exists() and not force:
        raise LostattnError(f"{out} exists: choose another --out, or add --force")
    if not out.parent.is_dir():
        raise LostattnError(f"the folder of {out} does not exist: make it first")


def _print_mass(result: Any) -> None:
    """Visual mass of every layer that has any, and its most visual head."""
    print_table(
        ["layer", "visual mass (mean of heads)", "most visual head"],
        [
            [i, f"{100 * sum(row) / len(row):.1f} %", max(range(result.num_heads), key=lambda h: row[h])]
            for i, row in enumerate(result.visual_mass)
            if row
        ],
    )


@dataclass(frozen=True)
class GroupOptions:
    """How KV groups are to be measured."""

    joint: bool
    mode: str
    options: dict[str, str]
    seed: int
    width: int
    max_new_tokens: int


def _refuse_unused(
    sensitivity: bool,
    frontier: bool,
    mode: str | None,
    mode_options: tuple[str, ...],
    seed: int | None,
    width: int | None,
    max_new_tokens: int | None,
    fit: bool,
    groups: str | None,
    kv_budget: str | None,
    rounds: int | None,
) -> None:
    """Refuse what nobody would look at, before anything long is done."""
    from ...patches.errors import LostattnError

    for name, value in {"--groups": groups, "--kv-budget": kv_budget, "--rounds": rounds}.items():
        if value is not None and not fit:
            raise LostattnError(f"{name} says what is fitted: add --fit")
    if groups is not None and kv_budget is not None:
        raise LostattnError("--groups and --kv-budget both say which KV groups are fitted: give one of them")
    if fit and groups is None and not frontier:
        raise LostattnError("--fit needs to know which KV groups: name them with --groups, or add --frontier")
    given = {
        "--mode": mode,
        "--option": mode_options or None,
        "--seed": seed,
        "--width": width,
        "--max-new-tokens": max_new_tokens,
    }
    unused = [] if frontier else ["--width"] if sensitivity or fit else list(given)
    for name in unused:
        if given[name] is not None:
            raise LostattnError(f"{name} says how KV groups are measured: add --frontier")


def _group_options(
    sensitivity: bool,
    frontier: bool,
    mode: str | None,
    mode_options: tuple[str, ...],
    seed: int | None,
    width: int | None,
    max_new_tokens: int | None,
    fit: bool,
    **_: Any,
) -> GroupOptions | None:
    """None if no groups are to be measured or fitted."""
    from ...patches.errors import LostattnError
    from ...patches.mode import get_mode
    from .patch import parse_options

    if not (sensitivity or frontier or fit):
        return None
    result = get_mode(mode or "patch_complexity")
    options = parse_options(mode_options)
    result.settle("efficient", options)
    if fit and result.scores:
        raise LostattnError(
            f"mode '{result.name}' gives the scores itself, so nothing can be fitted: take another --mode"
        )
    return GroupOptions(frontier, result.name, options, seed or 0, width or 4, max_new_tokens or 16)


def _measure(chat: Any, source: Any, found: Any, examples: Any, wanted: GroupOptions, partial: Path) -> Any:
    """The measured KV groups."""
    from ..efficient.search import every_group, measure_groups

    plan = every_group(source, found, wanted.mode, wanted.options, wanted.seed)
    return measure_groups(
        chat,
        plan,
        examples,
        joint=wanted.joint,
        width=wanted.width,
        max_new_tokens=wanted.max_new_tokens,
        partial=partial,
        progress=Counter("measuring KV groups"),
    )
