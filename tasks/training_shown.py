"""A training as the run shows it while it goes on: log lines and a progress bar."""

from typing import Any

from infra.ports import TrainingUpdate
from tasks.artifacts import Progress


class Shown:
    """Where the updates of one training go.

    Args:
        log: The run's logger.
        progress: Its progress bar.
    """

    def __init__(self, log: Any, progress: Progress) -> None:
        self._log = log
        self._progress = progress
        self._said = ""

    def see(self, update: TrainingUpdate) -> None:
        """Each text becomes one log line, however often it comes; a share moves the bar."""
        if update.text != self._said and update.done is None:
            (self._log.warning if update.level == "warning" else self._log.info)(update.text)
        self._said = update.text
        if update.done is not None:
            self._progress.update(update.done, 1, update.text)

    def end(self) -> None:
        self._progress.update(1, 1, self._said)
