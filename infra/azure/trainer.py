"""Trainings as jobs of the platform's Azure ML workspace."""

from collections.abc import Callable

from infra.ports import TrainingJob, TrainingUpdate
from infra.settings import Settings
from infra.trainers import TrainerFile


class AmlTrainer:
    """A `Trainer`."""

    def __init__(self, described: TrainerFile, settings: Settings) -> None:
        self._described = described
        self._settings = settings

    def train(self, job: TrainingJob, see: Callable[[TrainingUpdate], None]) -> None:
        """See `Trainer.train`."""
        raise NotImplementedError
