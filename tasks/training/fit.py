"""Fit a network on this machine: state to the shared store, curves to the tracker, progress to the caller.

Needs no Prefect: an Azure ML job fits as a flow run does.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fsspec

from infra.backend import backend
from infra.errors import PlatformError
from infra.settings import Settings
from infra.training import TrainingJob, TrainingUpdate
from infra.version import revision
from model.config import TrainingConfig
from model.errors import CheckpointCorrupt, TrainingInterrupted
from model.training.checkpoints import BEST, LAST
from model.training.fit import RESULT
from model.values import DataVersion, EpochReport
from tasks.training.progress import ProgressMeter

if TYPE_CHECKING:
    from model.training.fit import FitResult

STATE: Final = (BEST, LAST, RESULT)
"""In the order in which they are copied: the last epoch is in the store only once its best weights are."""


class TrainingState:
    """The state of one training in a store that outlives this machine.

    Args:
        directory: Where the training works.
        uri: Its place in the store. Where this is the directory itself, as on one machine, nothing is copied.
    """

    def __init__(self, directory: Path, uri: str) -> None:
        self.directory = directory
        self.uri = uri
        self._store: Any
        self._store, self._path = fsspec.core.url_to_fs(uri)
        self._remote = Path(self._path) != directory
        self._copied: dict[str, int] = {}

    def fetch(self, *, newest: bool = False) -> None:
        """Copy the state from the store if there is none in the directory, or always with `newest=True`."""
        if not self._remote or ((self.directory / LAST).exists() and not newest):
            return
        for name in STATE:
            if self._store.exists(f"{self._path}/{name}"):
                # A process that is killed meanwhile leaves no half checkpoint.
                draft = self.directory / f"{name}.part"
                self._store.get_file(f"{self._path}/{name}", str(draft))
                draft.replace(self.directory / name)

    def save(self) -> None:
        """Copy to the store what changed since the last copy; each file is replaced whole."""
        if not self._remote:
            return
        for name in STATE:
            path = self.directory / name
            changed = path.stat().st_mtime_ns if path.exists() else None
            if changed is not None and self._copied.get(name) != changed:
                self._store.put_file(str(path), f"{self._path}/{name}")
                self._copied[name] = changed


See = Callable[[TrainingUpdate], None]


def describe_job(key: str, data: DataVersion, config: TrainingConfig) -> TrainingJob:
    """The training of this key, for another machine."""
    label = f"{config.network} on {data.name}@{data.version}"
    return TrainingJob(key=key, label=label, data=data, config=config, nodes=config.num_nodes)


def training_state(key: str, settings: Settings) -> TrainingState:
    """The state of the training of this key."""
    return TrainingState(settings.path("training", key), f"{backend(settings).data_root()}/training/{key}")


def fit_network(job: TrainingJob, settings: Settings, see: See, stop: Callable[[], bool] | None = None) -> "FitResult":
    """Fit, or go on fitting, the network of this job; the result lies in the store under its key.

    Args:
        job: The training.
        settings: Of this machine.
        see: Called with each epoch, progress and trouble.
        stop: Asked after each batch; True ends the training, and its state is saved.

    Raises: as `model.training.fit.fit` does; TrainingInterrupted once `stop` answered True.
    """
    from model.training.fit import fit

    state = training_state(job.key, settings)
    if not writes():
        return fit(job.data, job.config, state.directory, stop=stop)
    state.fetch()
    meter = ProgressMeter(_resume(state, job.config, see))
    experiment = backend(settings).tracker()
    run = experiment.start(
        job.key,
        experiment=job.data.name,
        parameters=job.config.model_dump(mode="json"),
        tags={"data_version": job.data.version, "code": revision()},
    )

    def save(when: str) -> bool:
        try:
            state.save()
        except PlatformError as error:
            # The next copy makes it good; only another machine would go on from an earlier one.
            warning = f"The state {when} is on this machine only: {error}"
            see(TrainingUpdate(text=warning, level="warning"))
            return False
        return True

    def on_epoch(report: EpochReport) -> None:
        see(meter.epoch(report, saved=save(f"after epoch {report.epoch}")))
        experiment.log(run, metrics_of(report), step=report.epoch)

    def on_checkpoint() -> None:
        save("within the epoch")

    try:
        result = fit(
            job.data,
            job.config,
            state.directory,
            on_epoch=on_epoch,
            on_batch=lambda done, total: see(meter.batch(done, total)),
            on_load=meter.load,
            on_checkpoint=on_checkpoint,
            stop=stop,
        )
    except TrainingInterrupted:
        state.save()
        notice = {"text": "Asked to stop: a checkpoint is kept.", "level": "warning", "saved": True}
        see(meter.newest.model_copy(update=notice))
        raise
    except BaseException:
        experiment.end(run, succeeded=False)
        raise
    state.save()
    return result


def _resume(state: TrainingState, config: TrainingConfig, see: See) -> EpochReport | None:
    """Report where an interrupted training goes on; answers the last epoch that was done."""
    from model.training.checkpoints import LAST, read_checkpoint

    with suppress(CheckpointCorrupt):  # none yet; or `fit` takes an earlier one and says so
        done = read_checkpoint(state.directory / LAST).progress
        if not done.finished:
            batches = f", {done.batch} batches of the next one," if done.batch else ""
            text = f"The training was interrupted before; {done.epoch} of {config.epochs} epochs{batches} were saved."
            see(TrainingUpdate(text=text, level="warning"))
            return done.history[-1]
    return None


def writes() -> bool:
    """Whether this process is the one of a distributed training that writes: its rank is 0."""
    return int(os.environ.get("RANK", os.environ.get("NODE_RANK", "0"))) == 0


def fetch_result(key: str, settings: Settings) -> "FitResult | None":
    """The result that another machine left under this key, with its files copied here; None while it isn't finished."""
    from model.training.fit import stored_result

    state = training_state(key, settings)
    state.fetch(newest=True)
    return stored_result(state.directory)


def metrics_of(report: EpochReport) -> dict[str, float]:
    """The measurements of an epoch, by name."""
    numbers = report.model_dump(exclude={"epoch", "epochs"})
    return {name: value for name, value in numbers.items() if value is not None}
