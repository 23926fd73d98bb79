"""Ctrl-C and SIGTERM as the cancellation of the one thing that a command does."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; the first Ctrl-C or SIGTERM cancels it (it may clean up), a second one ends it at once.

    Raises:
        KeyboardInterrupt: It was cancelled and didn't turn that into a result.
    """
    try:
        return asyncio.run(_interruptible(work))
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


async def _interruptible(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def interrupt(number: signal.Signals) -> None:
        task.cancel()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    return await task
