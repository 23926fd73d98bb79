"""Trainings as jobs of the platform's Azure ML workspace."""

import re
import time
from collections.abc import Callable
from typing import Any, Final

from infra.azure.access.errors import refusal
from infra.azure.access.resources import platform_resources
from infra.azure.machine_learning.job_log import JobLog
from infra.azure.machine_learning.training_jobs import TrainingJobs
from infra.azure.storage.blobs import data_url
from infra.config.trainers import TrainerFile
from infra.errors import AccessDenied, QuotaExceeded, ServiceUnavailable, TrainingJobFailed
from infra.runs.cancellation import run_is_cancelled
from infra.settings import Settings
from infra.stores.training_folder import INTERRUPTED, Outcome, TrainingFolder
from infra.training import TrainingJob, TrainingUpdate
from model.faults import Fault

See = Callable[[TrainingUpdate], None]

POLL_SECONDS: Final = 10.0
OUTAGE_SECONDS: Final = 900
"""So long Azure ML may give no answer; the job runs on meanwhile."""
SILENT_SECONDS: Final = 600
"""So long a job may be NotResponding."""
INTERRUPTIONS: Final = 20
WAITING: Final = frozenset({"NotStarted", "Queued", "Provisioning", "Preparing", "Starting"})
OVER: Final = frozenset({"Completed", "Failed", "Canceled"})
NODE_LOST: Final = re.compile(
    r"preempt|evict|\bspot\b|low.priority|node\W.{0,40}(lost|deleted|unhealthy|not ?ready|unreachable)|nodelost",
    re.IGNORECASE,
)
"""How Azure ML and Kubernetes say that the machine was taken away. Azure ML lists no codes for it."""
THEIR_FAULT: Final = frozenset({"SystemError", "ServiceError", "InternalServerError"})
EXIT_CODE: Final = re.compile(r"exit(?:ed)?\s*(?:with )?(?:status )?code:?\s*(\d+)", re.IGNORECASE)


class AmlTrainer:
    """A `Trainer`."""

    def __init__(
        self, described: TrainerFile, settings: Settings, *, cancelled: Callable[[], bool] = run_is_cancelled
    ) -> None:
        assert described.azure_ml is not None
        platform = platform_resources(settings)
        self._jobs = TrainingJobs(described.azure_ml, platform, settings)
        self._store = data_url(platform.storage_account, "data")
        self._cancelled = cancelled

    def train(self, job: TrainingJob, see: See) -> None:
        """See `Trainer.train`."""
        try:
            self._train(job, see)
        except Exception:
            raise
        except BaseException:
            # A signal. Who was cancelled cancels; who is merely killed finds the job again.
            if self._cancelled():
                self._cancel(job, see)
            raise

    def _train(self, job: TrainingJob, see: See) -> None:
        folder = TrainingFolder(f"{self._store}/training/{job.key}")
        attempt = self._jobs.attempts(job.key)
        for interruptions in range(INTERRUPTIONS + 1):
            if interruptions or not self._counts(job, attempt, folder):
                attempt += 1
                folder.hand_over(job)
                self._jobs.submit(_name(job, attempt), job, folder.job_url)
            name = _name(job, attempt)
            see(TrainingUpdate(text=f"Azure ML job {name}: {self._jobs.link(name)}"))
            interruption = _Followed(name, self._jobs, folder, see).to_its_end()
            if interruption is None:
                return
            see(
                TrainingUpdate(
                    text=f"{interruption} It is started again and goes on at its last checkpoint.", level="warning"
                )
            )
        raise TrainingJobFailed(
            f"The training {job.label} was interrupted {INTERRUPTIONS + 1} times in a row, the last time as {name}.",
            next_step="Choose a compute whose nodes stay, then rerun: it goes on at the last checkpoint.",
        )

    def _counts(self, job: TrainingJob, attempt: int, folder: TrainingFolder) -> bool:
        """Whether this attempt goes on, or ended with a result: then no other is needed."""
        if attempt == 0:
            return False
        status = self._jobs.details(_name(job, attempt)).status
        outcome = folder.outcome()
        made = outcome == Outcome(attempt=_name(job, attempt))
        return made if status in OVER else status != "CancelRequested"

    def _cancel(self, job: TrainingJob, see: See) -> None:
        attempt = self._jobs.attempts(job.key)
        if attempt and self._jobs.details(_name(job, attempt)).status not in OVER:
            self._jobs.cancel(_name(job, attempt))
            see(TrainingUpdate(text=f"{_name(job, attempt)} is cancelled too; its checkpoints stay.", level="warning"))


class _Followed:
    """One attempt, from its submission or from wherever it is, to its end."""

    def __init__(self, name: str, jobs: TrainingJobs, folder: TrainingFolder, see: See) -> None:
        self._name = name
        self._jobs = jobs
        self._folder = folder
        self._see = see
        self._log = JobLog(see)
        self._status = ""
        self._since = time.monotonic()
        self._warned: set[str] = set()

    def to_its_end(self) -> str | None:
        """None where it worked; what interrupted it where another attempt is needed.

        Raises: as `Trainer.train` does.
        """
        answered, lost = time.monotonic(), False
        while True:
            try:
                details = self._jobs.details(self._name)
            except ServiceUnavailable as error:
                if time.monotonic() - answered > OUTAGE_SECONDS:
                    raise
                if not lost:
                    text = f"{self._name} runs on, but Azure ML doesn't say how: {error}"
                    self._see(TrainingUpdate(text=text, level="warning"))
                lost = True
            else:
                answered, lost = time.monotonic(), False
                self._tell(details)
                if details.status in OVER:
                    return self._ended(details)
                if self._silent():
                    self._jobs.cancel(self._name)
                    return f"{self._name} has not responded for {SILENT_SECONDS // 60} minutes and was cancelled."
            time.sleep(POLL_SECONDS)

    def _tell(self, details: Any) -> None:
        status = str(details.status)
        if status != self._status:
            if self._status == "Running" and status in WAITING:
                self._warned.clear()
                self._warn(f"The node of {self._name} was taken away; Azure ML starts it again on another one.")
            self._see(TrainingUpdate(text=f"{self._name} is {status}."))
            self._status, self._since = status, time.monotonic()
        for warning in details.warnings or []:
            self._warn(str(warning.message))
        self._log.follow(details.log_files or {}, ended=status in OVER)

    def _warn(self, text: str) -> None:
        """Once for each text."""
        if text not in self._warned:
            self._warned.add(text)
            self._see(TrainingUpdate(text=text, level="warning"))

    def _silent(self) -> bool:
        return self._status == "NotResponding" and time.monotonic() - self._since > SILENT_SECONDS

    def _ended(self, details: Any) -> str | None:
        if details.status == "Completed":
            return None
        if details.status == "Canceled":
            raise TrainingJobFailed(
                f"{self._name} was cancelled in Azure ML, not by this run.",
                next_step="Find out who stopped it, then rerun: it goes on at the last checkpoint.",
            )
        codes, reason = _error(details)
        outcome = self._folder.outcome()
        if outcome is not None and outcome.attempt == self._name:
            return None if outcome.fault is None else self._failed(outcome.fault)
        if exit_code := EXIT_CODE.search(reason):
            code = int(exit_code[1])
            if code == INTERRUPTED or not NODE_LOST.search(reason):
                message = self._with_log(reason)
                fault = Fault.of_exit_code(code, message)
                if fault is None:
                    raise TrainingJobFailed(message, process_exit_code=code)
                return self._failed(fault)
        if NODE_LOST.search(" ".join([*codes, reason])):
            return f"The node of {self._name} was taken away: {reason}"
        if THEIR_FAULT & set(codes):
            return f"Azure ML failed to run {self._name}: {reason}"
        error = refusal(codes, 200, reason, f"Azure ML refused to run {self._name}: {reason}")
        if isinstance(error, QuotaExceeded | AccessDenied):
            raise error
        raise TrainingJobFailed(self._with_log(reason))

    def _failed(self, fault: Fault) -> str:
        if fault.exit_code == INTERRUPTED:
            return f"{self._name} was asked to stop, as when its node is taken away; its state was kept."
        if fault.kind:
            raise fault.error()
        raise TrainingJobFailed(fault.title, process_exit_code=fault.exit_code, next_step=fault.next_step or None)

    def _with_log(self, reason: str) -> str:
        lines = "\n".join(self._log.last) or "(it printed nothing)"
        return f"{self._name} failed in Azure ML: {reason} Its last lines:\n{lines}"


def _name(job: TrainingJob, attempt: int) -> str:
    return f"{job.key}-{attempt}"


def _error(details: Any) -> tuple[list[str], str]:
    """The error codes of a failed run, outermost first, and what it says."""
    error = details.error.error if details.error else None
    codes, messages = [], []
    while error is not None:
        codes.append(str(getattr(error, "code", "") or ""))
        messages.append(str(getattr(error, "message", "") or ""))
        error = getattr(error, "inner_error", None)
    reason = " ".join(dict.fromkeys(filter(None, messages))) or "Azure ML doesn't say why."
    return [code for code in codes if code], reason
