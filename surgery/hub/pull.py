"""`pull`: a repository from the Hub into a folder, whole and checked, or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors, read_json, sync_tree, write_json
from ..checkpoint.folder import OTHER_WEIGHTS
from ..checkpoint.hashing import sha256_file
from ..checkpoint.manifest import MANIFEST, read_manifest
from ..checkpoint.publish import check_replaceable, publishing
from ..checkpoint.verification import verify
from .errors import hub_answers
from .names import check_ref, check_repo, count_text, size_text
from .remote import RemoteFile, git_oid, look
from .session import PATIENCE, hub_session

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_STATE = "lostattn-pull.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulled:
    """What was fetched: the folder, from where, how much, and whether it is a patched model."""

    path: Path
    repo: str
    commit: str
    files: int
    size: int
    patched: bool
    left_out: tuple[str, ...] = ()


def pull(
    repo: str,
    out: str | Path | None = None,
    *,
    revision: str | None = None,
    force: bool = False,
    timeout: float = PATIENCE,
) -> Pulled:
    """Fetch a repository into a folder; an interrupted run is continued by the next.

    Files gather in `.OUT.lostattn-pull` beside the destination, are checked against the Hub's hashes and, if the model
    is patched, against its own record; only then they take the destination's name. No code is run.

    Args:
        repo: `user/name`.
        out: destination folder; the repository's name by default.
        revision: branch, tag or commit; main by default.
        force: replace an existing model folder.
        timeout: seconds of silence after which a request is given up.

    Raises:
        LostattnError: whatever went wrong; the destination is then as it was.
    """
    check_repo(repo)
    check_ref(revision, "--revision")
    target = Path(out if out is not None else repo.rpartition("/")[2]).expanduser()
    check_replaceable(target, force)
    with hub_session(timeout) as api:
        at = f"{repo} at revision {revision}" if revision else repo
        with hub_answers(repo, doing=f"{at} could not be looked at"):
            result = look(api, repo, revision)
        patched = MANIFEST in result.files
        files = dict(result.files) if patched else _without_other_weights(result.files)
        left_out = tuple(sorted(set(result.files) - set(files)))
        staging = target.resolve().with_name(f".{target.resolve().name}.lostattn-pull")
        with publishing(target, force=force, source=staging) as (folder, path):
            _prepare(staging, repo, str(result.commit), files)
            _fetch(api, repo, str(result.commit), staging, list(files))
            _check(staging, files, patched)
            _finish(staging, folder)
    size = sum(file.size for file in files.values())
    return Pulled(path, repo, str(result.commit), len(files), size, patched, left_out)


def _without_other_weights(files: Mapping[str, RemoteFile]) -> dict[str, RemoteFile]:
    """A plain model without the same weights in other forms, as `patch` takes it from the Hub."""
    return {name: file for name, file in files.items() if not any(fnmatch(name, p) for p in OTHER_WEIGHTS)}


def _prepare(staging: Path, repo: str, commit: str, files: Mapping[str, RemoteFile]) -> None:
    """A folder to download to: that of an interrupted run for the same commit, else an empty one; and room for the rest."""
    if not files:
        raise LostattnError(f"{repo} holds no files at {commit}: check the name and --revision")
    state = {"repo": repo, "commit": commit}
    if staging.exists() and _state_of(staging) != state:
        shutil.rmtree(staging)
    staging.mkdir(exist_ok=True)
    write_json(staging / _STATE, state)
    here = {name for name, file in files.items() if _has(staging / name, file.size)}
    missing = sum(file.size for name, file in files.items() if name not in here)
    if here:
        logger.info(f"here from an interrupted run: {len(here)} of {count_text(len(files))}")
    free = shutil.disk_usage(staging).free
    if missing > free:
        raise LostattnError(
            f"{size_text(missing)} are to be fetched and {size_text(free)} are free: free some space, or choose a folder "
            "on another disk"
        )
    logger.info(f"fetching {count_text(len(files) - len(here))}, {size_text(missing)}")


def _state_of(staging: Path) -> object:
    try:
        return read_json(staging / _STATE, _STATE)
    except LostattnError:
        return None


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _fetch(api: HfApi, repo: str, commit: str, staging: Path, names: list[str]) -> None:
    mend = "what has arrived is kept for the next run"
    with hub_answers(repo, doing=f"{repo} could not be fetched", mend=mend):
        api.snapshot_download(repo, revision=commit, local_dir=staging, allow_patterns=[_literal(n) for n in names])


def _literal(name: str) -> str:
    """A file name as a pattern that matches only itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _check(staging: Path, files: Mapping[str, RemoteFile], patched: bool) -> None:
    """Every byte by the Hub's hashes, or by the model's own record; what is wrong is removed, to be fetched again."""
    recorded = read_manifest(staging).files if patched else {}
    with disk_errors("cannot read what was fetched"):
        for name, file in sorted(files.items()):
            known = recorded.get(name)
            if known is not None and known.sha256 is not None:
                continue
            path = staging / name
            if not file.holds(path.stat().st_size, "" if file.sha256 is None else sha256_file(path), path):
                path.unlink()
                raise LostattnError(f"{name} arrived damaged: run again, it is fetched anew")
    if patched and (wrong := verify(staging).problems):
        _drop_damaged(staging, wrong[0].file, files)
        raise LostattnError(
            f"{wrong[0].file}: {wrong[0].problem}; run again, and if it stays so, the repository is damaged or was changed: "
            "do not trust it"
        )


def _drop_damaged(staging: Path, name: str, files: Mapping[str, RemoteFile]) -> None:
    """Take a file away that is not what the Hub holds, so that it is fetched again."""
    path, file = staging / name, files.get(name)
    if file is not None and path.is_file():
        right = sha256_file(path) == file.sha256 if file.sha256 is not None else git_oid(path) == file.oid
        if not right:
            path.unlink()


def _finish(staging: Path, folder: Path) -> None:
    """Everything on the disk, bookkeeping away, then the temporary folder's name."""
    (staging / _STATE).unlink()
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_tree(staging)
    os.rename(staging, folder)  # onto the empty folder, in one step
