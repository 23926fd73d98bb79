"""What a training on another machine and who waits for it tell each other: files in the training's shared folder."""

from typing import Any, Final

import fsspec
from pydantic import Field, model_validator

from infra.training import TrainingJob
from model.errors import TrainingInterrupted
from model.faults import Fault
from model.values import Frozen

JOB: Final = "job.json"
OUTCOME: Final = "outcome.json"
INTERRUPTED: Final = TrainingInterrupted.exit_code
"""Exit code of a process that was asked to stop in mid-training, and kept its state."""


class Outcome(Frozen):
    """How one attempt ended."""

    attempt: str = Field(description="The engine's name for it.")
    fault: Fault | None = Field(None, description="What ended it; None where it worked.")

    @property
    def exit_code(self) -> int:
        return self.fault.exit_code if self.fault else 0

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_job(cls, fields: Any) -> Any:
        """A job that was submitted before faults were records may run on, and writes these fields of its own."""
        if not isinstance(fields, dict) or "exit_code" not in fields:
            return fields
        code, message, next_step = fields["exit_code"], fields.get("message", ""), fields.get("next_step", "")
        fault = Fault.of_exit_code(code, message, next_step) or Fault(
            name="Error", message=message, next_step=next_step, exit_code=code
        )
        return {"attempt": fields["attempt"], "fault": fault if code else None}


class TrainingFolder:
    """The shared folder of one training, by its fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files: Any
        self._files, self._path = fsspec.core.url_to_fs(url)

    @property
    def job_url(self) -> str:
        return f"{self.url}/{JOB}"

    def hand_over(self, job: TrainingJob) -> None:
        self._files.pipe_file(f"{self._path}/{JOB}", job.model_dump_json().encode())

    def job(self) -> TrainingJob:
        """Raises: FileNotFoundError."""
        return TrainingJob.model_validate_json(self._files.cat_file(f"{self._path}/{JOB}"))

    def end(self, outcome: Outcome) -> None:
        """Keep how an attempt ended: by the first of its processes that failed, unless that merely lost another one."""
        before = self.outcome()
        if before is None or before.attempt != outcome.attempt or before.exit_code in {0, INTERRUPTED}:
            self._files.pipe_file(f"{self._path}/{OUTCOME}", outcome.model_dump_json().encode())

    def outcome(self) -> Outcome | None:
        """How the last attempt that could tell ended; None where none could."""
        try:
            return Outcome.model_validate_json(self._files.cat_file(f"{self._path}/{OUTCOME}"))
        except FileNotFoundError:
            return None
