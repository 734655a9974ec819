"""README.md of a patched folder: what was done to the model, how to run it, how to undo it, what not to expect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ...patches.plan import Plan
from .card_metadata import front_matter, inherited
from .provenance import portable
from .source import Source

PAPER = "[arXiv 2605.05668](https://arxiv.org/abs/2605.05668)"
Numbers = Mapping[str, float | int | str]

PRESET_SAYS = {
    "reference": "reproduces the paper's published code; it saves nothing",
    "paper": "does what the paper's text says",
    "efficient": "is made for serving",
}
QUERIES_SAY = {
    "all": "every query row",
    "after_image": "text rows behind the image",
    "last": "the prompt's last row and generated rows",
}


def card_text(
    *,
    plan: Plan,
    source: Source,
    command: str,
    versions: Mapping[str, str],
    predicted: Mapping[int, Numbers] | None = None,
    measured: Numbers | None = None,
    spec: str | None = None,
    original: str | None = None,
) -> str:
    """The model card.

    Args:
        plan: what was replaced.
        source: the base checkpoint; named by Hub id or folder name only.
        command: the command line; absolute paths are shortened.
        versions: name -> version.
        predicted: visual tokens -> quantity -> value; floats are shares saved (0.25 is shown as 25.0 %), text and
            integers are shown as they are.
        measured: quantity -> value; floats with four digits.
        spec: the user's YAML spec.
        original: README.md of the base, for licence and languages.
    """
    parts = [
        front_matter(source.repo, (f"sap-{plan.mode.replace('_', '-')}",), original),
        _title(plan, source),
        _plan_section(plan),
        _saving_section(plan, predicted),
        _measured_section(measured),
        _loading_section(source),
        _undo_section(),
        _limits_section(plan),
        _origin_section(source, command, versions, spec, original),
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers, runs shortened: `0-3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _title(plan: Plan, source: Source) -> str:
    name = _cell(source.name)
    if plan.inert:
        did = "Nothing is replaced: the plan is empty, so it answers exactly as the original."
    else:
        did = (
            f"In {len(plan.layers)} of {plan.num_layers} decoder layers the attention that chosen heads pay to image "
            f"tokens is replaced by a Shared Attention Prior (SAP, {PAPER}), mode `{plan.mode}`; no weight was changed."
        )
    return f"# {name}, patched with lostattn\n\n{did}"


def _plan_section(plan: Plan) -> str:
    rows = {
        "preset": f"`{plan.preset}` ({PRESET_SAYS[plan.preset]})",
        "mode": f"`{plan.mode}`",
        "scores": f"`{plan.scores}`",
        "queries": f"`{plan.queries}` ({QUERIES_SAY[plan.queries]})",
        "blend": f"{plan.blend:g}",
        "seed": str(plan.seed),
        "temperature": f"{plan.temperature:g}",
        **({"features": ", ".join(f"`{name}`" for name in plan.features)} if plan.features else {}),
        **{f"option {key}": f"`{value}`" for key, value in sorted(plan.options.items())},
    }
    lines = ["## Plan", "", *_table(("setting", "value"), rows.items()), "", *_table(_HEADS, _head_rows(plan))]
    if plan.layers:
        lines += ["", f"The model has {plan.num_heads} query heads in {plan.num_kv_heads} KV groups per layer."]
    return "\n".join(lines)


_HEADS = ("layers", "heads", "whole KV groups")


def _head_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """One row per set of heads."""
    if not plan.layers:
        return [("none", "none", "none")]
    if plan.band is not None:
        band = plan.band
        text = f"chosen anew in every call: {band.low:g} to {band.high:g} quantile, ranked by {band.rank_by}"
        return [(ranges(plan.layers), text, "none that can be relied on")]
    alike: dict[tuple[int, ...], list[int]] = {}
    for layer in plan.layers:
        alike.setdefault(plan.heads[layer], []).append(layer)
    return [(ranges(layers), _heads(plan, heads), _groups(plan, layers[0])) for heads, layers in alike.items()]


def _heads(plan: Plan, heads: tuple[int, ...]) -> str:
    return f"all {plan.num_heads}" if len(heads) == plan.num_heads else ranges(heads)


def _groups(plan: Plan, layer: int) -> str:
    groups = plan.whole_groups(layer)
    return f"**{ranges(groups)}**" if groups else "none"


def _saving_section(plan: Plan, predicted: Mapping[int, Numbers] | None) -> str:
    if not predicted:
        return ""
    names = list(dict.fromkeys(name for row in predicted.values() for name in row))
    rows = [[f"{n:,}", *(_share(row.get(name, "")) for name in names)] for n, row in sorted(predicted.items())]
    head = ("visual tokens", *(name.replace("_", " ") for name in names))
    return "\n".join(["## Predicted saving", "", "Computed from the plan, not measured.", "", *_table(head, rows)])


def _measured_section(measured: Numbers | None) -> str:
    if not measured:
        return ""
    rows = [(name, f"{value:.4f}" if isinstance(value, float) else value) for name, value in measured.items()]
    return "\n".join(["## Measured", "", *_table(("quantity", "value"), rows)])


def _loading_section(source: Source) -> str:
    name = f"{_identifier(source.name.rpartition('/')[2])}-sap"
    return f"""## Load and serve

`{name}` stands for this folder or its Hub id. With lostattn installed no remote code is run:

```python
import lostattn.patches
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{name}")
processor = AutoProcessor.from_pretrained("{name}")
```

Without lostattn, torch and transformers are enough, but the Python files in this folder are run:

```python
model = AutoModelForImageTextToText.from_pretrained("{name}", trust_remote_code=True)
```

With neither, loading fails: this model never runs unpatched in silence. For the same reason servers that do not know
SAP refuse it. vLLM serves it where lostattn is installed, whose plugin vLLM loads by itself:

```sh
lostattn serve {name}    # or: vllm serve {name}
```
"""


def _undo_section() -> str:
    return """## Undo and check

```sh
lostattn unpatch FOLDER ORIGINAL   # the original checkpoint, byte for byte
lostattn verify FOLDER             # every file against the hashes recorded in lostattn.json
```"""


def _limits_section(plan: Plan) -> str:
    lines = [
        "## Limits",
        "",
        "- Only whole KV groups save KV memory and decode bandwidth; scattered heads save compute at best.",
        "- The preset `reference` and head bands chosen at run time save nothing: they measure every score first.",
        "- Answers differ from the original's; measure your own task before relying on it.",
    ]
    whole = sum(len(plan.whole_groups(layer)) for layer in plan.layers)
    if not plan.inert:
        scope = "in none" if plan.dynamic or plan.preset == "reference" else f"in {whole}"
        lines.append(f"- This plan can save KV memory {scope} of {plan.kv_groups} KV groups.")
    return "\n".join(lines)


def _origin_section(
    source: Source, command: str, versions: Mapping[str, str], spec: str | None, original: str | None
) -> str:
    base = f"a local folder, `{_cell(source.name)}`"
    if source.repo:
        base = f"[{source.repo}](https://huggingface.co/{source.repo})"
    lines = ["## Origin", "", f"Base: {base}" + (f" at revision `{source.revision}`." if source.revision else ".")]
    if "license" not in inherited(original):
        lines += ["", "The base model's card states no licence that could be taken over: its terms apply all the same."]
    lines += ["", *_table(("package", "version"), versions.items())]
    if command:
        lines += ["", *_fenced(portable(command), "sh")]
    if spec:
        lines += ["", "Spec:", "", *_fenced(portable(spec), "yaml")]
    return "\n".join([*lines, "", f"Method: Shared Attention Prior, {PAPER}. Made with lostattn."])


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *([_cell(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: object) -> str:
    """Text that cannot break out of a table cell or a heading."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").replace("<", "&lt;").strip()


def _share(value: float | int | str) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, float) else str(value)


def _identifier(name: str) -> str:
    """A name that is safe inside code."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-") or "model"


def _fenced(text: str, language: str) -> list[str]:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.strip("\n"), fence]
