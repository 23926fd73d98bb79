"""How a network is trained, as Lightning sees it: loss, metrics, optimizer and schedule."""

from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from typing_extensions import override

from model.config import TrainingConfig
from model.dataset import Batch
from model.errors import TrainingDiverged
from model.network import Classifier


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
        self.network = network
        self.config = config
        self.register_buffer("class_weights", class_weights, persistent=False)
        classes = network.head.out_features
        self.register_buffer("confusion", torch.zeros(classes, classes, dtype=torch.long), persistent=False)
        self.register_buffer("validation_sum", torch.zeros((), dtype=torch.float64), persistent=False)
        self.register_buffer("train_sum", torch.zeros(()), persistent=False)
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
        """Draw dropout from a seed of the epoch's own, so that a resumed epoch is the same one."""
        torch.manual_seed(self.config.seed + 1_000_003 * (self.current_epoch + 1) + self.global_rank)
        self.train_sum.zero_()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch's loss.

        Raises:
            TrainingDiverged: It is not finite.
        """
        loss = nn.functional.cross_entropy(
            self.network(batch.images), batch.targets, self.class_weights, label_smoothing=self.config.label_smoothing
        )
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"The loss became {loss.item()} in epoch {self.current_epoch + 1}, batch {batch_idx + 1} "
                f"(learning rate {self.optimizers().param_groups[0]['lr']:.2g})."  # type: ignore[union-attr]
            )
        self.train_sum += loss.detach()
        return loss

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
        optimizer = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)
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
