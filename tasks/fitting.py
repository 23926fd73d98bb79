"""Fit a network on this machine: its state in the shared store, its curves in the tracker, its progress told.

Needs no Prefect: an Azure ML job fits as a flow run does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from infra.backend import data_root, tracker
from infra.errors import PlatformError, TrainingJobFailed
from infra.ports import TrainingJob, TrainingUpdate
from infra.revision import revision
from infra.settings import Settings
from model.config import TrainingConfig
from model.manifest import DataVersion
from tasks.training_state import TrainingState

if TYPE_CHECKING:
    from model.fit import EpochReport, FitResult

See = Callable[[TrainingUpdate], None]
STARTS: Final = "Warming up the head"


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


def fit_network(job: TrainingJob, settings: Settings, see: See) -> "FitResult":
    """Fit, or go on fitting, the network of this job; what it makes is kept under its key.

    Raises: as `model.fit.fit` does.
    """
    from model.fit import fit

    data, config = DataVersion.model_validate(job.data), TrainingConfig.model_validate(job.config)
    state = training_state(job.key, settings)
    state.bring()
    experiment = tracker(settings)
    run = experiment.start(
        job.key,
        experiment=data.name,
        parameters=job.config,
        tags={"data_version": data.version, "code": revision()},
    )
    said = STARTS

    def on_epoch(report: "EpochReport") -> None:
        nonlocal said
        said = _describe(report)
        see(TrainingUpdate(text=said))
        try:
            state.keep()
        except PlatformError as error:
            # The next epoch's copy makes it good; only another machine would go on from an earlier one.
            warning = f"The state after epoch {report.epoch} is on this machine only: {error}"
            see(TrainingUpdate(text=warning, level="warning"))
        experiment.log(run, metrics_of(report), step=report.epoch)

    try:
        result = fit(
            data,
            config,
            state.directory,
            on_epoch=on_epoch,
            on_batch=lambda done, total: see(TrainingUpdate(text=said, done=done / total)),
        )
    except BaseException:
        experiment.end(run, succeeded=False)
        raise
    state.keep()
    if result.resumed_from_epoch is not None:
        went_on = f"The training was interrupted before; it went on after epoch {result.resumed_from_epoch}."
        see(TrainingUpdate(text=went_on, level="warning"))
    return result


def fitted(key: str, settings: Settings) -> "FitResult":
    """What another machine made under this key, its files brought here.

    Raises: TrainingJobFailed where there is nothing.
    """
    from model.fit import stored_result

    state = training_state(key, settings)
    state.bring(newest=True)
    result = stored_result(state.directory)
    if result is None:
        raise TrainingJobFailed(f"The job of {key} ended as if it had worked, but left no result in {state.uri}.")
    return result


def metrics_of(report: "EpochReport") -> dict[str, float]:
    """What an epoch measured, by name."""
    numbers = report.model_dump(exclude={"epoch", "epochs"})
    return {name: value for name, value in numbers.items() if value is not None}


def _describe(report: "EpochReport") -> str:
    speed = f", {report.images_per_second:.0f} images/s" if report.images_per_second else ""
    return (
        f"Epoch {report.epoch} of {report.epochs}: validation accuracy {report.validation_accuracy:.3f}, "
        f"loss {report.validation_loss:.3f}{speed}"
    )
