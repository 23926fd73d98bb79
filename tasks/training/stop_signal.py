"""A process that is asked to stop finishes its step first: SIGTERM, and what else may ask."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

ASKED_EVERY: Final = 5.0
"""Seconds between two questions to a server."""


@contextmanager
def asked_to_stop(cancelled: Callable[[], bool] = lambda: False) -> Iterator[Callable[[], bool]]:
    """Gives a function that answers whether this process is to stop.

    SIGTERM makes it answer True. When the block ends, what SIGTERM did before happens: under Prefect the run counts as
    crashed, and is continued elsewhere; that doesn't happen where the work isn't wanted any more. Signals reach
    the main thread only: in another one, nothing is changed.

    Args:
        cancelled: Asked every few seconds whether the work isn't wanted any more.
    """
    asked = threading.Event()
    last = time.monotonic()

    def stop() -> bool:
        nonlocal last
        if not asked.is_set() and time.monotonic() - last > ASKED_EVERY:
            last = time.monotonic()
            return cancelled()
        return asked.is_set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(_signal: int, _frame: Any) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
        # A worker ends a cancelled run by SIGTERM too: that one has not crashed, and nobody is to start it again.
        if asked.is_set() and not cancelled():
            signal.raise_signal(signal.SIGTERM)
