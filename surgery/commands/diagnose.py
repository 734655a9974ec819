"""`lostattn diagnose`."""

from __future__ import annotations

from pathlib import Path

import click

from .base import Counter, json_option, print_json, print_table, tell
from .checks import need_data, need_models
from .choices import DTYPE, TOKENS
from .data_option import data_option


@click.command(short_help="Measure what each layer adds to the stream: RID and MixIG.")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@data_option("image and question", required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the report.")
@click.option("--samples", type=click.IntRange(1), default=64, show_default=True, help="At most so many questions.")
@click.option("--controls", is_flag=True, help="Also Noise-Delta, Noise-QKV and Noise-FFN (two more runs a question).")
@click.option("--tokens", type=TOKENS, default="all", show_default=True, help="Rows of the states that count.")
@click.option("--compare", type=click.Path(path_type=Path), help="Plain checkpoint that the MODELS are compared with.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the controls.")
@click.option("--dtype", type=DTYPE, default="float32", show_default=True, help="Of the weights; auto: as stored.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@json_option
def diagnose(
    models: tuple[Path, ...],
    data: str,
    out: Path,
    samples: int,
    controls: bool,
    tokens: str,
    compare: Path | None,
    seed: int,
    dtype: str,
    device: str,
    as_json: bool,
) -> None:
    """Measure what attention and feed-forward layers of MODELS add to the residual stream: RID and MixIG.

    Writes JSON, CSV, Markdown, pictures and one HTML page. An interrupted run goes on where it stopped.

    \b
    Examples:
      lostattn diagnose ./qwen2.5-vl --data questions.jsonl --controls --out diagnosis
      lostattn diagnose ./qwen2.5-vl-sap --compare ./qwen2.5-vl --data questions.jsonl --out diagnosis
    """
    from ...serving.pages.charts import need_matplotlib

    need_matplotlib()  # say that it is missing before the work, not after it
    need_models(compare, *models)
    need_data(data)
    from ..data import find_place, read_examples  # these need torch, which the mistakes above do not
    from ..diagnosis.diagnose import DiagnosisSettings
    from ..diagnosis.diagnose import diagnose as measure
    from ..diagnosis.report import comparison, table

    settings = DiagnosisSettings(tokens, controls, seed)
    place = find_place(data)
    examples = read_examples(place, samples)
    all_models = [*([compare] if compare else []), *models]
    report = measure(
        all_models, examples, out, settings, place.name, dtype, device, lambda model: Counter(f"diagnosing {model}")
    )
    if as_json:
        print_json(report)
        return
    head, *rows = table(report)
    print_table(head, rows)
    for model, result in report["models"].items():
        for line in result["verdict"]:
            click.echo(f"{model}: {line}")
    if moved := comparison(report):
        print_table(moved[0], moved[1:])
    tell(f"wrote {out / 'diagnose.html'} and the files beside it")
