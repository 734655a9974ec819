"""One sentence for everything that can go wrong while a model is sent to the Hub, or fetched from it."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
OFTEN = (408, 500, 502, 503, 504)  # trouble that passes


@contextmanager
def hub_answers(repo: str, *, doing: str, mend: str = "") -> Iterator[None]:
    """Turn the client's errors into LostattnError: `doing`, the cause, its mend, then `mend`.

    Messages never hold what the server or the request said: headers and signed addresses stay out.
    """
    try:
        yield
    except (LostattnError, ImportError, NameError, AssertionError):
        raise
    except Exception as error:
        ending = f"; {mend}" if mend else ""
        raise LostattnError(f"{doing}: {explain(error, repo)}{ending}") from None


def status_of(error: BaseException) -> int | None:
    """HTTP status of the answer that the error is about, None if there was none."""
    for link in chain(error):
        if (status := getattr(getattr(link, "response", None), "status_code", None)) is not None:
            return int(status)
    return None


def passes(error: BaseException) -> bool:
    """True for trouble after which the same request may succeed: 5xx, timeouts, a broken connection."""
    status = status_of(error)
    return status in OFTEN if status is not None else any(_broken(link) for link in chain(error))


def moved(error: BaseException) -> bool:
    """True if the commit was refused because its parent is no longer the head."""
    return status_of(error) in (409, 412)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def explain(error: BaseException, repo: str) -> str:
    """Cause and mend, without the server's words."""
    for link in chain(error):
        if sentence := _named(link, repo):
            return sentence
    status = status_of(error)
    if status is not None:
        return _by_status(status, error, repo)
    for link in chain(error):
        if sentence := _transport(link):
            return sentence
    if any(_through_xet(link) for link in chain(error)):
        return (
            "the Hub's Xet storage could not be reached, or refused: check the network and run again, or set "
            "HF_HUB_DISABLE_XET=1 for the classic storage"
        )
    if any(isinstance(link, json.JSONDecodeError | KeyError | TypeError | AttributeError) for link in chain(error)):
        return "the answer was not what a Hub gives: check HF_ENDPOINT and proxies, or update huggingface_hub"
    return f"it failed ({type(error).__name__}): run it again, and update huggingface_hub if that does not help"


def _named(error: BaseException, repo: str) -> str:
    from huggingface_hub import errors

    known: tuple[tuple[type[BaseException], str], ...] = (
        (errors.LocalTokenNotFoundError, "there is no token: run 'hf auth login', or set HF_TOKEN"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set: unset it to reach the Hub"),
        (errors.GatedRepoError, f"{repo} is gated: accept its terms on the Hub, then 'hf auth login'"),
        (errors.DisabledRepoError, f"{repo} was disabled by the Hub: ask its owner, or choose another repository"),
        (errors.RevisionNotFoundError, f"{repo} has no such revision: check the branch, tag or commit"),
        (errors.RepositoryNotFoundError, f"{repo} is not there, or hidden from you: check it, or 'hf auth login'"),
    )
    return next((sentence for kind, sentence in known if isinstance(error, kind)), "")


def _by_status(status: int, error: BaseException, repo: str) -> str:
    if any(_method(link) == "PUT" for link in chain(error)) and status in (400, 401, 403):
        return (
            f"the Hub's storage refused a file ({status}; was the upload slower than its permission lasts?): run again"
        )
    if status == 403 and _about_space(error):
        status = 413
    known = {
        400: "the Hub calls the request malformed: check the names, or update huggingface_hub",
        401: "the Hub does not accept the token: renew it with 'hf auth login', or correct HF_TOKEN",
        402: "the Hub wants a paid plan for this: free space in its settings, or push elsewhere",
        403: f"the token may not do this with {repo}: use a token with write access, or a repository of your own",
        404: f"{repo} is not there, or hidden from you: check it, or 'hf auth login'",
        409: f"{repo} was changed by somebody else meanwhile: run again, which starts from the new state",
        412: f"{repo} was changed by somebody else meanwhile: run again, which starts from the new state",
        413: "the Hub has no more room for this account or repository: free space in its settings, or push elsewhere",
        429: "the Hub asks for fewer requests: wait some minutes and run again",
        507: "the Hub has no more room for this account or repository: free space in its settings, or push elsewhere",
    }
    return known.get(status) or f"the Hub has trouble (HTTP {status}): run again later"


def _method(error: BaseException) -> str:
    return str(getattr(getattr(getattr(error, "response", None), "request", None), "method", ""))


def _about_space(error: BaseException) -> bool:
    """The Hub refuses what exceeds a storage limit as forbidden, and says so in words only."""
    said = " ".join(str(getattr(link, "server_message", "") or "").lower() for link in chain(error))
    return any(word in said for word in ("storage", "quota", "limit reached"))


def _broken(error: BaseException) -> bool:
    return bool(_kinds(error) & {"TimeoutException", "NetworkError", "ProtocolError", "TransportError"})


def _kinds(error: BaseException) -> set[str]:
    """Names of the classes: the client's HTTP library has changed its name between versions."""
    return {kind.__name__ for kind in type(error).__mro__}


def _through_xet(error: BaseException) -> bool:
    """Whether the client was talking to Xet, whose library raises errors that do not say so."""
    step = error.__traceback__
    while step is not None and "xet" not in step.tb_frame.f_code.co_name:
        step = step.tb_next
    return step is not None


def _transport(error: BaseException) -> str:
    kinds = _kinds(error)
    if "TimeoutException" in kinds:
        return "the Hub did not answer in time: check the network and run again (--timeout waits longer)"
    if "ConnectError" in kinds:
        return "the Hub cannot be reached: check the network, proxies and HF_ENDPOINT"
    if _broken(error):
        return "the connection to the Hub broke: check the network and run again"
    return _disk(error)


def _disk(error: BaseException) -> str:
    """This machine's disk, not the network: sockets fail with errors of the system too."""
    if not isinstance(error, OSError) or (error.filename is None and error.errno not in _DISK):
        return ""
    try:
        with disk_errors("on this disk"):
            raise error
    except LostattnError as sentence:
        return str(sentence)
