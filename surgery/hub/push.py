"""`push`: a patched folder to the Hub, in one commit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...patches.errors import LostattnError
from ..checkpoint.manifest import read_patched
from .contents import check_card, read_contents
from .errors import hub_answers
from .names import size_text
from .prepare import Prepared, prepare
from .push_options import Pushed, PushOptions
from .results import Result, read_results
from .session import has_token, hub_session
from .steps import changes
from .upload import Delivery, send

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Pushed", "PushOptions", "push"]
logger = logging.getLogger(__name__)


def push(
    directory: str | Path,
    options: PushOptions,
    *,
    confirm: Callable[[str], bool] | None = None,
) -> Pushed:
    """Push a patched folder: everything in one commit, or nothing.

    Args:
        directory: a folder written by `lostattn patch`; it is verified first and never changed.
        options: where to and how.
        confirm: asked before anything becomes public; None refuses.

    Raises:
        LostattnError: any mistake or trouble, in one sentence; the repository then is as it was, but perhaps new and empty.
    """
    options.check()
    check_card(directory)
    results = _results(directory, options)
    if not options.dry_run and not has_token():
        raise LostattnError("there is no token: run 'hf auth login', or set HF_TOKEN to one with write access")
    with hub_session(options.timeout) as api:
        if not options.dry_run:
            with hub_answers(options.repo, doing="the Hub was asked who you are"):
                api.whoami()
        contents = read_contents(directory)
        prepared = prepare(api, options, contents, results)
        if options.dry_run:
            return _result(api, options, prepared, None)
        if changes(prepared.steps):
            _ask(options, prepared, confirm)
            return _send(api, options, prepared)
        logger.info(f"{options.repo} holds this model already: no commit is needed")
        return _tagged(api, options, prepared, str(prepared.target.commit))


def _results(directory: str | Path, options: PushOptions) -> tuple[Result, ...]:
    if options.results is None:
        return ()
    patched = read_patched(directory)
    return read_results(options.results, patched.plan, patched.path.name)


def _ask(options: PushOptions, prepared: Prepared, confirm: Callable[[str], bool] | None) -> None:
    """Nothing becomes public without a yes."""
    if prepared.target.private:
        return
    if confirm is None:
        raise LostattnError(f"{options.repo} would be public: say --yes to that, or --private")
    changed = changes(prepared.steps)
    size = size_text(sum(step.size for step in changed if step.action != "removed"))
    warned = [note for note in prepared.notes if note.startswith("the base ") and "hands its weights" in note]
    question = f"{options.repo} is public: everybody will be able to read these {len(changed)} files ({size}). Go on?"
    if not confirm(" ".join([*(f"{note[0].upper()}{note[1:]}." for note in warned), question])):
        raise LostattnError("nothing was pushed: say --private to keep it to yourself")


def _send(api: HfApi, options: PushOptions, prepared: Prepared) -> Pushed:
    head = _make_room(api, options, prepared)
    delivery = Delivery(
        options.repo,
        options.branch,
        head,
        prepared.files,
        prepared.steps,
        prepared.base,
        options.create_pr,
        options.message or "Push a model patched with lostattn",
    )
    sent = send(api, delivery)
    return _tagged(api, options, replace(prepared, steps=sent.steps), sent.commit, sent.pull_request)


def _make_room(api: HfApi, options: PushOptions, prepared: Prepared) -> str:
    """Make repository and branch where they are missing; the commit that the push has to follow."""
    with hub_answers(options.repo, doing=f"{options.repo} could not be made ready", mend="nothing was sent"):
        if prepared.new:
            api.create_repo(options.repo, private=options.private, exist_ok=False)
        head = prepared.target.commit
        if options.branch is not None and not options.branch.startswith("refs/"):
            api.create_branch(options.repo, branch=options.branch, revision=head, exist_ok=True)
        return head or str(api.model_info(options.repo, revision=options.branch).sha)


def _tagged(
    api: HfApi, options: PushOptions, prepared: Prepared, commit: str, pull_request: str | None = None
) -> Pushed:
    """The result, with the tag set if one was asked for."""
    if options.tag:
        doing = f"the commit {commit} stands, but the tag {options.tag} could not be set (does it exist already?)"
        with hub_answers(options.repo, doing=doing):
            api.create_tag(options.repo, tag=options.tag, revision=commit)
    return _result(api, options, prepared, commit, pull_request)


def _result(
    api: HfApi, options: PushOptions, prepared: Prepared, commit: str | None, pull_request: str | None = None
) -> Pushed:
    at = f"/tree/{options.branch}" if options.branch else ""
    return Pushed(
        options.repo,
        f"{api.endpoint}/{options.repo}{at}",
        commit,
        prepared.steps,
        not prepared.target.private,
        prepared.new,
        pull_request,
        options.tag if commit is not None else None,
        prepared.notes,
    )
