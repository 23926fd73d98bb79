"""Every way in which data, training, a model or an image can be at fault.

Each error says what happened and what to do next, has its own exit code and a section of its own in
`docs/runbook.md` (the anchor is the class name in kebab case). The platform's own faults are in `infra/errors.py`, from
the same root; `tasks/framework/error_table.py` is the table of all.
"""

from typing import ClassVar


class KnownError(Exception):
    """The root of all errors that the project raises on purpose.

    Args:
        message: What happened and where, in one or two sentences.
        next_step: What the reader should do now.
    """

    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False
    next_step: str = "Read the message above; the runbook has a section for it."

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        if next_step is not None:
            self.next_step = next_step


class ModelError(KnownError):
    """A fault of data, training, a model or an image."""


class DataRejected(ModelError):
    """Validation found at least one finding that blocks."""

    exit_code = 10
    next_step = "Open the data report, correct or remove the named files, and run again."


class SourceUnreadable(ModelError):
    """The data source is missing, empty, or not of a form that is understood."""

    exit_code = 11
    next_step = "Give a folder of <label>/<image> files, or a CSV or Parquet file with the columns path and label."


class ImageRejected(ModelError):
    """One image can't be decoded within the limits.

    `reason` is one of `empty`, `not-an-image`, `unsupported-format`, `truncated`, `too-large`.
    """

    exit_code = 12
    next_step = "Send a JPEG, PNG or WebP image within the size limits."

    def __init__(self, message: str, *, reason: str, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.reason = reason


class TrainingDiverged(ModelError):
    """The loss became infinite or not a number."""

    exit_code = 13
    next_step = "Lower the learning rate, or use precision 32-true, and run again."


class CheckpointCorrupt(ModelError):
    """A checkpoint can't be read, or belongs to another configuration."""

    exit_code = 14
    next_step = "Delete the named file; training then starts from the newest checkpoint that is whole."


class ExportFailed(ModelError):
    """The exported model doesn't answer like the trained one."""

    exit_code = 15
    next_step = "Don't release this model; compare the named images in both runtimes."


class BundleCorrupt(ModelError):
    """A bundle is incomplete, or its bytes are not those that its digest names."""

    exit_code = 16
    next_step = "Download the model version again; if that fails too, roll back and register it anew."


class InvalidConfig(ModelError):
    """A training, validation or gate configuration has unknown keys or impossible values."""

    exit_code = 17
    next_step = "Correct the named keys."


class GpuMemoryExhausted(ModelError):
    """The memory of the GPU is too small for this network, image size and batch."""

    exit_code = 18
    next_step = (
        "Halve `batch_size` and double `accumulate_grad_batches`: the steps stay the same. Or set `find_batch_size`."
    )


class TrainingInterrupted(ModelError):
    """The process was asked to stop in mid-training, as when its node is taken away; its state was kept."""

    exit_code = 19
    transient = True
    next_step = "Nothing has to be done: the next attempt goes on where this one stopped."
