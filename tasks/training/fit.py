"""Fit a network on this machine: its state in the shared store, its curves in the tracker, its progress told.

Needs no Prefect: an Azure ML job fits as a flow run does.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fsspec

from infra.backend import data_root, tracker
from infra.errors import PlatformError
from infra.ports import TrainingJob, TrainingUpdate
from infra.settings import Settings
from infra.version import revision
from model.config import TrainingConfig
from model.data.manifest import DataVersion
from model.errors import CheckpointCorrupt, TrainingInterrupted
from model.training.checkpoints import BEST, LAST
from model.training.fit import RESULT
from tasks.training.progress import TrainingText

if TYPE_CHECKING:
    from model.training.fit import EpochReport, FitResult

STATE: Final = (BEST, LAST, RESULT)
"""In the order in which they are copied: the last epoch is known only once its best weights are."""


class TrainingState:
    """The state of one training in a store that outlives this machine.

    Args:
        directory: Where the training works.
        uri: Where its state is kept; where this is the directory itself, as on one machine, there is nothing to do.
    """

    def __init__(self, directory: Path, uri: str) -> None:
        self.directory = directory
        self.uri = uri
        self._store: Any
        self._store, self._path = fsspec.core.url_to_fs(uri)
        self._elsewhere = Path(self._path) != directory
        self._kept: dict[str, int] = {}

    def bring(self, *, newest: bool = False) -> None:
        """Copy the state that another machine kept: where this one has none of its own, or by all means (`newest`)."""
        if not self._elsewhere or ((self.directory / LAST).exists() and not newest):
            return
        for name in STATE:
            if self._store.exists(f"{self._path}/{name}"):
                # Written aside: who is killed meanwhile leaves no half checkpoint.
                aside = self.directory / f"{name}.part"
                self._store.get_file(f"{self._path}/{name}", str(aside))
                aside.replace(self.directory / name)

    def keep(self) -> None:
        """Copy what changed since it was last kept; each file is replaced whole."""
        if not self._elsewhere:
            return
        for name in STATE:
            path = self.directory / name
            changed = path.stat().st_mtime_ns if path.exists() else None
            if changed is not None and self._kept.get(name) != changed:
                self._store.put_file(str(path), f"{self._path}/{name}")
                self._kept[name] = changed


See = Callable[[TrainingUpdate], None]


def describe_job(key: str, data: DataVersion, config: TrainingConfig) -> TrainingJob:
    """The training of this key as another machine is told."""
    return TrainingJob(
        key=key,
        label=f"{config.network} on {data.name}@{data.version}",
        data=data.model_dump(mode="json"),
        config=config.model_dump(mode="json"),
        nodes=config.num_nodes,
    )


def training_state(key: str, settings: Settings) -> TrainingState:
    """What is kept of this training."""
    return TrainingState(settings.path("training", key), f"{data_root(settings)}/training/{key}")


def fit_network(job: TrainingJob, settings: Settings, see: See, stop: Callable[[], bool] | None = None) -> "FitResult":
    """Fit, or go on fitting, the network of this job; what it makes is kept under its key.

    Args:
        job: The training.
        settings: Of this machine.
        see: Told of each epoch, of progress and of troubles.
        stop: Asked after each batch; True ends the training with its state kept.

    Raises: as `model.training.fit.fit` does; TrainingInterrupted once `stop` answered True.
    """
    from model.training.fit import fit

    data, config = DataVersion.model_validate(job.data), TrainingConfig.model_validate(job.config)
    state = training_state(job.key, settings)
    if not writes():
        return fit(data, config, state.directory, stop=stop)
    state.bring()
    _tell_resumed(state, config, see)
    experiment = tracker(settings)
    run = experiment.start(
        job.key,
        experiment=data.name,
        parameters=job.config,
        tags={"data_version": data.version, "code": revision()},
    )
    shown = TrainingText()

    def keep(when: str) -> None:
        try:
            state.keep()
        except PlatformError as error:
            # The next copy makes it good; only another machine would go on from an earlier one.
            warning = f"The state {when} is on this machine only: {error}"
            see(TrainingUpdate(text=warning, level="warning"))

    def on_epoch(report: "EpochReport") -> None:
        shown.epoch(report)
        keep(f"after epoch {report.epoch}")
        see(TrainingUpdate(text=shown.said))
        experiment.log(run, metrics_of(report), step=report.epoch)

    def on_batch(done: int, total: int) -> None:
        see(TrainingUpdate(text=shown.batch(done, total), done=done / total))

    try:
        result = fit(
            data,
            config,
            state.directory,
            on_epoch=on_epoch,
            on_batch=on_batch,
            on_load=shown.load,
            on_checkpoint=lambda: keep("within the epoch"),
            stop=stop,
        )
    except TrainingInterrupted:
        state.keep()
        see(TrainingUpdate(text=f"Asked to stop: a checkpoint is kept. {shown.said}", level="warning"))
        raise
    except BaseException:
        experiment.end(run, succeeded=False)
        raise
    state.keep()
    return result


def _tell_resumed(state: TrainingState, config: TrainingConfig, see: See) -> None:
    from model.training.checkpoints import LAST, read_checkpoint

    with suppress(CheckpointCorrupt):  # none yet; or `fit` takes an earlier one and says so
        done = read_checkpoint(state.directory / LAST).progress
        if not done.finished:
            batches = f", {done.batch} batches of the next one," if done.batch else ""
            text = f"The training was interrupted before; {done.epoch} of {config.epochs} epochs{batches} were saved."
            see(TrainingUpdate(text=text, level="warning"))


def writes() -> bool:
    """Whether this process is the one of a distributed training that writes: its rank is 0."""
    return int(os.environ.get("RANK", os.environ.get("NODE_RANK", "0"))) == 0


def fitted(key: str, settings: Settings) -> "FitResult | None":
    """What another machine made under this key, its files brought here; None where it isn't finished."""
    from model.training.fit import stored_result

    state = training_state(key, settings)
    state.bring(newest=True)
    return stored_result(state.directory)


def metrics_of(report: "EpochReport") -> dict[str, float]:
    """What an epoch measured, by name."""
    numbers = report.model_dump(exclude={"epoch", "epochs"})
    return {name: value for name, value in numbers.items() if value is not None}
