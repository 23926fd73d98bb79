"""The head-only warm-up: the backbone's features are computed once, then the linear head is trained on them."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from model.config import TrainingConfig
from model.errors import TrainingDiverged
from model.network.classifier import Classifier
from model.training.dataset import ImageData

_BATCH: Final = 64
_MOST_IMAGES: Final = 50_000
"""A warm-up on this many (drawn at random) is as good as on all, and its features fit in 256 MB."""


def warm_up_head(
    network: Classifier,
    data: ImageData,
    config: TrainingConfig,
    class_weights: Tensor | None,
    device: torch.device,
    after_each: Callable[[], None],
) -> None:
    """Train the head of `network` in place, on the plain views of the training images.

    A head that starts from noise would send large, meaningless gradients through a pretrained backbone (Kumar et al.
    2022, "Fine-Tuning can Distort Pretrained Features", section 3).

    Every process of a training does all of it, with the same result.

    Args:
        network: In eval mode.
        data: Its training images are used.
        config: The hyperparameters.
        class_weights: Of the loss, [classes], or None.
        device: Where to compute.
        after_each: Called after each batch of images; what it raises ends the warm-up.

    Raises:
        TrainingDiverged: The head's weights are not finite.
    """
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(data.train), generator=generator)[:_MOST_IMAGES].sort().values.tolist()
    network.to(device).eval()
    features, targets = _features(network, data, chosen, device, after_each)
    weights = None if class_weights is None else class_weights.to(device)
    optimizer = torch.optim.AdamW(
        network.head.parameters(), lr=config.head_warm_up_learning_rate, weight_decay=config.weight_decay
    )
    batches = -(-len(targets) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, config.head_epochs * batches))
    torch.manual_seed(config.seed)
    for _ in range(config.head_epochs):
        order = torch.randperm(len(targets), generator=generator).to(device)
        for start in range(0, len(targets), _BATCH):
            batch = order[start : start + _BATCH]
            logits = network.head(nn.functional.dropout(features[batch], config.dropout))
            loss = nn.functional.cross_entropy(logits, targets[batch], weights, label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    if not all(torch.isfinite(parameter).all() for parameter in network.head.parameters()):
        raise TrainingDiverged(
            f"The head's weights are no numbers after the warm-up (learning rate {config.head_warm_up_learning_rate})."
        )


@torch.no_grad()
def _features(
    network: Classifier, data: ImageData, indices: list[int], device: torch.device, after_each: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    features, targets = [], []
    for batch in data.in_order(data.train, indices):
        images = data.augment.plain(batch.images.to(device), batch.aspect.to(device))
        features.append(network.features(images))
        targets.append(batch.targets.to(device))
        after_each()
    return torch.cat(features), torch.cat(targets)
