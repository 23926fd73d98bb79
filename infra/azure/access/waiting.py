"""Waiting for Azure: how long, how often, and what is logged meanwhile."""

import time


class Waiting:
    """Asks often at first, then every few seconds, until the time is over."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._pause = 0.1

    def again(self) -> bool:
        """Sleep a while; False, at once, where the time is over."""
        if time.monotonic() > self._deadline:
            return False
        time.sleep(self._pause)
        self._pause = min(self._pause * 1.3, 5.0)
        return True
