"""How a network is trained, as Lightning sees it: loss, metrics, optimizer and schedule."""

from typing import Any, Final

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from typing_extensions import override

from model.config import TrainingConfig
from model.errors import TrainingDiverged
from model.network.classifier import Classifier
from model.training.dataset import Batch

_LOOK_EVERY: Final = 50
"""Batches between two looks at the loss on a GPU, each of which waits until it has computed all."""


def _count(targets: Tensor) -> Tensor:
    return torch.tensor(float(len(targets)), device=targets.device)


class ImageClassifier(lightning.LightningModule):
    """Fine-tunes a classifier.

    Label smoothing after Szegedy et al. 2016 (section 7), AdamW (Loshchilov and Hutter 2019), the one-cycle schedule
    (Smith 2018) on discriminative learning rates.

    Args:
        network: With a head that is warmed up.
        config: The hyperparameters.
        class_weights: Of the loss, [classes], or None.
    """

    def __init__(self, network: Classifier, config: TrainingConfig, class_weights: Tensor | None) -> None:
        super().__init__()
        # Lightning leaves the mode as it finds it; without this nothing would be dropped.
        self.network = network.train()
        self.config = config
        self.register_buffer("class_weights", class_weights, persistent=False)
        classes = network.head.out_features
        self.register_buffer("confusion", torch.zeros(classes, classes, dtype=torch.long), persistent=False)
        self.register_buffer("validation_sum", torch.zeros((), dtype=torch.float64), persistent=False)
        # In checkpoints, so that an epoch that goes on in its middle reports all of it.
        self.register_buffer("train_sum", torch.zeros(()))
        self.confusion: Tensor
        self.validation_sum: Tensor
        self.train_sum: Tensor
        self.class_weights: Tensor | None
        self.validation: dict[str, float] = {}

    def forward(self, images: Tensor) -> Tensor:
        """See `Classifier.forward`."""
        logits: Tensor = self.network(images)
        return logits

    def on_train_epoch_start(self) -> None:
        """Not called where an epoch goes on in its middle."""
        self.train_sum.zero_()

    @override
    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Draw dropout from a seed of the batch's own, so that it is the same after an interruption."""
        batches = self.trainer.datamodule.batches  # type: ignore[attr-defined]
        torch.manual_seed(batches.seed_of_dropout(batch_idx))
        self.network.dropout.whole = batches.batch_size
        self.network.dropout.places = batches.share.places(batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch's loss: the mean over the images of all processes, once its gradients are averaged.

        Raises:
            TrainingDiverged: It is not finite.
        """
        total = nn.functional.cross_entropy(
            self.network(batch.images),
            batch.targets,
            self.class_weights,
            reduction="sum",
            label_smoothing=self.config.label_smoothing,
        )
        loss = total / self._weight_of(batch.targets)
        self.train_sum += loss.detach()
        if not loss.is_cuda or batch_idx % _LOOK_EVERY == 0:
            self.require_finite(batch_idx)
        return loss

    def _weight_of(self, targets: Tensor) -> Tensor:
        """The sum of the images' weights in the loss, as the mean over the processes."""
        weight = self.class_weights[targets].sum() if self.class_weights is not None else _count(targets)
        mean = self.trainer.strategy.reduce(weight, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def require_finite(self, batch_idx: int | None = None) -> None:
        """Look at the sum of the epoch's losses: once it is no number, it stays none.

        Raises:
            TrainingDiverged: It is not finite.
        """
        if not torch.isfinite(self.train_sum):
            where = "" if batch_idx is None else f", batch {batch_idx + 1}"
            raise TrainingDiverged(
                f"The loss became {self.train_sum.item()} in epoch {self.current_epoch + 1}{where} "
                f"(learning rate {self.optimizers().param_groups[0]['lr']:.2g})."  # type: ignore[union-attr]
            )

    def on_validation_epoch_start(self) -> None:
        self.confusion.zero_()
        self.validation_sum.zero_()

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the confusion matrix (rows are targets) and to the loss."""
        logits = self.network(batch.images).float()
        classes = logits.shape[1]
        pairs = batch.targets * classes + logits.argmax(1)
        self.confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        self.validation_sum += nn.functional.cross_entropy(logits, batch.targets, reduction="sum")

    def on_validation_epoch_end(self) -> None:
        """Gather the sums of all devices into `validation`.

        Raises:
            TrainingDiverged: The loss is not finite.
        """
        confusion = self.trainer.strategy.reduce(self.confusion, reduce_op="sum")
        loss = self.trainer.strategy.reduce(self.validation_sum, reduce_op="sum")
        assert isinstance(confusion, Tensor)
        assert isinstance(loss, Tensor)
        if not torch.isfinite(loss):
            raise TrainingDiverged(f"The validation loss became {loss.item()} after epoch {self.current_epoch + 1}.")
        per_label = confusion.sum(1)
        recall = confusion.diagonal()[per_label > 0] / per_label[per_label > 0]
        self.validation = {
            "validation_loss": (loss / per_label.sum()).item(),
            "validation_accuracy": (confusion.diagonal().sum() / per_label.sum()).item(),
            "validation_macro_recall": recall.mean().item(),
        }

    def configure_optimizers(self) -> Any:
        """AdamW over the discriminative groups, and the cycle over all steps."""
        groups = self.network.parameter_groups(
            head=self.config.head_learning_rate,
            backbone=self.config.backbone_learning_rate,
            decay=self.config.layer_decay,
        )
        optimizer = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay, fused=self.device.type == "cuda")
        # Two steps of rise and one of fall at least: PyTorch divides by the length of each.
        steps = max(3, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in groups],
            total_steps=steps,
            pct_start=max(0.2, 2 / steps),
            div_factor=10,
            final_div_factor=100,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
