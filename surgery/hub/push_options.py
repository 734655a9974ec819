"""What a push is asked to do, and what it tells afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...patches.errors import LostattnError
from .names import MAIN, check_ref, check_repo
from .session import PATIENCE
from .steps import Step, totals


@dataclass(frozen=True)
class PushOptions:
    """What the user asked for.

    Attributes:
        repo: `user/name`.
        private: make the repository private if it is new.
        create_pr: open a pull request instead of changing the branch.
        revision: branch, made if it is new; None for main.
        base_repo: the base model on the Hub, if the record does not know it.
        tag: to be set on the commit.
        message: of the commit.
        results: JSON file with measured results for the card: compare.json, eval.json, or rows of one's own.
        dry_run: look and tell, send nothing.
        timeout: seconds of silence after which a request is given up.
    """

    repo: str
    private: bool = False
    create_pr: bool = False
    revision: str | None = None
    base_repo: str | None = None
    tag: str | None = None
    message: str | None = None
    results: str | None = None
    dry_run: bool = False
    timeout: float = PATIENCE

    def check(self) -> None:
        """Raise LostattnError for what contradicts itself or cannot be a name."""
        check_repo(self.repo)
        if self.base_repo is not None:
            check_repo(self.base_repo, "--base-repo")
            if self.base_repo == self.repo:
                raise LostattnError("--base-repo is the repository itself: name the model that was patched")
        check_ref(self.revision, "--revision")
        check_ref(self.tag, "--tag")
        if self.create_pr and self.branch is not None:
            raise LostattnError("the Hub opens pull requests against main only: leave out --create-pr or --revision")
        if self.create_pr and self.tag:
            raise LostattnError("a pull request is not part of a branch yet: set the tag after it was merged")
        if self.message is not None and not self.message.strip():
            raise LostattnError("--message is empty: say what the commit does, or leave it out")

    @property
    def branch(self) -> str | None:
        """The branch, None for main."""
        return None if self.revision == MAIN else self.revision


@dataclass(frozen=True)
class Pushed:
    """What was done, or would be.

    Attributes:
        repo, url, commit, pull_request, tag: commit is None if nothing was sent.
        public: whether everybody can read it.
        new: whether the repository did not exist.
        steps: every file.
        notes: what the user should know.
    """

    repo: str
    url: str
    commit: str | None
    steps: tuple[Step, ...]
    public: bool
    new: bool
    pull_request: str | None = None
    tag: str | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        counted = {action: {"files": n, "bytes": size} for action, (n, size) in totals(self.steps).items()}
        return {**vars(self), "steps": [vars(step) for step in self.steps], "totals": counted}
