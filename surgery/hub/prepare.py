"""Preparing a push: what the Hub holds already, and what follows from it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...patches.errors import LostattnError
from ..checkpoint.belongings import left_out_notes
from ..checkpoint.manifest import MANIFEST, Manifest
from .card import base_licence, hub_card
from .contents import Contents, LocalFile, with_card
from .errors import hub_answers, status_of
from .push_options import PushOptions
from .remote import Snapshot, look
from .results import Result
from .steps import Step, check_base, check_target, settle

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Prepared:
    """Everything that a push does, before it does it.

    Attributes:
        target: the branch as it is. new: whether its repository is still to be made.
        base: the base model on the Hub, None if unknown.
        files, steps: what the commit shall lead to, and how.
        notes: what the user should know.
    """

    target: Snapshot
    new: bool
    base: Snapshot | None
    files: dict[str, LocalFile]
    steps: tuple[Step, ...]
    notes: list[str]


def prepare(api: HfApi, options: PushOptions, contents: Contents, results: tuple[Result, ...]) -> Prepared:
    """Look at the target and the base, write the card, settle the steps; only reads from the Hub."""
    notes = [f"{name} is not part of what was patched and stays here" for name in contents.left_out]
    notes += left_out_notes(contents.kept_back)
    target, new = _target(api, options, notes)
    base = _base(api, options, contents.manifest, notes)
    origin: dict[str, str | None] = dict(contents.manifest.base)
    if base is not None:
        if options.base_repo is not None:
            check_base(contents.files, base)
        origin |= {"repo": base.repo, "revision": base.commit}
    if not base_licence(contents.manifest, base):
        notes.append("no licence of the base model was found: its terms apply all the same, name them in the card")
    card = hub_card(contents.card, contents.manifest, options.repo, base, results)
    files = with_card(contents, card, origin)
    check_target(target, options.branch, options.create_pr)
    return Prepared(target, new, base, files, settle(files, target, base, _recorded(api, target)), notes)


def _target(api: HfApi, options: PushOptions, notes: list[str]) -> tuple[Snapshot, bool]:
    """The branch as it is, and whether the repository is new."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    empty = Snapshot(options.repo, None, private=options.private)
    with hub_answers(options.repo, doing=f"{options.repo} could not be looked at"):
        try:
            try:
                result = look(api, options.repo, options.branch)
            except RevisionNotFoundError:
                result = look(api, options.repo)  # the branch will start there
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            if options.create_pr:
                raise LostattnError(
                    f"{options.repo} is not there, so nothing can be proposed: leave out --create-pr"
                ) from None
            return empty, True
        except Exception as error:
            if not options.dry_run:
                raise
            notes.append(f"{options.repo} could not be looked at ({status_of(error) or 'offline'}): taken as new")
            return empty, True
    if options.private and not result.private:
        raise LostattnError(f"{options.repo} exists and is public: change that in its settings, or leave out --private")
    return result, False


def _base(api: HfApi, options: PushOptions, manifest: Manifest, notes: list[str]) -> Snapshot | None:
    """The base model on the Hub; one that the user named must be readable."""
    repo = options.base_repo or manifest.base.get("repo")
    if not repo:
        return None
    same = repo == manifest.base.get("repo")
    try:
        base = look(api, repo, manifest.base.get("revision") if same else None)
    except Exception as error:
        if options.base_repo is not None and not options.dry_run:
            with hub_answers(repo, doing=f"the base {repo} could not be looked at"):
                raise
        notes.append(
            f"the base {repo} could not be looked at ({status_of(error) or 'offline'}): nothing is copied from it"
        )
        return None
    if base.private or base.gated:
        kind = "private" if base.private else "gated"
        notes.append(f"the base {repo} is {kind}: a push hands its weights to whoever can read {options.repo}")
    return base


def _recorded(api: HfApi, target: Snapshot) -> list[str]:
    """Files of the model that the repository holds now, by its own record."""
    if target.commit is None or MANIFEST not in target.files:
        return []
    with (
        hub_answers(target.repo, doing=f"{MANIFEST} of {target.repo} could not be read"),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = api.hf_hub_download(target.repo, MANIFEST, revision=target.commit, local_dir=folder)
        try:
            return list(Manifest.from_json(json.loads(Path(path).read_text(encoding="utf-8"))).files)
        except (LostattnError, ValueError, RecursionError):
            return []  # not ours any more: what could be loaded is removed all the same
