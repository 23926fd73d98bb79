"""Train a network on a data version; interrupted at any moment, the next call goes on from the last checkpoint."""

import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field, ValidationError

from model.config import TrainingConfig
from model.errors import TrainingInterrupted
from model.files import write_whole
from model.training.callbacks import CHECKPOINT_SECONDS, Follower
from model.training.checkpoints import CheckpointFolder, Progress, training_fingerprint
from model.training.distributed import Place, RankLost, Ranks, place_of, together
from model.training.gpu_memory import free_gpu_memory, memory_exhausted, trains_on_gpu
from model.training.local_processes import local_ranks
from model.training.process_state import own_process_state, quiet_lightning
from model.training.sampling import Share
from model.values import EpochReport, Frozen, MachineLoad

if TYPE_CHECKING:
    from torch import Tensor
    from torch._C._distributed_c10d import Store

    from model.data.manifest import DataVersion
    from model.training.dataset import ImageData

log = logging.getLogger(__name__)

RESULT: Final = "result.json"


class FitResult(Frozen):
    """What came out of a training."""

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
    on_load: Callable[[MachineLoad], None] | None = None,
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
        TrainingInterrupted: `stop` answered True, or another process of the training is gone; the same call goes on at
            the last checkpoint.
        CheckpointCorrupt: The directory belongs to a training with another configuration or other data.
        OSError: The disk is full, or the directory can't be written to; earlier checkpoints stay whole.
    """
    began = time.monotonic()
    follower = Follower(on_epoch, on_batch, on_load, on_checkpoint, stop, checkpoint_seconds)
    place, started = place_of(os.environ, config)
    try:
        if started:
            return fit_as(place, data, config, directory, follower, began=began)
        folder = CheckpointFolder(directory, training_fingerprint(config, data.version, data.labels))
        finished = _finished(folder) if place.nodes == 1 else None  # several machines look together
        if finished is not None:
            return finished
        with local_ranks(place, data, config, directory) as (here, store):
            return fit_as(here, data, config, directory, follower, store=store, began=began)
    except RankLost as error:
        raise TrainingInterrupted(str(error)) from error  # the other one says why, where it could


def fit_as(
    place: Place,
    data: "DataVersion",
    config: TrainingConfig,
    directory: Path,
    follower: Follower,
    *,
    store: "Store | None" = None,
    began: float | None = None,
) -> FitResult:
    """Train as one of the processes that train together: the first alone writes, and knows what was done before.

    Args:
        place: Which one this is.
        data: See `fit`.
        config: See `fit`.
        directory: See `fit`.
        follower: Is told by the first only, but may stop the training at any.
        store: Where the processes meet; None for the address in `place`.
        began: When this call began, in seconds of the monotonic clock.

    Raises: As `fit` does, and RankLost where another process has gone.
    """
    began = time.monotonic() if began is None else began
    folder = CheckpointFolder(directory, training_fingerprint(config, data.version, data.labels))
    with quiet_lightning(), together(place, store, gpu=trains_on_gpu(config)) as ranks:
        finished = ranks.of_first(_finished(folder) if ranks.first else None)
        if finished is not None:
            return finished
        if not ranks.first:
            follower = Follower(stop=follower.stop, checkpoint_seconds=math.inf)
        resumed = ranks.of_first(_progress(folder) if ranks.first else None)
        if resumed is not None and ranks.first:
            done = f", batch {resumed.batch} of the next" if resumed.batch else ""
            log.info("Training goes on after epoch %d of %d%s.", resumed.epoch, config.epochs, done)
        progress = _train(data, config, folder, ranks, follower)
        result = _summarise(folder, progress, resumed, time.monotonic() - began) if ranks.first else None
        if result is not None:
            _store_result(directory, result)
        result = ranks.of_first(result)
        assert result is not None
        return result


def _finished(folder: CheckpointFolder) -> FitResult | None:
    progress = _progress(folder)
    return stored_result(folder.directory) if progress is not None and progress.finished else None


def _progress(folder: CheckpointFolder) -> Progress | None:
    newest = folder.newest()
    return None if newest is None else newest.progress


def _train(
    data: "DataVersion", config: TrainingConfig, folder: CheckpointFolder, ranks: Ranks, follower: Follower
) -> Progress:
    """All epochs that are missing; in ever smaller parts of a batch, where the GPU's memory has to be found out."""
    import torch

    parts = 1
    while True:
        resumed = ranks.of_first(_progress(folder) if ranks.first else None)
        if resumed is not None and resumed.finished:
            return resumed
        parts = max(parts, 1 if resumed is None else resumed.parts)
        try:
            return _train_in(parts, data, config, folder, ranks, resumed, follower)
        except torch.OutOfMemoryError as error:
            problem = memory_exhausted(config, Share(ranks.place.rank, ranks.place.world, parts), str(error))
            parts *= 2
            if not config.find_batch_size or ranks.place.world > 1 or parts > config.batch_size:
                raise problem from error
            log.warning("%s Goes on with each batch in %d parts.", problem, parts)
        free_gpu_memory()


def _train_in(
    parts: int,
    data: "DataVersion",
    config: TrainingConfig,
    folder: CheckpointFolder,
    ranks: Ranks,
    resumed: Progress | None,
    follower: Follower,
) -> Progress:
    from model.network.build import build_network, compile_network
    from model.training.dataset import ImageData
    from model.training.head_warm_up import warm_up_head
    from model.training.lightning_module import ImageClassifier
    from model.training.loop import ProgressKeeper, build_trainer

    share = Share(ranks.place.rank, ranks.place.world, parts)
    with own_process_state():
        interrupted = (0, 0) if resumed is None else (resumed.epoch, resumed.batch * parts)
        images = ImageData(data, config, share, interrupted)
        images.setup()
        network = build_network(config, len(data.labels), pretrained=resumed is None)
        weights = _class_weights(images) if config.class_weights else None
        progress = resumed or Progress(
            config=config, labels=data.labels, fingerprint=folder.fingerprint, history=(), parts=parts
        )
        keeper = ProgressKeeper(progress, parts, follower, ranks)
        trainer = build_trainer(config, folder, keeper, ranks, parts)
        device = trainer.strategy.root_device
        images.keep_on(device)
        if config.compile:
            compile_network(network)
        if resumed is None and config.head_epochs:
            warm_up_head(network, images, config, weights, device, keeper.require_going_on)
        module = ImageClassifier(network, config, weights)
        checkpoint = None if resumed is None else str(folder.newest_path)
        trainer.fit(module, images, ckpt_path=checkpoint, weights_only=True)
        return keeper.progress


def _class_weights(images: "ImageData") -> "Tensor":
    """Inverse frequencies, 1 on average over the images: [classes]."""
    counts = images.train.targets.bincount(minlength=len(images.labels)).float()
    return counts.sum() / (len(counts) * counts)


def _summarise(folder: CheckpointFolder, progress: Progress, resumed: Progress | None, seconds: float) -> FitResult:
    from model.training.checkpoints import read_checkpoint

    speeds = [report.images_per_second for report in progress.history if report.images_per_second is not None]
    return FitResult(
        checkpoint=str(folder.best),
        best_epoch=read_checkpoint(folder.best).progress.epoch,
        epochs=progress.epoch,
        stopped_early=progress.epoch < progress.config.epochs,
        history=progress.history,
        images_per_second=sum(speeds) / len(speeds) if speeds else None,
        resumed_from_epoch=None if resumed is None else resumed.epoch,
        resumed_at_batch=0 if resumed is None else resumed.batch,
        seconds=seconds,
    )


def stored_result(directory: Path) -> FitResult | None:
    """The result of the training that was finished in this directory, if one was."""
    try:
        return FitResult.model_validate_json((directory / RESULT).read_text())
    except (FileNotFoundError, ValidationError):
        return None


def _store_result(directory: Path, result: FitResult) -> None:
    write_whole(directory / RESULT, result.model_dump_json(indent=2))
