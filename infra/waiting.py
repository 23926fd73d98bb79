"""Waiting for something that others do: how often to look, and for how long."""

import time
from collections.abc import Iterator


def polls(seconds: float, *, pause: float = 0.1, longest_pause: float | None = None) -> Iterator[float]:
    """Yield once at once, then after each pause, until the time is over.

    A loop over it looks at what it waits for, and leaves when that is there; where the loop ends by itself, it was not.

    Args:
        seconds: How long to wait in all; the last look is at the end of it.
        pause: Between the first two looks; each is 1.3 times as long as the one before, up to `longest_pause`.
        longest_pause: As `pause` where None: then all are equal.

    Yields:
        Seconds since the first look.
    """
    start = time.monotonic()
    while True:
        passed = time.monotonic() - start
        yield passed
        left = seconds - (time.monotonic() - start)
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(pause * 1.3, longest_pause if longest_pause is not None else pause)
