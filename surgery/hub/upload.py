"""Sending a push: large files first, then one commit that either happens whole or not at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...patches.errors import LostattnError
from ..checkpoint.folder import is_weights
from .contents import LocalFile
from .errors import hub_answers, moved, passes, status_of
from .names import MAIN, count_text, size_text
from .remote import RemoteFile, Snapshot, list_files
from .steps import Step, changes, uploads_only

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

AGAIN = "no commit was made, and what was sent is not sent again by the next run"
TRIES = 4
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """What is to be sent where.

    Attributes:
        repo, revision: the repository and its branch, None for main.
        parent: commit that the new one must follow.
        files: path -> file.
        steps: from `steps.settle`.
        base: where copies come from.
        create_pr: as a pull request.
        message, description: of the commit.
    """

    repo: str
    revision: str | None
    parent: str
    files: Mapping[str, LocalFile]
    steps: tuple[Step, ...]
    base: Snapshot | None
    create_pr: bool
    message: str
    description: str = ""


@dataclass(frozen=True)
class Sent:
    """The commit, the pull request's address if there is one, and the steps as they were really done."""

    commit: str
    pull_request: str | None
    steps: tuple[Step, ...]


def send(api: HfApi, delivery: Delivery) -> Sent:
    """Send large files, make the one commit, look whether everything arrived.

    Raises:
        LostattnError: whatever went wrong; the branch's head is then the old commit, unless the message says otherwise.
    """
    doing = f"{delivery.repo} could not be updated"
    with hub_answers(delivery.repo, doing=doing, mend=AGAIN):
        adds = _additions(delivery, delivery.steps)
        _preupload(api, delivery, adds)
        sent = _commit_with_copies(api, delivery, adds)
    with hub_answers(delivery.repo, doing=f"commit {sent.commit} was made, but could not be checked"):
        _check_arrived(delivery, list_files(api, delivery.repo, sent.commit), sent.commit)
    return sent


def _additions(delivery: Delivery, steps: Iterable[Step]) -> list[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd

    results = []
    for step in steps:
        if step.action == "uploaded":
            file = delivery.files[step.name]
            operation = CommitOperationAdd(step.name, file.content)
            operation.upload_info.sha256 = bytes.fromhex(file.sha256)  # known: the client need not read it all again
            results.append(operation)
    return results


def _preupload(api: HfApi, delivery: Delivery, adds: Sequence[CommitOperationAdd]) -> None:
    """Send what is large. A file of which the Hub has the content already is not sent."""
    if not adds:
        return
    stored = _stored(api, delivery, adds)
    if stored:
        size = sum(operation.upload_info.size for operation in stored)
        logger.info(f"on the Hub already and not sent again: {count_text(len(stored))}, {size_text(size)}")
    waiting = sum(operation.upload_info.size for operation in adds) - sum(o.upload_info.size for o in stored)
    logger.info(f"uploading {count_text(len(adds) - len(stored))}, {size_text(waiting)}")
    api.preupload_lfs_files(
        delivery.repo, additions=adds, revision=delivery.revision, create_pr=delivery.create_pr or None
    )
    if ignored := [o.path_in_repo for o in adds if getattr(o, "_should_ignore", False)]:
        raise LostattnError(f"a .gitignore in {delivery.repo} keeps {ignored[0]} out: remove it there, then push again")


def _stored(api: HfApi, delivery: Delivery, adds: Sequence[CommitOperationAdd]) -> list[CommitOperationAdd]:
    """Weights whose content the Hub's classic storage has from an earlier run; its newer storage, Xet, finds out by itself."""
    from huggingface_hub.lfs import post_lfs_batch_info
    from huggingface_hub.utils._runtime import is_xet_available

    weights = {o.upload_info.sha256.hex(): o for o in adds if is_weights(o.path_in_repo)}
    if is_xet_available() or not weights:
        return []
    answers = post_lfs_batch_info(
        [o.upload_info for o in weights.values()],
        token=None,
        repo_type="model",
        repo_id=delivery.repo,
        revision=None if delivery.create_pr else delivery.revision,
        endpoint=api.endpoint,
    )[0]
    return [weights[answer["oid"]] for answer in answers if answer.get("actions") is None]


def _commit_with_copies(api: HfApi, delivery: Delivery, adds: list[CommitOperationAdd]) -> Sent:
    """The commit; if the Hub does not copy between these two repositories, those files are uploaded instead."""
    steps = delivery.steps
    try:
        info = _commit(api, delivery, [*adds, *_copies_and_removals(delivery, steps)])
    except Exception as error:
        if not any(step.action == "copied" for step in steps) or not _copying_failed(error):
            raise
        logger.info(
            f"the Hub does not copy from {delivery.base.repo if delivery.base else 'the base'}: uploading instead"
        )
        steps = uploads_only(steps, "the Hub would not copy it")
        fresh = _additions(delivery, steps)
        _preupload(api, delivery, fresh)
        info = _commit(api, delivery, [*fresh, *_copies_and_removals(delivery, steps)])
    return Sent(info.oid, info.pr_url, steps)


def _copies_and_removals(delivery: Delivery, steps: Iterable[Step]) -> list[Any]:
    from huggingface_hub import CommitOperationCopy, CommitOperationDelete

    results: list[Any] = []
    for step in steps:
        if step.action == "removed":
            results.append(CommitOperationDelete(step.name, is_folder=False))
        elif step.action == "copied" and delivery.base is not None:
            results.append(
                CommitOperationCopy(
                    step.source,
                    step.name,
                    src_revision=delivery.base.commit,
                    src_repo_id=delivery.base.repo,
                    src_repo_type="model",
                )
            )
    return results


def _copying_failed(error: BaseException) -> bool:
    """True if what failed came before the commit: the client duplicates files of another repository first."""
    request = getattr(getattr(error, "response", None), "request", None)
    at = str(getattr(request, "url", ""))
    named = type(error).__name__ in ("FileDuplicationError", "RemoteEntryNotFoundError") or "xet hash" in str(error)
    return named or at.endswith("/lfs-files/duplicate")


def _commit(api: HfApi, delivery: Delivery, operations: Sequence[Any]) -> CommitInfo:
    """One commit on the known parent. After an answer that tells nothing, look before trying again."""
    for turn in range(1, TRIES + 1):
        try:
            return api.create_commit(
                delivery.repo,
                operations,
                commit_message=delivery.message,
                commit_description=delivery.description,
                revision=delivery.revision,
                create_pr=delivery.create_pr or None,
                parent_commit=delivery.parent,
            )
        except Exception as error:
            if arrived := _arrived_unseen(api, delivery, error):
                return arrived
            if not passes(error) or delivery.create_pr or turn == TRIES:
                raise
            seconds = 2 ** (turn - 1)
            logger.warning(
                f"the commit was not answered (HTTP {status_of(error) or 'none'}): trying again in {seconds} s"
            )
            time.sleep(seconds)
    raise AssertionError("unreachable")


def _arrived_unseen(api: HfApi, delivery: Delivery, error: Exception) -> CommitInfo | None:
    """The commit, if the head moved and holds just what was sent: it happened, only its answer was lost."""
    from huggingface_hub import CommitInfo

    if delivery.create_pr or not (passes(error) or moved(error)):
        return None
    try:
        head = api.model_info(delivery.repo, revision=delivery.revision or MAIN).sha
        if not head or head == delivery.parent or _missing(delivery, list_files(api, delivery.repo, head)):
            return None
    except Exception:
        return None  # the first error says more
    return CommitInfo(
        f"{api.endpoint}/{delivery.repo}/commit/{head}",
        commit_message=delivery.message,
        commit_description=delivery.description,
        oid=head,
        _endpoint=api.endpoint,
    )


def _missing(delivery: Delivery, there: Mapping[str, RemoteFile]) -> list[str]:
    """Files that are not as they should be."""
    wrong = [
        name
        for name, file in delivery.files.items()
        if name not in there or not there[name].holds(file.size, file.sha256, file.content)
    ]
    return wrong + [step.name for step in changes(delivery.steps) if step.action == "removed" and step.name in there]


def _check_arrived(delivery: Delivery, there: Mapping[str, RemoteFile], commit: str) -> None:
    if wrong := _missing(delivery, there):
        raise LostattnError(
            f"commit {commit} does not hold {wrong[0]} as it was sent ({len(wrong)} files): look at it on the Hub, and revert it"
        )
