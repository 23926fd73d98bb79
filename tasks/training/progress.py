"""The progress of a training: measured where the network is fitted, shown in the run that trains."""

import time

from prefect import get_run_logger

from infra.training import TrainingUpdate
from model.values import EpochReport, MachineLoad
from tasks.framework.artifacts import Progress


class ProgressMeter:
    """What one fitting process knows of its training.

    Args:
        epoch: The last one that was done before, where the training goes on.
    """

    def __init__(self, epoch: EpochReport | None = None) -> None:
        self.newest = TrainingUpdate(epoch=epoch)
        """Without a share of the batches."""
        self._load: MachineLoad | None = None
        self._first: tuple[int, float] | None = None

    def epoch(self, report: EpochReport, *, saved: bool) -> TrainingUpdate:
        self.newest = TrainingUpdate(epoch=report, saved=saved)
        return self.newest

    def load(self, load: MachineLoad) -> None:
        self._load = load

    def batch(self, done: int, total: int) -> TrainingUpdate:
        """After `done` of `total` batches."""
        now = time.monotonic()
        self._first = self._first or (done, now)
        first, since = self._first
        seconds_left = (now - since) / (done - first) * (total - done) if done > first else None
        return self.newest.model_copy(update={"done": done / total, "load": self._load, "seconds_left": seconds_left})


class TrainingProgress:
    """The updates of one training, in the log of this run and on its progress bar.

    Args:
        records: Log each update as a line of JSON, for the run that waits for this one; otherwise in words.
    """

    def __init__(self, *, records: bool = False) -> None:
        self._log = get_run_logger()
        self._bar = Progress("training", "Training starts")
        self._records = records
        self._newest = TrainingUpdate()

    def update(self, update: TrainingUpdate) -> None:
        """Log an update once, however often it comes; one with a share of the batches moves the bar instead."""
        if update.done is not None:
            self._bar.update(update.done, 1, update.sentence)
        elif update != self._newest:
            log = self._log.warning if update.level == "warning" else self._log.info
            log(update.line if self._records else update.sentence)
        self._newest = update

    def end(self) -> None:
        self._bar.update(1, 1, self._newest.sentence)
