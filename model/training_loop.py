"""Lightning's loop as this platform wants it: a report and a checkpoint for each epoch, no output of its own."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.plugins.io import TorchCheckpointIO
from typing_extensions import override

from model.checkpoints import LAST, CheckpointFolder, EpochReport, Progress, attach_progress
from model.config import TrainingConfig
from model.lightning_module import ImageClassifier


class EpochKeeper(lightning.Callback):
    """Writes each epoch's report into a checkpoint, then tells who wants to know."""

    def __init__(
        self,
        progress: Progress,
        on_epoch: Callable[[EpochReport], None] | None,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        self.progress = progress
        self.on_epoch = on_epoch
        self.on_batch = on_batch
        self._began = self._trained = time.monotonic()
        self._images = 0

    @override
    def on_sanity_check_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start()

    @override
    def on_sanity_check_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Epoch 0: the warmed-up head is validated and kept before fine-tuning begins."""
        self._keep(trainer, pl_module, epoch=0)

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
        self._images += len(batch.targets) * trainer.world_size
        self._trained = time.monotonic()
        if self.on_batch is not None and trainer.is_global_zero:
            per_epoch = int(trainer.num_training_batches)
            done = trainer.current_epoch * per_epoch + batch_idx + 1
            self.on_batch(done, per_epoch * self.progress.config.epochs)

    @override
    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._keep(trainer, pl_module, epoch=trainer.current_epoch + 1)

    @override
    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        attach_progress(checkpoint, self.progress)

    def _start(self) -> None:
        self._began = self._trained = time.monotonic()
        self._images = 0

    def _keep(self, trainer: lightning.Trainer, module: lightning.LightningModule, *, epoch: int) -> None:
        assert isinstance(module, ImageClassifier)
        report = self._report(trainer, module, epoch)
        history = (*self.progress.history, report)
        config = self.progress.config
        trainer.should_stop = _is_stuck(history, config.early_stopping_patience)
        finished = epoch == config.epochs or trainer.should_stop
        self.progress = self.progress.model_copy(update={"history": history, "finished": finished})
        trainer.save_checkpoint(LAST)
        if self.on_epoch is not None and trainer.is_global_zero:
            self.on_epoch(report)

    def _report(self, trainer: lightning.Trainer, module: ImageClassifier, epoch: int) -> EpochReport:
        batches = int(trainer.num_training_batches) if epoch else 0
        loss_sum = trainer.strategy.reduce(module.train_sum, reduce_op="mean")
        return EpochReport(
            epoch=epoch,
            epochs=self.progress.config.epochs,
            train_loss=float(loss_sum) / batches if batches else None,
            learning_rate=trainer.optimizers[0].param_groups[0]["lr"] if batches else None,
            images_per_second=self._images / max(1e-9, self._trained - self._began) if batches else None,
            seconds=time.monotonic() - self._began,
            **module.validation,
        )


def _is_stuck(history: Sequence[EpochReport], patience: int) -> bool:
    """Whether the last `patience` epochs of fine-tuning have brought no lower validation loss.

    Not Lightning's callback, which runs after this module's and so would be an epoch behind in each checkpoint.
    """
    losses = [report.validation_loss for report in history if report.epoch > 0]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


class _FolderIO(TorchCheckpointIO):
    """Lets Lightning save into a `CheckpointFolder`."""

    def __init__(self, folder: CheckpointFolder) -> None:
        self.folder = folder

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        self.folder.save(checkpoint)


def build_trainer(
    config: TrainingConfig, folder: CheckpointFolder, keeper: EpochKeeper, *, resumes: bool
) -> lightning.Trainer:
    """A trainer with the flags of `config`, which writes nothing but checkpoints."""
    return lightning.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=config.precision,
        deterministic=config.deterministic,
        accumulate_grad_batches=config.accumulate_grad_batches,
        max_epochs=config.epochs,
        # The sanity check is epoch 0: it validates the warmed-up head.
        num_sanity_val_steps=0 if resumes else -1,
        callbacks=[keeper],
        plugins=[_FolderIO(folder)],
        default_root_dir=str(folder.directory),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
