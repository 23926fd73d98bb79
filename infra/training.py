"""A training on another machine: the job, what it reports, and the port `Trainer` of who runs it."""

from collections.abc import Callable
from typing import Literal, Protocol, Self

from pydantic import Field, ValidationError

from model.config import TrainingConfig
from model.values import DataVersion, EpochReport, Frozen, MachineLoad

GIB = 1 << 30


class TrainingJob(Frozen):
    """One training for another machine. What it makes lies in the shared store, under `training/KEY`."""

    key: str = Field(description="Of everything that the training depends on; jobs of one key are the same job.")
    label: str = Field(description="What people read, such as `efficientnet_lite0 on food@1a2b3c`.")
    data: DataVersion
    config: TrainingConfig
    nodes: int = Field(default=1, ge=1, description="Machines that train together.")


class TrainingUpdate(Frozen):
    """What a training reports while it runs: facts, as one line of JSON in the log of its job."""

    text: str = Field(default="", description="A notice that no other field holds.")
    level: Literal["info", "warning"] = "info"
    done: float | None = Field(default=None, ge=0, le=1, description="Share of all batches; None where not known.")
    epoch: EpochReport | None = Field(default=None, description="The last one that is done.")
    saved: bool = Field(default=False, description="Whether another machine could go on after that epoch.")
    load: MachineLoad | None = None
    seconds_left: float | None = None

    @classmethod
    def of_line(cls, line: str, level: Literal["info", "warning"] = "info") -> Self:
        """The update of a log line; a line that is none becomes the text of one."""
        try:
            return cls.model_validate_json(line)
        except ValidationError:
            return cls(text=line, level=level)

    @property
    def line(self) -> str:
        """One line of JSON."""
        return self.model_dump_json(exclude_defaults=True)

    @property
    def sentence(self) -> str:
        """In words, for whoever shows it."""
        facts: list[str] = []
        if self.epoch is not None:
            epoch = self.epoch
            facts += [
                f"Epoch {epoch.epoch} of {epoch.epochs}: validation accuracy {epoch.validation_accuracy:.3f}",
                f"loss {epoch.validation_loss:.3f}",
            ]
            if epoch.images_per_second:
                facts.append(f"{epoch.images_per_second:.0f} images/s")
        if self.load is not None:
            load = self.load
            facts.append(f"{load.images_per_second:.0f} images/s now")
            if load.gpu_utilisation is not None:
                facts.append(f"GPU {load.gpu_utilisation:.0%}")
            if load.gpu_memory_used is not None and load.gpu_memory_total is not None:
                facts.append(f"{load.gpu_memory_used / GIB:.1f} of {load.gpu_memory_total / GIB:.0f} GiB")
        if self.seconds_left is not None:
            facts.append(f"{_duration(self.seconds_left)} left")
        return " ".join(filter(None, (self.text, ", ".join(facts))))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Trainer(Protocol):
    """Another machine that fits networks."""

    def train(self, job: TrainingJob, see: Callable[[TrainingUpdate], None]) -> None:
        """See this job to its end; one of the same key that runs already is followed, not started again.

        Evictions and lost nodes are no failure: the job is started again and goes on at its last checkpoint, and `see`
        is told. A cancelled caller cancels the job; one that merely dies leaves it running, for its next attempt.

        Raises:
            TrainingJobFailed: It ended without a result; with the exit code of the job's own error, such as that of
                TrainingDiverged, where it is known.
            The job's own error itself, where the engine hands it over.
            QuotaExceeded, NotProvisioned, ConfigurationError, ServiceUnavailable.
        """
        ...
