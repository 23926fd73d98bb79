"""Who is told of a training while it runs, and who may end it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from model.values import EpochReport, MachineLoad

CHECKPOINT_SECONDS: Final = 300.0
"""What a node that goes without a warning costs at most; a checkpoint of 14 MB takes a fraction of a second."""


@dataclass(frozen=True)
class Follower:
    """The arguments of `model.training.fit.fit` that look on; see there."""

    on_epoch: Callable[[EpochReport], None] | None = None
    on_batch: Callable[[int, int], None] | None = None
    on_load: Callable[[MachineLoad], None] | None = None
    on_checkpoint: Callable[[], None] | None = None
    stop: Callable[[], bool] | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
