"""`lostattn calibrate --fit`: which KV groups are fitted, the fits, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base import Counter, print_table

if TYPE_CHECKING:
    from ...serving.shape import Shape
    from ..calibration import Calibration
    from ..efficient.fits import Fit

Group = tuple[int, int]


@dataclass(frozen=True)
class FitOptions:
    """What is to be fitted: these KV groups, or what the frontier lets go.

    Attributes:
        groups: None: the frontier chooses.
        budgets: shares of the visual KV cache that may be left, one fit each; empty: what keeps 99 % of the answers.
    """

    groups: tuple[Group, ...] | None
    budgets: tuple[float, ...]
    rounds: int | None

    def option(self) -> str:
        """What `lostattn patch` has to be told to take the first fit."""
        if self.groups is None:
            return f"--kv-budget {self.budgets[0]:g} " if self.budgets else ""
        layers: dict[int, list[int]] = {}
        for layer, group in self.groups:
            layers.setdefault(layer, []).append(group)
        named = ";".join(f"{layer}:{','.join(map(str, found))}" for layer, found in layers.items())
        return f"--groups '{named}' "

    def choices(self, found: Calibration) -> list[tuple[Group, ...]]:
        """The KV groups of every fit, without doubles."""
        from ..efficient.choose import KEEP_AGREEMENT

        if self.groups is not None:
            return [self.groups]
        frontier = found.frontier
        assert frontier is not None  # --fit without --groups goes with --frontier
        steps = [frontier.choose(None, b) for b in self.budgets] or [frontier.choose(KEEP_AGREEMENT, None)]
        return list(dict.fromkeys(frontier.chosen(count) for count in steps))


def parse_budgets(text: str | None) -> tuple[float, ...]:
    """Shares such as `0.75,0.5`. LostattnError for anything else."""
    from ...patches.errors import LostattnError

    try:
        results = tuple(float(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        results = (-1.0,)
    if any(not 0 <= share < 1 for share in results):
        raise LostattnError(f"cannot read --kv-budget '{text}': write shares from 0 up to 1, such as 0.75,0.5")
    return results


def fit_options(
    shape: Shape, fit: bool, groups: str | None, kv_budget: str | None, rounds: int | None, **_: Any
) -> FitOptions | None:
    """None if nothing is to be fitted.

    Raises:
        LostattnError: groups that the model does not have, or shares that are none.
    """
    from ..efficient.choose import named_groups
    from ..spec import PatchSpec

    if not fit:
        return None
    chosen = None
    if groups is not None:
        heads = named_groups(PatchSpec(groups=groups), shape) or {}
        sizes = {layer: shape.heads // shape.every[layer].kv_heads for layer in heads}
        chosen = tuple((x, g) for x, found in sorted(heads.items()) for g in sorted({h // sizes[x] for h in found}))
    return FitOptions(chosen, parse_budgets(kv_budget), rounds)


def run_fits(
    chat: Any, source: Any, found: Calibration, examples: Sequence[Any], wanted: Any, of_fit: FitOptions, out: Path
) -> tuple[tuple[Fit, ...], list[Path]]:
    """Fits of all choices of groups, and their partial files.

    Args:
        wanted: mode, options and seed of the plans (`GroupOptions`).
    """
    from ..efficient.fit import FitSettings, fit_groups
    from ..efficient.search import every_group
    from ..efficient.swap import restrict

    whole = every_group(source, found, wanted.mode, wanted.options, wanted.seed)
    default = FitSettings()
    settings = FitSettings(rounds=of_fit.rounds or default.rounds, max_new_tokens=wanted.max_new_tokens)
    fits, partials = [], []
    for number, groups in enumerate(of_fit.choices(found)):
        partials.append(out.with_name(f"{out.name}.fit{number}.partial"))
        tick = Counter(f"fitting {len(groups)} KV groups")
        fits.append(fit_groups(chat, restrict(whole, groups), examples, settings, partials[-1], tick))
    return tuple(fits), partials


def print_fits(found: Calibration, kv_groups: int) -> None:
    """One row per fit; `kv_groups` are all of the model."""
    if not found.fits:
        return
    rows = []
    for fit in found.fits:
        count = sum(map(len, fit.weights.values()))
        rows.append(
            [
                count,
                f"{100 * count / kv_groups:.1f} %",
                f"{fit.start.kl:.2e}",
                f"{fit.harm.kl:.2e}",
                f"{100 * fit.start.agreement:.1f} %",
                f"{100 * fit.harm.agreement:.1f} %",
                f"{fit.rounds}",
            ]
        )
    print_table(
        [
            "KV groups fitted",
            "visual KV saved",
            "KL before (nats)",
            "KL after",
            "answers that stay, before",
            "after",
            "rounds",
        ],
        rows,
    )
