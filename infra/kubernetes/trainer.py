"""Trainings as runs of a Prefect deployment whose work pool starts Kubernetes jobs."""

from collections.abc import Callable

from infra.ports import TrainingJob, TrainingUpdate
from infra.trainers import TrainerFile


class PrefectTrainer:
    """A `Trainer`."""

    def __init__(self, described: TrainerFile) -> None:
        self._described = described

    def train(self, job: TrainingJob, see: Callable[[TrainingUpdate], None]) -> None:
        """See `Trainer.train`."""
        raise NotImplementedError
