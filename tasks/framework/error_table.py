"""The table of everything that can go wrong: names, exit codes, what is retried, and how foreign errors are translated.

Light on purpose (no Prefect): the command line reads it too.
"""

import errno
import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from infra.errors import SIGNATURE, DiskFull, PlatformError, ReleaseRejected, ServerUnreachable
from model.errors import KnownError
from model.faults import known_errors

BUSY: Final = (408, 429, 500, 502, 503, 504)
"""What a server answers that is there and can't answer now."""
NEVER_RESUMED: Final = "never resumed"

OUTCOMES: Final[Mapping[str, int]] = {
    "Completed": 0,
    "NotPromoted": 3,
    "Drifted": 4,
    "Failed": 40,
    "Crashed": 41,
    "Cancelled": 42,
    "FollowTimeout": 43,
}
"""Exit codes of how a run can end apart from the known errors; a usage error is 2, an unexpected one 1."""


ERRORS: Final[Mapping[str, type[KnownError]]] = known_errors()
"""Class name to class; a run that ends in one of these has a final state of this name."""


def exit_code(state_type: str, state_name: str) -> int:
    """The exit code for a final state of a flow run, by its name, else by its type."""
    if state_name in ERRORS:
        return ERRORS[state_name].exit_code
    return OUTCOMES.get(state_name, OUTCOMES.get(state_type.capitalize(), OUTCOMES["Failed"]))


def expired(state_type: str, message: str) -> bool:
    """Whether a run ended because nobody decided on it in time: Prefect ends it, by a state of its own."""
    return state_type == "FAILED" and NEVER_RESUMED in message


def ended_as(state_type: str, state_name: str, message: str) -> str:
    """The name of a run's state; `ReleaseRejected` where Prefect ended a run on which nobody decided in time."""
    return ReleaseRejected.__name__ if expired(state_type, message) else state_name


def runbook(error_name: str) -> str:
    """The section of the runbook about the error class of this name."""
    return f"docs/runbook.md#{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '-', error_name).lower()}"


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help."""
    return isinstance(error, KnownError) and error.transient


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise foreign errors that have a translation as `PlatformError`, the original chained."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        # Loaded where it is needed: the command line reads the table alone, and is to start at once.
        from infra.backend import translate

        platform_error = translate(error) or _of_prefect(error) or _of_a_full_disk(error)
        if platform_error is None:
            raise
        # A traceback and the record of the fault would quote the chained error too.
        raise platform_error from (None if SIGNATURE.search(str(error)) else error)


def _of_a_full_disk(error: Exception) -> PlatformError | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"No space left while writing {error.filename or 'a file'}.")
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return DiskFull(f"No space left for a database: {error}.")
    # Libraries wrap what the system or SQLite said.
    if "database or disk is full" in str(error) or "No space left on device" in str(error):
        return DiskFull(f"No space left: {error}.")
    return None


def _of_prefect(error: Exception) -> PlatformError | None:
    unanswered = _loaded("httpx", "TransportError")
    refused = _loaded("prefect.exceptions", "PrefectHTTPStatusError")
    # The project's own clients translate what they meet themselves: what comes through here is Prefect's.
    if isinstance(error, unanswered):
        return ServerUnreachable(f"The Prefect server stopped answering: {error}.")
    if isinstance(error, refused) and error.response.status_code in BUSY:
        return ServerUnreachable(f"The Prefect server answers {error.response.status_code}: {error}.")
    return None


def _loaded(module: str, name: str) -> Any:
    """A type of a library that this process has loaded; no type where it has not, since nothing raised it then."""
    return getattr(sys.modules.get(module), name, ())
