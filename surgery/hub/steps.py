"""What a push does with every file, settled before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from ...patches.errors import LostattnError
from ..checkpoint.folder import is_weights
from ..checkpoint.manifest import MANIFEST
from .contents import LocalFile
from .remote import RemoteFile, Snapshot

ACTIONS = ("uploaded", "copied", "unchanged", "removed")


@dataclass(frozen=True)
class Step:
    """One file of the commit.

    Attributes:
        name: path in the repository.
        action: `uploaded`, `copied` (on the Hub, from the base), `unchanged` (the repository has it already; left out of
            the commit) or `removed`.
        size: bytes.
        source: path in the base repository, of copies.
        why: a remark for people.
    """

    name: str
    action: str
    size: int
    source: str = ""
    why: str = ""


def settle(
    files: Mapping[str, LocalFile], target: Snapshot, base: Snapshot | None, recorded: Iterable[str] = ()
) -> tuple[Step, ...]:
    """One step per file.

    Args:
        files: what the commit shall lead to.
        target: the repository as it is.
        base: the base model's repository, None if unknown.
        recorded: files of an earlier push, by the record in the repository; those that are no longer wanted go.
    """
    copies = _copyable(base) if base is not None and can_copy() else {}
    steps = [_step(name, file, target, base, copies) for name, file in sorted(files.items())]
    stale = set(recorded) | {name for name in target.files if is_weights(name) or name.endswith(".py")}
    gone = sorted((stale & set(target.files)) - set(files))
    steps += [Step(name, "removed", target.files[name].size, why="not part of this model") for name in gone]
    return tuple(steps)


def changes(steps: Iterable[Step]) -> list[Step]:
    """The steps that the commit consists of."""
    return [step for step in steps if step.action != "unchanged"]


def totals(steps: Iterable[Step]) -> dict[str, tuple[int, int]]:
    """Action -> (files, bytes), in the order of ACTIONS."""
    count, size = Counter[str](), Counter[str]()
    for step in steps:
        count[step.action] += 1
        size[step.action] += step.size
    return {action: (count[action], size[action]) for action in ACTIONS if count[action]}


def uploads_only(steps: Iterable[Step], why: str) -> tuple[Step, ...]:
    """The same steps with every copy turned into an upload."""
    return tuple(Step(s.name, "uploaded", s.size, why=why) if s.action == "copied" else s for s in steps)


def check_base(files: Mapping[str, LocalFile], base: Snapshot) -> None:
    """Raise LostattnError unless some weights of the folder are weights of that base, as far as it holds any."""
    there = {file.sha256 for name, file in base.files.items() if is_weights(name)}
    here = {file.sha256 for name, file in files.items() if is_weights(name)}
    if not there & here:
        raise LostattnError(f"no weight file of this folder lies in {base.repo}: check --base-repo")


def check_target(target: Snapshot, branch: str | None, create_pr: bool) -> None:
    """Raise LostattnError before somebody's plain model on the main branch is overwritten."""
    if branch is None and not create_pr and "config.json" in target.files and MANIFEST not in target.files:
        raise LostattnError(
            f"{target.repo} holds a model that was not patched by lostattn: push to another name, to a branch (--revision), "
            "or as a pull request (--create-pr)"
        )


def can_copy() -> bool:
    """Whether the installed client copies large files from one repository to another."""
    from huggingface_hub import CommitOperationCopy

    return "src_repo_id" in {field.name for field in fields(CommitOperationCopy)}


def _copyable(base: Snapshot) -> dict[str, tuple[str, RemoteFile]]:
    return {f.sha256: (name, f) for name, f in base.files.items() if f.sha256 is not None and f.copyable}


def _step(
    name: str,
    file: LocalFile,
    target: Snapshot,
    base: Snapshot | None,
    copies: Mapping[str, tuple[str, RemoteFile]],
) -> Step:
    there = target.files.get(name)
    if there is not None and there.holds(file.size, file.sha256, file.content):
        return Step(name, "unchanged", file.size, why=f"{target.repo} has it")
    if file.sha256 in copies and base is not None and base.repo != target.repo:
        return Step(name, "copied", file.size, copies[file.sha256][0], f"on the Hub, from {base.repo}")
    return Step(name, "uploaded", file.size)
