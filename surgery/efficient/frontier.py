"""The measured frontier: KV groups in the order in which they can go, with the joint harm at every step. Kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...patches.errors import LostattnError

Group = tuple[int, int]  # layer, KV head

# What a measured harm depends on besides the groups: a plan that differs here was not measured.
SETTINGS = ("mode", "options", "scores", "queries", "blend", "seed", "temperature")


@dataclass(frozen=True)
class Harm:
    """How far a plan moves the output, over the answers that the original gave to the calibration questions.

    Attributes:
        kl: mean over answers of KL(original, patched) of the next token, mean over the tokens of the answer, nats.
        agreement: share of answers that stay: at every token of the answer, behind those before it, the first choice is
            the original's, so greedy decoding gives the same answer.
        tokens: share of the answers' tokens at which the first choice is the original's.
    """

    kl: float
    agreement: float
    tokens: float


@dataclass(frozen=True)
class Step:
    """Groups that go at this step, and the measured harm of all that are gone then together.

    Attributes:
        back: groups that went earlier and come back, because one of `groups` does less harm in their place (an exchange).
    """

    groups: tuple[Group, ...]
    harm: Harm
    back: tuple[Group, ...] = ()


@dataclass(frozen=True)
class Frontier:
    """What was measured of a model's KV groups.

    All KV groups of the supported families hold equally many bytes, so the least harm per byte is the least harm.

    Attributes:
        settings: of the plans that were measured, see `SETTINGS`.
        kv_groups: all (layer, KV head) pairs of the model.
        samples: questions whose original answers were compared. max_new_tokens: their greatest length.
        alone: each group's harm when it alone is patched.
        steps: the search; empty where only `alone` was measured.
    """

    settings: Mapping[str, Any]
    kv_groups: int
    samples: int
    max_new_tokens: int
    alone: Mapping[Group, Harm]
    steps: tuple[Step, ...] = field(default=())

    def chosen(self, count: int) -> tuple[Group, ...]:
        """All groups that are gone after the first `count` steps, in order of layer and KV head."""
        gone = set[Group]()
        for step in self.steps[:count]:
            gone = (gone - set(step.back)) | set(step.groups)
        return tuple(sorted(gone))

    def saved(self, count: int) -> float:
        """Share of the KV cache of visual tokens that the first `count` steps save."""
        return len(self.chosen(count)) / self.kv_groups

    def to_json(self) -> dict[str, Any]:
        """JSON form, numbers rounded to 7 digits."""
        alone = [{"group": list(g), **_rounded(h)} for g, h in sorted(self.alone.items())]
        steps = [
            {"groups": [list(g) for g in s.groups], **_rounded(s.harm)}
            | ({"back": [list(g) for g in s.back]} if s.back else {})
            for s in self.steps
        ]
        return {
            "settings": dict(self.settings),
            "kv_groups": self.kv_groups,
            "samples": self.samples,
            "max_new_tokens": self.max_new_tokens,
            "alone": alone,
            "steps": steps,
        }

    @classmethod
    def from_json(cls, raw: Any) -> Frontier:
        """Read what `to_json` wrote. Raises LostattnError for anything else."""
        try:
            alone = {_group(row["group"]): _harm(row) for row in raw["alone"]}
            steps = tuple(
                Step(_groups(row["groups"]), _harm(row), _groups(row.get("back", ()))) for row in raw["steps"]
            )
            settings = {name: raw["settings"][name] for name in SETTINGS}
            groups, samples, tokens = (raw[name] for name in ("kv_groups", "samples", "max_new_tokens"))
            if len(raw) != 6 or not all(isinstance(n, int) and n > 0 for n in (groups, samples, tokens)):
                raise ValueError("a number is missing or none")
            result = cls(settings, groups, samples, tokens, alone, steps)
            result._check_steps()
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise LostattnError("the frontier in the calibration is damaged: make it anew") from error
        return result

    def _check_steps(self) -> None:
        """ValueError for steps that cannot follow one another."""
        gone = set[Group]()
        for step in self.steps:
            going, back = set(step.groups), set(step.back)
            if len(going) < len(step.groups) or going & gone or not back <= gone or len(going) <= len(back):
                raise ValueError("a step lets groups go that are gone, or back that are not")
            gone = (gone - back) | going
        if not gone <= set(self.alone):
            raise ValueError("a step names a group that was not measured alone")

    def check(self, settings: Mapping[str, Any]) -> None:
        """LostattnError unless the frontier was measured with the settings of a plan (see `SETTINGS`)."""
        for name in SETTINGS:
            if settings[name] != self.settings[name]:
                raise LostattnError(
                    f"the frontier in the calibration was measured with {name} {shown(self.settings[name])}, and this plan "
                    f"has {shown(settings[name])}: choose the same, or run 'lostattn calibrate --frontier' with it"
                )

    def choose(self, keep_agreement: float | None, kv_budget: float | None) -> int:
        """The number of steps to take.

        Args:
            keep_agreement: share of answers that have to stay: the most groups that keep it.
            kv_budget: share of the KV cache of visual tokens that may be left: the fewest groups that meet it.

        Raises:
            LostattnError: no search in the file, or options that no step meets.
        """
        if not self.steps:
            raise LostattnError(
                "the calibration holds no frontier, only single groups: make one with 'lostattn calibrate --frontier'"
            )
        kept = [i for i, s in enumerate(self.steps, 1) if s.harm.agreement >= (keep_agreement or 0.0)]
        if not kept:
            best = max(s.harm.agreement for s in self.steps)
            raise LostattnError(
                f"no plan of the frontier keeps {100 * (keep_agreement or 0):g} % of the answers: the gentlest keeps "
                f"{100 * best:.1f} %; ask for less with --keep-agreement"
            )
        if kv_budget is None:
            return kept[-1]
        enough = [i for i in kept if 1 - self.saved(i) <= kv_budget + 1e-9]
        if not enough:
            raise LostattnError(
                f"no plan of the frontier leaves {100 * kv_budget:g} % of the visual KV cache or less and keeps the asked "
                f"agreement: the most that can be saved is {100 * self.saved(kept[-1]):.1f} %; raise --kv-budget or lower "
                "--keep-agreement"
            )
        return enough[0]


def frontier_rows(frontier: Frontier, chosen: int | None = None) -> list[list[object]]:
    """Rows for a table with `FRONTIER_HEAD`; the chosen step is marked."""
    return [
        [
            ">" if i == chosen else "",
            len(frontier.chosen(i)),
            f"{100 * frontier.saved(i):.1f} %",
            f"{100 * s.harm.agreement:.1f} %",
            f"{s.harm.kl:.2e}",
            _went(s),
        ]
        for i, s in enumerate(frontier.steps, 1)
    ]


def _went(step: Step) -> str:
    going, back = (" ".join(f"{layer}:{group}" for layer, group in groups) for groups in (step.groups, step.back))
    return f"{going}, back {back}" if back else going


FRONTIER_HEAD = ["", "KV groups", "visual KV saved", "answers that stay", "KL (nats)", "goes (layer:group)"]


def _rounded(harm: Harm) -> dict[str, float]:
    return {k: float(f"{v:.7g}") for k, v in asdict(harm).items()}


def _harm(row: Mapping[str, Any]) -> Harm:
    kl, agreement, tokens = (float(row[name]) for name in ("kl", "agreement", "tokens"))
    if not (0 <= kl < float("inf") and 0 <= agreement <= 1 and 0 <= tokens <= 1):
        raise ValueError("a harm out of range")
    return Harm(kl, agreement, tokens)


def _groups(pairs: Sequence[Any]) -> tuple[Group, ...]:
    return tuple(_group(pair) for pair in pairs)


def _group(pair: Sequence[Any]) -> Group:
    layer, group = pair
    if not (isinstance(layer, int) and isinstance(group, int) and layer >= 0 and group >= 0):
        raise ValueError("not a KV group")
    return layer, group


def shown(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
