"""The table of everything that can go wrong: names, exit codes, what is retried, and how foreign errors are translated.

Light on purpose (no Prefect): the command line reads it too.
"""

import errno
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from infra.errors import DiskFull, PlatformError, ServerUnreachable
from model.errors import ModelError

Known = ModelError | PlatformError

OUTCOMES: Final[Mapping[str, int]] = {
    "Completed": 0,
    "NotPromoted": 3,
    "Failed": 40,
    "Crashed": 41,
    "Cancelled": 42,
    "FollowTimeout": 43,
}
"""Exit codes of how a run can end apart from our errors; a usage error is 2, an unexpected one 1."""


def _leaves(root: type[Known]) -> Iterator[type[Known]]:
    for child in root.__subclasses__():
        yield child
        yield from _leaves(child)


ERRORS: Final[Mapping[str, type[Known]]] = {
    error.__name__: error for root in (ModelError, PlatformError) for error in _leaves(root)
}
"""Class name to class; a run that ends in one of these has a final state of this name."""


def exit_code(state_type: str, state_name: str) -> int:
    """The exit code for a final state of a flow run, by its name, else by its type."""
    if state_name in ERRORS:
        return ERRORS[state_name].exit_code
    return OUTCOMES.get(state_name, OUTCOMES.get(state_type.capitalize(), OUTCOMES["Failed"]))


def runbook(error_name: str) -> str:
    """The section of the runbook about the error class of this name."""
    return f"docs/runbook.md#{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '-', error_name).lower()}"


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help."""
    return isinstance(error, Known) and error.transient


@contextmanager
def translated() -> Iterator[None]:
    """Raise foreign errors that we know as errors of ours, the original chained."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"No space left while writing {error.filename or 'a file'}.") from error
        raise
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise DiskFull(f"No space left for a database: {error}.") from error
        raise
    except Exception as error:
        if _names(error) & {"ConnectError", "PrefectHTTPStatusError", "ReadTimeout"} and "prefect" in _origin(error):
            raise ServerUnreachable(f"The Prefect server stopped answering: {error}.") from error
        if "database or disk is full" in str(error) or "No space left on device" in str(error):
            raise DiskFull(f"No space left: {error}.") from error
        raise


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _origin(error: BaseException) -> str:
    trace, modules = error.__traceback__, []
    while trace:
        modules.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return " ".join(modules)
