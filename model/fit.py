"""Train a network on a data version; interrupted at any moment, the next call goes on from the last checkpoint."""

import ctypes
import importlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.checkpoints import Checkpoint, CheckpointFolder, EpochReport, Progress, training_fingerprint
from model.config import TrainingConfig
from model.follower import CHECKPOINT_SECONDS, Follower

if TYPE_CHECKING:
    from torch import Tensor

    from model.dataset import ImageData
    from model.load import MachineLoad
    from model.manifest import DataVersion

__all__ = ["RESULT", "EpochReport", "FitResult", "fit", "stored_result"]

log = logging.getLogger(__name__)

RESULT: Final = "result.json"
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


class FitResult(BaseModel):
    """What came out of a training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str = Field(description="Path of the best epoch's checkpoint, for `load_network`.")
    best_epoch: int = Field(description="The epoch of that checkpoint; 0 is the warmed-up head.")
    epochs: int = Field(description="Epochs of fine-tuning that were done.")
    stopped_early: bool
    history: tuple[EpochReport, ...]
    images_per_second: float | None = Field(description="Mean over the epochs; None where there was no fine-tuning.")
    resumed_from_epoch: int | None = Field(description="Where an interrupted training went on; None if from the start.")
    resumed_at_batch: int = Field(default=0, description="Batches of the next epoch that were done then.")
    seconds: float = Field(description="Of this call.")


def fit(
    data: "DataVersion",
    config: TrainingConfig,
    directory: Path,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    on_load: "Callable[[MachineLoad], None] | None" = None,
    on_checkpoint: Callable[[], None] | None = None,
    stop: Callable[[], bool] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> FitResult:
    """Train, or go on training, in `directory`; a training that is finished there is answered at once.

    Args:
        data: The data version; its splits `train` and `validation` are used.
        config: The hyperparameters.
        directory: Holds this training's checkpoints and result; no other training's.
        on_epoch: Told of each epoch, once its checkpoint is on the disk.
        on_batch: Told of each training batch: how many are done, of how many in all epochs.
        on_load: Told every few seconds how fast it goes and what of the GPU that takes.
        on_checkpoint: Told of each checkpoint in the middle of an epoch, once it is on the disk.
        stop: Asked after each training batch. Once it answers True, a checkpoint is written and the training ends.
        checkpoint_seconds: Time between two checkpoints in the middle of an epoch.

    Raises:
        DataRejected: A label has no training image, or there is no validation image.
        SourceUnreadable: An image of the manifest can't be read any more.
        TrainingDiverged: The loss is not finite.
        TrainingInterrupted: `stop` answered True; the same call goes on at the next batch.
        CheckpointCorrupt: The directory belongs to a training with another configuration or other data.
        OSError: The disk is full, or the directory can't be written to; earlier checkpoints stay whole.
    """
    began = time.monotonic()
    fingerprint = training_fingerprint(config, data.version, data.labels)
    folder = CheckpointFolder(directory, fingerprint)
    resumed = folder.newest()
    if resumed is not None and resumed.progress.finished:
        stored = stored_result(directory)
        if stored is not None:
            return stored
    if resumed is not None:
        done = f", batch {resumed.progress.batch} of the next" if resumed.progress.batch else ""
        log.info("Training goes on after epoch %d of %d%s.", resumed.progress.epoch, config.epochs, done)
    follower = Follower(on_epoch, on_batch, on_load, on_checkpoint, stop, checkpoint_seconds)
    progress = _train(data, config, folder, resumed, follower)
    result = _summarise(folder, progress, resumed, time.monotonic() - began)
    _store_result(directory, result)
    return result


def _train(
    data: "DataVersion",
    config: TrainingConfig,
    folder: CheckpointFolder,
    resumed: Checkpoint | None,
    follower: Follower,
) -> Progress:
    """All epochs that are missing."""
    if resumed is not None and resumed.progress.finished:
        return resumed.progress
    with _quiet_lightning():
        from model.dataset import ImageData
        from model.lightning_module import ImageClassifier
        from model.network import build_network
        from model.training_loop import ProgressKeeper, build_trainer
        from model.warm_up import warm_up_head

        with _own_process_state():
            images = ImageData(data, config)
            images.setup()
            network = build_network(config, len(data.labels), pretrained=resumed is None)
            weights = _class_weights(images) if config.class_weights else None
            progress = Progress(
                config=config,
                labels=data.labels,
                fingerprint=folder.fingerprint,
                history=() if resumed is None else resumed.progress.history,
            )
            keeper = ProgressKeeper(progress, follower)
            trainer = build_trainer(config, folder, keeper, resumes=resumed is not None)
            if resumed is None and config.head_epochs:
                warm_up_head(network, images, config, weights, trainer.strategy.root_device)
            module = ImageClassifier(network, config, weights)
            checkpoint = None if resumed is None else str(resumed.path)
            trainer.fit(module, images, ckpt_path=checkpoint, weights_only=True)
            return keeper.progress


def _class_weights(images: "ImageData") -> "Tensor":
    """Inverse frequencies, 1 on average over the images: [classes]."""
    counts = images.train.targets.bincount(minlength=len(images.labels)).float()
    return counts.sum() / (len(counts) * counts)


def _summarise(folder: CheckpointFolder, progress: Progress, resumed: Checkpoint | None, seconds: float) -> FitResult:
    from model.checkpoints import read_checkpoint

    speeds = [report.images_per_second for report in progress.history if report.images_per_second is not None]
    return FitResult(
        checkpoint=str(folder.best),
        best_epoch=read_checkpoint(folder.best).progress.epoch,
        epochs=progress.epoch,
        stopped_early=progress.epoch < progress.config.epochs,
        history=progress.history,
        images_per_second=sum(speeds) / len(speeds) if speeds else None,
        resumed_from_epoch=None if resumed is None else resumed.progress.epoch,
        resumed_at_batch=0 if resumed is None else resumed.progress.batch,
        seconds=seconds,
    )


def stored_result(directory: Path) -> FitResult | None:
    """The result of the training that was finished in this directory, if one was."""
    try:
        return FitResult.model_validate_json((directory / RESULT).read_text())
    except (FileNotFoundError, ValidationError):
        return None


def _store_result(directory: Path, result: FitResult) -> None:
    aside = directory / f"{RESULT}.{os.getpid()}.part"  # each of several processes writes the same result
    aside.write_text(result.model_dump_json(indent=2))
    aside.replace(directory / RESULT)


@contextmanager
def _own_process_state() -> Iterator[None]:
    """Leave the process's random state and settings as they were found."""
    import torch

    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with torch.random.fork_rng(), _memory_kept():
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)


@contextmanager
def _memory_kept() -> Iterator[None]:
    """Let malloc keep what a batch frees for the next batch.

    By default glibc hands each large block back to the system and gets it, page by page, again: up to a quarter of
    the CPU time of a training on CPUs.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # musl
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, 128 << 10)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 10)
        libc.malloc_trim(0)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice out of the run's log; errors still come through."""
    # Sets its loggers' levels itself, when it is imported.
    importlib.import_module("pytorch_lightning")

    names = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch)\b")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
