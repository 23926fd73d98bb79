"""What a training says of itself while it runs: its last epoch, its speed, its GPU, the time that is left."""

import time
from typing import TYPE_CHECKING, Any, Final

from infra.ports import TrainingUpdate
from tasks.framework.artifacts import Progress

if TYPE_CHECKING:
    from model.training.fit import EpochReport
    from model.training.machine_load import MachineLoad

STARTS: Final = "Warming up the head"
GIB: Final = 1 << 30


class TrainingText:
    """The text of one training in one process."""

    def __init__(self) -> None:
        self.said = STARTS
        """The last epoch in words."""
        self._load = ""
        self._first: tuple[int, float] | None = None

    def epoch(self, report: "EpochReport") -> None:
        speed = f", {report.images_per_second:.0f} images/s" if report.images_per_second else ""
        self.said = (
            f"Epoch {report.epoch} of {report.epochs}: validation accuracy {report.validation_accuracy:.3f}, "
            f"loss {report.validation_loss:.3f}{speed}"
        )

    def load(self, load: "MachineLoad") -> None:
        parts = [f"{load.images_per_second:.0f} images/s now"]
        if load.gpu_utilisation is not None:
            parts.append(f"GPU {load.gpu_utilisation:.0%}")
        if load.gpu_memory_used is not None and load.gpu_memory_total is not None:
            parts.append(f"{load.gpu_memory_used / GIB:.1f} of {load.gpu_memory_total / GIB:.0f} GiB")
        self._load = ", ".join(parts)

    def batch(self, done: int, total: int) -> str:
        """After `done` of `total` batches."""
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        before, since = self._first
        left = (now - since) / (done - before) * (total - done) if done > before else None
        return ", ".join(filter(None, (self.said, self._load, "" if left is None else f"{duration(left)} left")))


def duration(seconds: float) -> str:
    """In the unit that a person would say it in."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
