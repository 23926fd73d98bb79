"""Which images make up a batch: the same ones whatever the number of devices, and after an interruption too."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.utils.data import Sampler
from typing_extensions import override

_ORDER: Final = 0
_VARY: Final = 1
_DROP: Final = 2


@dataclass(frozen=True)
class Share:
    """The part of each batch that one process computes at once.

    A batch of the configuration is dealt out to `world` processes, and each deals its hand into `parts` where the
    memory of its GPU is too small for all of it.
    """

    rank: int = 0
    world: int = 1
    parts: int = 1

    def places(self, number: int) -> slice:
        """The places in their batch of the images of this process's partial batch `number` of an epoch."""
        return slice(self.rank * self.parts + number % self.parts, None, self.world * self.parts)


class EpochBatches(Sampler[list[int]]):
    """The images of each partial batch, by seed and epoch.

    Args:
        images: How many there are. All but those left after whole batches are used in an epoch.
        batch_size: Of all devices together; where there are fewer images, they are one batch.
        seed: Of the order.
        share: This process's part of a batch.
        interrupted: The epoch that goes on in its middle, and the partial batches of it that are done.
    """

    def __init__(
        self, images: int, batch_size: int, *, seed: int, share: Share, interrupted: tuple[int, int] = (0, 0)
    ) -> None:
        self.images = images
        self.batch_size = min(batch_size, images)
        self.seed = seed
        self.share = share
        self.interrupted = interrupted
        self.epoch = 0
        self.sampler = self  # where Lightning looks for `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """What Lightning calls at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.images // self.batch_size * self.share.parts

    @override
    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, _ORDER, self.epoch))
        order = torch.randperm(self.images, generator=generator).tolist()
        epoch, done = self.interrupted
        for number in range(done if epoch == self.epoch else 0, len(self)):
            start = number // self.share.parts * self.batch_size
            yield order[start : start + self.batch_size][self.share.places(number)]

    def seed_of_views(self, number: int) -> int:
        """The seed of how the whole batch is varied, that the partial batch `number` of this epoch belongs to."""
        return mixed_seed(self.seed, _VARY, self.epoch, number // self.share.parts)

    def seed_of_dropout(self, number: int) -> int:
        """The seed of what is dropped of that batch's features."""
        return mixed_seed(self.seed, _DROP, self.epoch, number // self.share.parts)


def mixed_seed(*key: int) -> int:
    """One well-mixed seed of several numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
