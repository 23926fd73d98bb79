"""Lightning's loop as this platform wants it: reports, checkpoints that lose little, no output of its own."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from typing_extensions import override

from model.config import TrainingConfig
from model.errors import TrainingInterrupted
from model.training.callbacks import Follower
from model.training.checkpoints import LAST, CheckpointFolder, Progress, attach_progress, rescale_batches
from model.training.distributed import Ranks
from model.training.lightning_module import ImageClassifier
from model.training.machine_load import LoadMeter
from model.values import EpochReport

_GO_ON, _KEEP, _STOP = 0, 1, 2


class ProgressKeeper(lightning.Callback):
    """Writes each epoch's report into a checkpoint, and what is done of an epoch; tells who wants to know.

    Args:
        progress: What is done already.
        parts: In how many parts a batch is computed.
        follower: Who looks on.
        ranks: The processes that train together.
    """

    def __init__(self, progress: Progress, parts: int, follower: Follower, ranks: Ranks) -> None:
        self.progress = progress
        self.parts = parts
        self.follower = follower
        self.ranks = ranks
        self._began = self._trained = self._kept = time.monotonic()
        self._images = 0
        self._meter = LoadMeter()

    @override
    def on_sanity_check_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start()

    @override
    def on_sanity_check_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Epoch 0: the warmed-up head is validated and kept before fine-tuning begins."""
        self._keep_epoch(trainer, pl_module, epoch=0)

    @override
    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Also where an epoch goes on in its middle, which is no start of an epoch."""
        self._start()

    @override
    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start()

    @override
    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, ImageClassifier)
        images = len(batch.targets) * trainer.world_size
        self._images += images
        per_epoch = int(trainer.num_training_batches)
        if pl_module.device.type == "cuda" and batch_idx + 1 == per_epoch:
            # A GPU is told what to do ahead of time; the epoch is over when it has done it.
            torch.cuda.synchronize(pl_module.device)
        self._trained = time.monotonic()
        if self.follower.on_batch is not None:
            done = trainer.current_epoch * per_epoch + batch_idx + 1
            self.follower.on_batch(done, per_epoch * self.progress.config.epochs)
        load = self._meter.count(images, pl_module.device)
        if load is not None and self.follower.on_load is not None:
            self.follower.on_load(load)
        # Gradients that wait for their step are in no checkpoint, and after the last batch the epoch's own follows.
        steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if steps and batch_idx + 1 < per_epoch:
            self._keep_if_wanted(trainer, pl_module, done=batch_idx + 1)

    @override
    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._keep_epoch(trainer, pl_module, epoch=trainer.current_epoch + 1)
        if not self.progress.finished and self._wanted() == _STOP:
            raise self._interrupted()

    @override
    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        attach_progress(checkpoint, self.progress)

    @override
    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        rescale_batches(checkpoint, self.parts)

    def require_going_on(self) -> None:
        """Before there is anything to keep.

        Raises:
            TrainingInterrupted: The training is to stop.
        """
        if self._wanted() == _STOP:
            raise TrainingInterrupted("The training was asked to stop during the warm-up of the head; it starts anew.")

    def _start(self) -> None:
        self._began = self._trained = time.monotonic()
        self._images = 0
        self._meter.restart()

    def _wanted(self) -> int:
        """What all processes do next, as soon as one of them wants it."""
        if self.follower.stop is not None and self.follower.stop():
            own = _STOP
        else:
            own = _KEEP if time.monotonic() - self._kept >= self.follower.checkpoint_seconds else _GO_ON
        return self.ranks.most(own)

    def _keep_if_wanted(self, trainer: lightning.Trainer, module: ImageClassifier, *, done: int) -> None:
        request = self._wanted()
        if request == _GO_ON:
            return
        module.require_finite()
        # A checkpoint is one process's: let it hold what all of them have added up.
        module.train_sum.copy_(_mean(trainer, module.train_sum))
        self._save(trainer, self.progress.model_copy(update={"batch": done // self.parts}))
        if self.follower.on_checkpoint is not None:
            self.follower.on_checkpoint()
        if request == _STOP:
            raise self._interrupted()

    def _keep_epoch(self, trainer: lightning.Trainer, module: lightning.LightningModule, *, epoch: int) -> None:
        assert isinstance(module, ImageClassifier)
        report = self._report(trainer, module, epoch)
        history = (*self.progress.history, report)
        config = self.progress.config
        trainer.should_stop = _is_stuck(history, config.early_stopping_patience)
        finished = epoch == config.epochs or trainer.should_stop
        self._save(trainer, self.progress.model_copy(update={"history": history, "finished": finished, "batch": 0}))
        if self.follower.on_epoch is not None:
            self.follower.on_epoch(report)

    def _save(self, trainer: lightning.Trainer, progress: Progress) -> None:
        self.progress = progress.model_copy(update={"parts": self.parts})
        trainer.save_checkpoint(LAST)
        self._kept = time.monotonic()

    def _interrupted(self) -> TrainingInterrupted:
        done = f", batch {self.progress.batch} of the next" if self.progress.batch else ""
        return TrainingInterrupted(
            f"The training was asked to stop; it is kept after epoch {self.progress.epoch} "
            f"of {self.progress.config.epochs}{done}."
        )

    def _report(self, trainer: lightning.Trainer, module: ImageClassifier, epoch: int) -> EpochReport:
        batches = int(trainer.num_training_batches) if epoch else 0
        loss_sum = _mean(trainer, module.train_sum)
        return EpochReport(
            epoch=epoch,
            epochs=self.progress.config.epochs,
            train_loss=float(loss_sum) / batches if batches else None,
            learning_rate=trainer.optimizers[0].param_groups[0]["lr"] if batches else None,
            images_per_second=self._images / max(1e-9, self._trained - self._began) if batches else None,
            seconds=time.monotonic() - self._began,
            **module.validation,
        )


def _mean(trainer: lightning.Trainer, value: Tensor) -> Tensor:
    """Over all processes."""
    mean = trainer.strategy.reduce(value.clone(), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


def _is_stuck(history: Sequence[EpochReport], patience: int) -> bool:
    """Whether the last `patience` epochs of fine-tuning have brought no lower validation loss.

    Not Lightning's callback, which runs after this module's and so would be an epoch behind in each checkpoint.
    """
    losses = [report.validation_loss for report in history if report.epoch > 0]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


class _FolderIO(TorchCheckpointIO):
    """Lets Lightning save into a `CheckpointFolder`; all processes load what the first one has."""

    def __init__(self, folder: CheckpointFolder, ranks: Ranks) -> None:
        self.folder = folder
        self.ranks = ranks

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        self.folder.save(checkpoint)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        load = super().load_checkpoint
        return self.ranks.of_first(load(path, map_location, weights_only) if self.ranks.first else {})


def build_trainer(
    config: TrainingConfig, folder: CheckpointFolder, keeper: ProgressKeeper, ranks: Ranks, parts: int
) -> lightning.Trainer:
    """A trainer with the flags of `config`, which writes nothing but checkpoints."""
    alone = ranks.place.world == 1
    # Every process has its own sums in buffers: they are no statistics to be sent around.
    strategy = config.strategy if alone else DDPStrategy(broadcast_buffers=False)
    trainer = lightning.Trainer(
        accelerator=config.accelerator,
        devices=ranks.place.local_world,
        num_nodes=ranks.place.nodes,
        strategy=strategy,
        precision=config.precision,
        deterministic=config.deterministic,
        # Inputs of one size: the fastest convolution is looked for once.
        benchmark=not config.deterministic,
        accumulate_grad_batches=config.accumulate_grad_batches * parts,
        max_epochs=config.epochs,
        # The sanity check is epoch 0: it validates the warmed-up head.
        num_sanity_val_steps=0 if keeper.progress.history else -1,
        callbacks=[keeper],
        plugins=[_FolderIO(folder, ranks), *([] if alone else [ranks.environment()])],
        default_root_dir=str(folder.directory),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    _leave_signals_alone(trainer)
    return trainer


def _leave_signals_alone(trainer: lightning.Trainer) -> None:
    """Whoever calls `fit` answers SIGTERM, and asks to stop by `stop`.

    Lightning would end the process after the batch, with no checkpoint; and to know of it in all processes, it lets
    each GPU finish its work before every batch, and swallows the loss of another process. It has no switch for that.
    """
    trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]  # noqa: SLF001
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]  # noqa: SLF001


def _nothing() -> None:
    return
