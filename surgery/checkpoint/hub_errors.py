"""One sentence for everything that can go wrong while talking to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...patches.errors import LostattnError


@contextmanager
def hub_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Turn the Hub client's errors into LostattnError; messages never hold what the server or the request said."""
    from huggingface_hub import errors

    at = f"{repo} at revision {revision}" if revision else repo
    known: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, f"{repo} is gated: accept its terms on the Hub, then 'hf auth login'"),
        (errors.RevisionNotFoundError, f"{repo} has no revision '{revision}': check the branch, tag or commit"),
        (errors.RepositoryNotFoundError, f"{repo} is no folder here and not on the Hub: check it, or 'hf auth login'"),
        (errors.HFValidationError, f"'{repo}' is neither a folder here nor a Hub id: write it as org/name"),
        (
            errors.LocalEntryNotFoundError,
            f"{at} is not (or not all) in the cache and the Hub cannot be reached: check the network or HF_HUB_OFFLINE",
        ),
        (errors.HfHubHTTPError, f"the Hub refused to give {at}: check 'hf auth whoami' and try again later"),
    )
    try:
        yield
    except LostattnError:
        raise
    except Exception as error:
        for kind, sentence in known:
            if isinstance(error, kind):
                raise LostattnError(sentence) from None
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise LostattnError(f"cannot store {at} in the Hub cache ({error.strerror}): set HF_HOME") from None
        raise LostattnError(f"{at} could not be fetched ({type(error).__name__}): check the network, retry") from None
